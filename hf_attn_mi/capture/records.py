"""The records of a capture: one for each attention call and one for the hidden states of each layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError

MASKED_BELOW = -5e3  # additive masks in use are -1e4, -65504, finfo.min or -inf; real logits stay far above


@dataclass(frozen=True, eq=False)
class Projection:
    """The output projection W_O applied to the concatenated heads, as the model holds it.

    Attributes:
        weight: (in_features, hidden).
        bias: (hidden,) or None.
        features: (heads, head_dim) long, the row of `weight` that multiplies each coordinate of each head.
    """

    weight: Tensor
    bias: Tensor | None
    features: Tensor

    def per_head(self) -> Tensor:
        """Return the slice of W_O of each head, (heads, head_dim, hidden)."""
        return self.weight[self.features.to(self.weight.device)]


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One call of one attention module.

    `batch` is the batch of the call: windowed vision models fold their windows into it. Keys and values of
    grouped-query models are not repeated: they have `kv_heads` heads.

    Attributes:
        index: order of the call in the forward pass, from 0.
        layer: index of the layer within its stack (encoder, decoder, cross-attention ...), from 0.
        module_name: dotted name of the module that computed it, as in `model.named_modules()`.
        query: (batch, heads, queries, qk_dim), or None if the logits are not one product of two tensors.
        key: (batch, kv_heads, keys, qk_dim), or None likewise.
        value: (batch, kv_heads, keys, head_dim).
        mask: boolean (True = attend) or additive, broadcastable to (batch, heads, queries, keys), or None.
        scale: factor of the product of query and key; None if it is not known (use `logits()`).
        is_causal: the call asks for a causal mask instead of `mask`.
        output: (batch, heads, queries, head_dim), the rows times the values.
        projection: the linear map W_O that is applied to the output; None if a non-linear step comes before it,
            and in `replace`, which runs before it.
        rows: (batch, heads, queries, keys) where the model itself computes them, else None (use `attention()`).
        raw_logits: the logits before the softmax where the model computes them, else None (use `logits()`).
    """

    index: int
    layer: int
    module_name: str
    query: Tensor | None
    key: Tensor | None
    value: Tensor
    mask: Tensor | None
    scale: float | None
    is_causal: bool
    output: Tensor
    projection: Projection | None
    rows: Tensor | None
    raw_logits: Tensor | None

    @property
    def heads(self) -> int:
        """Number of query heads."""
        return self.output.shape[1]

    @property
    def head_dim(self) -> int:
        """Width of one head's values."""
        return self.value.shape[-1]

    @property
    def output_weight(self) -> Tensor | None:
        """The slice of W_O of each head, (heads, head_dim, hidden); None without a projection."""
        return None if self.projection is None else self.projection.per_head()

    def values_per_head(self) -> Tensor:
        """Return the values repeated for every query head, (batch, heads, keys, head_dim)."""
        return repeat_heads(self.value, self.heads)

    def logits(self) -> Tensor:
        """Return the attention logits with bias and additive mask, (batch, heads, queries, keys).

        Raises:
            InvalidInputError: the call has neither logits nor query and key.
        """
        if self.raw_logits is not None:
            return self.raw_logits
        if self.query is None or self.key is None:
            raise InvalidInputError("This call has neither its logits nor its query and key: use rows.")
        scale = self.query.shape[-1] ** -0.5 if self.scale is None else self.scale
        scores = self.query @ repeat_heads(self.key, self.heads).transpose(-1, -2) * scale
        if self.mask is not None and self.mask.dtype != torch.bool:
            scores = scores + self.mask
        return scores

    def allowed(self) -> Tensor:
        """Return the keys that each query may attend to, bool, broadcastable to (batch, heads, queries, keys)."""
        queries, keys = self.output.shape[-2], self.value.shape[-2]
        if self.raw_logits is not None and self.query is None:
            return self.raw_logits > MASKED_BELOW  # the mask is known only as a part of the logits
        if self.mask is not None:
            return self.mask if self.mask.dtype == torch.bool else self.mask > MASKED_BELOW
        full = torch.ones(1, 1, queries, keys, dtype=torch.bool, device=self.value.device)
        return full.tril() if self.is_causal else full

    def attention(self) -> Tensor:
        """Return the attention rows a_ij, (batch, heads, queries, keys); a row without an allowed key is zero.

        Where the model used a fused kernel they are computed from query and key, in the dtype of the query.
        """
        if self.rows is not None:
            return self.rows * self.allowed().any(-1, keepdim=True)
        allowed = self.allowed()
        rows = self.logits().masked_fill(~allowed, -torch.inf).softmax(-1)
        return rows.nan_to_num(0.0)  # rows with no allowed key


@dataclass(frozen=True, eq=False)
class ReplacedAttention:
    """What `replace` of `capture_attention` may return where the output is not the new rows times the values.

    Attributes:
        rows: (batch, heads, queries, keys) the new rows.
        output: (batch, heads, queries, head_dim) with which the model continues; None for rows @ values.
    """

    rows: Tensor
    output: Tensor | None = None


@dataclass(frozen=True, eq=False)
class LayerStates:
    """The hidden states at one point of a stack of layers.

    Attributes:
        index: 0 for the embeddings, i for the output of layer i.
        stack: name of the module that owns the layers, "" for the model itself.
        states: (batch, tokens, hidden), as the model holds them.
    """

    index: int
    stack: str
    states: Tensor


def repeat_heads(tensor: Tensor, heads: int) -> Tensor:
    """Return (batch, heads, n, d) from (batch, kv_heads, n, d): consecutive query heads share a key/value head."""
    groups = heads // tensor.shape[1]
    return tensor if groups == 1 else tensor.repeat_interleave(groups, dim=1)
