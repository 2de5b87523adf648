"""What capture streams: one frozen record for each attention call and for each layer's hidden states."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError

MASKED_BELOW = -5e3  # additive masks in use are -1e4, -65504, finfo.min or -inf; real logits stay far above


@dataclass(frozen=True, eq=False)
class Projection:
    """The output projection W_O that consumes the concatenated heads, as the model holds it."""

    weight: Tensor  # (in_features, hidden)
    bias: Tensor | None  # (hidden,)
    features: Tensor  # (heads, head_dim) row of `weight` that each head's coordinate meets

    def per_head(self) -> Tensor:
        """The slice of W_O of each head, (heads, head_dim, hidden)."""
        return self.weight[self.features.to(self.weight.device)]


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One attention module, called once.

    `batch` is the batch of the call: windowed vision models fold their windows into it. Keys and values of
    grouped-query models come un-repeated, with `kv_heads` heads.

    Attributes:
        index: order of the call in the forward pass, from 0.
        layer: index of the layer within its stack (encoder, decoder, cross-attention ...), from 0.
        module_name: dotted name of the module that computed it, as in `model.named_modules()`.
        query: (batch, heads, queries, qk_dim), or None where the logits are not one product of two tensors.
        key: (batch, kv_heads, keys, qk_dim), or None likewise.
        value: (batch, kv_heads, keys, head_dim).
        mask: boolean (True = attend) or additive, broadcastable to (batch, heads, queries, keys), or None.
        scale: factor of the product of query and key; None where it is not known (use `logits()`).
        is_causal: the call asks for a causal mask in place of `mask`.
        output: (batch, heads, queries, head_dim), the rows times the values.
        projection: the linear map W_O the output is followed to; None when there is none before a
            non-linear step (see `capture_attention`), and in `replace`, which runs before it.
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
    rows: Tensor | None  # (batch, heads, queries, keys) where the model itself formed them
    raw_logits: Tensor | None  # logits that went into the softmax, where the model formed them

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
        """The slice of W_O of each head, (heads, head_dim, hidden); None where W_O was not reached."""
        return None if self.projection is None else self.projection.per_head()

    def values_per_head(self) -> Tensor:
        """Values repeated for every query head, (batch, heads, keys, head_dim)."""
        return repeat_heads(self.value, self.heads)

    def logits(self) -> Tensor:
        """Attention logits s_ij with bias and additive mask, (batch, heads, queries, keys)."""
        if self.raw_logits is not None:
            return self.raw_logits
        if self.query is None or self.key is None:
            raise InvalidInputError("This call keeps neither its logits nor its query and key: use rows.")
        scale = self.query.shape[-1] ** -0.5 if self.scale is None else self.scale
        scores = self.query @ repeat_heads(self.key, self.heads).transpose(-1, -2) * scale
        if self.mask is not None and self.mask.dtype != torch.bool:
            scores = scores + self.mask
        return scores

    def allowed(self) -> Tensor:
        """Keys each query may attend to, boolean, broadcastable to (batch, heads, queries, keys)."""
        queries, keys = self.output.shape[-2], self.value.shape[-2]
        if self.raw_logits is not None and self.query is None:
            return self.raw_logits > MASKED_BELOW  # the mask is not known apart from the logits
        if self.mask is not None:
            return self.mask if self.mask.dtype == torch.bool else self.mask > MASKED_BELOW
        full = torch.ones(1, 1, queries, keys, dtype=torch.bool, device=self.value.device)
        return full.tril() if self.is_causal else full

    def attention(self) -> Tensor:
        """Attention rows a_ij, (batch, heads, queries, keys); a row with no allowed key is zero.

        Computed on demand from query and key where the model used a fused kernel, in the dtype of the query.
        """
        if self.rows is not None:
            return self.rows * self.allowed().any(-1, keepdim=True)
        allowed = self.allowed()
        rows = self.logits().masked_fill(~allowed, -torch.inf).softmax(-1)
        return rows.nan_to_num(0.0)  # rows with no allowed key


@dataclass(frozen=True, eq=False)
class LayerStates:
    """The hidden states of one point of a stack: index 0 the embeddings, index i the output of layer i."""

    index: int
    stack: str  # name of the module whose layers these are, "" for the model itself
    states: Tensor  # (batch, tokens, hidden), as the model holds them


def repeat_heads(tensor: Tensor, heads: int) -> Tensor:
    """(batch, kv_heads, n, d) -> (batch, heads, n, d): each key/value head serves a run of query heads."""
    groups = heads // tensor.shape[1]
    return tensor if groups == 1 else tensor.repeat_interleave(groups, dim=1)
