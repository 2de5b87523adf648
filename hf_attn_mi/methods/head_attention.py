"""The attention of a classification head of `hf_attn_mi.heads`: learned queries over the tokens of the input."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.attention import effective_attention, efficient_attention
from hf_attn_mi.capture import AttentionCall
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.results.explanation import LayerAttention

MODEL, NAME = "AttentionHeadForSequenceClassification", "head"


@dataclass
class HeadCollector:
    """Consumer of the head's attention call: one `LayerAttention` for each example.

    Args:
        heads: heads of the attention head.
        queries: learned queries of each; the rows of a head.
        lengths: number of tokens of each example.
        masks: (batch, tokens) bool, True for real tokens.
        efficient: also solve efficient attention.
    """

    heads: int
    queries: int
    lengths: list[int]
    masks: Tensor
    efficient: bool = False
    layers: list[list[LayerAttention]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.layers = [[] for _ in self.lengths]

    def takes(self, call: AttentionCall) -> bool:
        """Whether this is the call of the head."""
        return call.module_name == NAME

    def __call__(self, call: AttentionCall, layer: int) -> None:
        """Summarize the call; `layer` is its number, one above the encoder's last."""
        with torch.no_grad():
            rows = self._apart(call.attention().detach())[..., 0, :]  # (batch, heads, queries, tokens)
            values = self._apart(call.values_per_head().detach())[:, :, 0]  # (batch, heads, tokens, head_dim)
            for i, length in enumerate(self.lengths):
                keys = self.masks[i, :length].to(rows.device)
                summary = self._summary(rows[i, ..., :length], values[i, :, :length], keys, layer)
                self.layers[i].append(summary)

    def _apart(self, tensor: Tensor) -> Tensor:
        """(batch, heads * queries, ...) -> (batch, heads, queries, ...), in float32 or wider."""
        wide = tensor if tensor.dtype == torch.float64 else tensor.float()
        return wide.reshape(wide.shape[0], self.heads, self.queries, *wide.shape[2:])

    def _summary(self, rows: Tensor, values: Tensor, keys: Tensor, layer: int) -> LayerAttention:
        rows = rows * keys
        mask = keys.expand(self.heads, -1)  # one for each head
        effective = effective_attention(rows, values, mask)
        support = None
        if self.efficient:
            support = efficient_attention(rows, values, mask).support.double().mean(1).float()
        return LayerAttention(
            layer=layer,
            name=NAME,
            n=int(keys.sum()),
            head_dim=values.shape[-1],
            rank=effective.rank,
            difference=effective.difference.float(),
            entropy=torch.special.entr(rows).sum(-1).mean(-1),
            received=rows.mean(1),
            received_effective=effective.attention.mean(1),
            support=support,
        )


def has_head(model: nn.Module) -> bool:
    """Whether this is the model of `hf_attn_mi.heads`; told by name, since importing its class takes seconds."""
    return any(kind.__name__ == MODEL for kind in type(model).__mro__)


def head_collector(model: nn.Module, lengths: list[int], masks: Tensor, efficient: bool) -> HeadCollector | None:
    """Return a collector for the head of the model; None where it has none."""
    if not has_head(model):
        return None
    head: Any = model.head
    return HeadCollector(head.heads, head.queries, lengths, masks, efficient)


def check_head(method: str, model: nn.Module, methods: list[str]) -> None:
    """Refuse method "head" for a model without such a head.

    Raises:
        InvalidInputError: names the other methods.
    """
    if method == NAME and not has_head(model):
        others = ", ".join(name for name in methods if name != NAME)
        raise InvalidInputError(
            f"method 'head' is the attention of a head made with hf_attn_mi.heads; {type(model).__name__} has none. "
            f"Allowed for this model are {others}."
        )
