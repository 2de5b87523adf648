"""The attention of a classification head of `hf_attn_mi.heads`: learned queries over the tokens of the input."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.attention import effective_attention, efficient_attention
from hf_attn_mi.capture import AttentionCall
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.results.layer_attention import LayerAttention

MODEL, NAME = "AttentionHeadForSequenceClassification", "head"


@dataclass
class HeadStatistics:
    """Consumer of the head's attention call: one `LayerAttention` for each input.

    Args:
        heads: the number of heads of the attention head.
        queries: the number of learned queries of each head; the rows of a head.
        lengths: number of tokens of each input.
        real: (batch, tokens) bool, True for real tokens.
        efficient: also solve efficient attention.
    """

    heads: int
    queries: int
    lengths: list[int]
    real: Tensor
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
                keys = self.real[i, :length].to(rows.device)
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
        support_size = None
        if self.efficient:
            support_size = efficient_attention(rows, values, mask).support_size.double().mean(1).float()
        return LayerAttention(
            layer=layer,
            name=NAME,
            n=int(keys.sum()),
            head_dim=values.shape[-1],
            rank=effective.rank,
            null_space_fraction=effective.null_space_fraction.float(),
            entropy=torch.special.entr(rows).sum(-1).mean(-1),
            received=rows.mean(1),
            received_effective=effective.attention.mean(1),
            support_size=support_size,
        )


def has_head(model: nn.Module) -> bool:
    """Whether this is the model of `hf_attn_mi.heads`; recognized by name, since importing its class takes seconds."""
    return any(kind.__name__ == MODEL for kind in type(model).__mro__)


def head_statistics(model: nn.Module, lengths: list[int], real: Tensor, efficient: bool) -> HeadStatistics | None:
    """Return a collector for the head of the model; None if it has none."""
    if not has_head(model):
        return None
    head: Any = model.head
    return HeadStatistics(head.heads, head.queries, lengths, real, efficient)


def refuse_without_head(runner: EncoderRunner) -> None:
    """Raise `InvalidInputError` for a model without an attention head of `hf_attn_mi.heads`."""
    if not has_head(runner.model):
        raise InvalidInputError(
            f"method 'head' is the attention of a head made with hf_attn_mi.heads; {runner.class_name} has none. Use "
            "another method, such as 'relevance' or 'attention'."
        )
