"""What was seen in each attention layer, for every example of a batch, while the model runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from hf_attn_mi.attention import efficient_attention
from hf_attn_mi.capture import AttentionCall
from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError
from hf_attn_mi.kernels import AttentionStatistics, attention_statistics
from hf_attn_mi.methods.head_attention import HeadCollector
from hf_attn_mi.results.explanation import LayerAttention

CHUNK = 4_000_000  # entries of attention rows formed at a time


@dataclass(frozen=True, eq=False)
class LayerView:
    """Some examples of one attention call, in float32 or wider.

    Attributes:
        call: the call, cut to these examples and their tokens.
        real: (batch, n) bool: tokens that are neither padding nor masked.
        seen: (batch, n, n) bool: the keys that each real query sees.
        keys: (batch, n) bool, or `seen` where queries see different keys (causal, sliding window).
    """

    call: AttentionCall
    real: Tensor
    seen: Tensor
    keys: Tensor

    @property
    def by_row(self) -> bool:
        """Whether queries see different keys."""
        return self.keys.dim() == 3

    @cached_property
    def rows(self) -> Tensor:
        """(batch, heads, n, n) attention, zero for masked keys and queries; formed when first asked for."""
        return self.call.attention() * self.seen[:, None]

    @cached_property
    def values(self) -> Tensor:
        """(batch, heads, n, head_dim)."""
        return self.call.values_per_head()


@dataclass
class LayerCollector:
    """Consumer of attention calls: summaries of every layer that attends over the input's own tokens.

    Args:
        lengths: number of tokens of each example of the batch.
        masks: (batch, tokens) bool, True for real tokens.
        encoder: prefix of the modules to keep ("" keeps all), so that a decoder's tokens are not mixed in.
        efficient: also solve efficient attention (costs about a millisecond a row).
        matrices: also keep the head-mean attention of each layer, for rollout.
        by_row: also compute effective attention where queries see different keys (seconds a layer on long input).
        head: takes the attention of a classification head, which stands apart from the layers of the encoder.
    """

    lengths: list[int]
    masks: Tensor
    encoder: str = ""
    efficient: bool = False
    matrices: bool = False
    by_row: bool = False
    head: HeadCollector | None = None
    layers: list[list[LayerAttention]] = field(default_factory=list)
    efficient_received: list[list[Tensor]] = field(default_factory=list)
    means: list[list[Tensor]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.layers = [[] for _ in self.lengths]
        self.efficient_received = [[] for _ in self.lengths]
        self.means = [[] for _ in self.lengths]

    def __call__(self, call: AttentionCall) -> None:
        """Summarize one attention call."""
        if self.head is not None and self.head.takes(call):
            self.head(call, 1 + max((layer.layer for layer in self.layers[0]), default=-1))
            return
        if not covers_tokens(call, self.masks, self.encoder):
            self.skipped.append(call.module_name)
            return
        with torch.no_grad():
            size = 1 if self.efficient else max(1, CHUNK // (call.heads * self.masks.shape[1] ** 2))
            for start in range(0, len(self.lengths), size):
                chunk = range(start, min(start + size, len(self.lengths)))
                longest = max(self.lengths[i] for i in chunk)
                view = layer_view(call, chunk, self.masks[chunk.start : chunk.stop, :longest])
                for i, summary in zip(chunk, self._summaries(call, view, chunk)):
                    self.layers[i].append(summary)
                if self.matrices:
                    for i, rows in zip(chunk, view.rows):
                        self.means[i].append(rows[:, : self.lengths[i], : self.lengths[i]].mean(0).cpu())

    def _summaries(self, call: AttentionCall, view: LayerView, chunk: range) -> Iterator[LayerAttention]:
        found, difference, unseen = _analyzed(view, call.output.dtype, self.by_row)
        count = view.real.sum(1)
        assert found.mean_entropy is not None
        assert found.received is not None
        for b, i in enumerate(chunk):
            n = self.lengths[i]
            yield LayerAttention(
                layer=call.layer,
                name=call.module_name,
                n=int(count[b]),
                head_dim=call.head_dim,
                rank=found.rank[b],
                difference=None if difference is None else difference[b].float(),
                entropy=found.mean_entropy[b].float(),
                received=found.received[b, :, :n].float(),
                received_effective=None if unseen is None else unseen[b, :, :n].float(),
                support=self._support(view, b, i, n),
            )

    def _support(self, view: LayerView, b: int, i: int, n: int) -> Tensor | None:
        """(heads,) mean support of efficient attention; keeps what each token receives of it."""
        if not self.efficient:
            return None
        real, keys = view.real[b, :n], view.keys[b, :n, :n] if view.by_row else view.keys[b, :n]
        keys = keys.expand(view.rows.shape[1], *keys.shape)  # a (queries, keys) mask could be read as (heads, keys)
        solved = efficient_attention(view.rows[b, :, :n, :n], view.values[b, :, :n], keys)
        self.efficient_received[i].append((solved.attention[:, real].sum(1) / real.sum()).cpu())
        return solved.support[:, real].double().mean(1).float()


def _analyzed(
    view: LayerView, precision: torch.dtype, asked: bool
) -> tuple[AttentionStatistics, Tensor | None, Tensor | None]:
    """One tiled pass over the call: its analysis, ||A - A_eff|| / ||A|| and the effective attention received.

    Args:
        view: the examples.
        precision: that of the model's own output; half precision is multiplied again.
        asked: compute the last two also where queries see different keys and each row has a projector of its own.
    """
    call, formed = view.call, view.call.rows is not None
    keys = view.keys.any(1) if view.by_row else view.keys
    says_keys = not view.by_row and (call.mask is None or (call.mask.dtype == torch.bool and call.mask.shape[1] == 1))
    found = attention_statistics(
        None if formed else call.query,
        None if formed else call.key,
        call.value,
        call.output if precision in (torch.float32, torch.float64) else None,
        rows=view.rows if formed else None,
        mask=None if formed or says_keys else call.mask,
        scale=call.scale,
        is_causal=call.is_causal and view.by_row and not formed,
        key_mask=keys,
        query_mask=view.real,
        statistics="raw" if view.by_row and not asked else "summary",
    )
    assert found.received is not None
    if not view.by_row or asked:
        return found, found.difference, found.received_effective
    if bool((found.n <= found.rank).all()):  # independent values: every row is determined by its output
        return found, torch.zeros_like(found.rank, dtype=torch.float32), found.received
    return found, None, None


def encoder_prefix(model: nn.Module) -> str:
    """Name of the encoder inside an encoder-decoder, "" for every other model."""
    if not getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return ""
    return next((name for name, _ in model.named_modules() if name.rpartition(".")[2] == "encoder"), "")


def covers_tokens(call: AttentionCall, masks: Tensor, encoder: str = "") -> bool:
    """Whether queries and keys of the call are the tokens of the batch: no windows, no cross-attention."""
    batch, tokens = masks.shape
    same = call.output.shape[0] == batch and call.output.shape[2] == tokens and call.value.shape[2] == tokens
    return same and (encoder == "" or call.module_name.startswith(encoder + "."))


def layer_view(call: AttentionCall, examples: range, real: Tensor) -> LayerView:
    """The rows, values and output of some examples.

    Args:
        call: an attention call that covers the tokens of the batch.
        examples: their places in the batch.
        real: (examples, n) bool, True for real tokens; n is the length of the longest of them.

    Raises:
        InvalidInputError: the values of real tokens are not finite.
        UnsupportedModelError: the heads of one module have different masks.
    """
    n = real.shape[1]

    def cut(tensor: Tensor, *dims: int) -> Tensor:
        tensor = tensor.detach()
        tensor = tensor[examples.start : examples.stop] if tensor.shape[0] > 1 else tensor
        for dim in dims:
            tensor = tensor.narrow(dim, 0, n) if tensor.shape[dim] > 1 else tensor
        return tensor if tensor.dtype in (torch.bool, torch.float32, torch.float64) else tensor.float()

    def maybe(tensor: Tensor | None, *dims: int) -> Tensor | None:
        return None if tensor is None else cut(tensor, *dims)

    some = replace(
        call,
        query=maybe(call.query, 2),
        key=maybe(call.key, 2),
        value=cut(call.value, 2),
        mask=maybe(call.mask, 2, 3),
        output=cut(call.output, 2),
        rows=maybe(call.rows, 2, 3),
        raw_logits=maybe(call.raw_logits, 2, 3),
    )
    real = real.to(some.value.device)
    used = some.value.transpose(1, 2)
    if not bool(torch.isfinite(used[real] if used.shape[0] == real.shape[0] else used).all()):
        raise InvalidInputError(
            f"model: {call.module_name} computed NaN or infinite values from finite weights, so the forward pass "
            "overflows: try float32 in place of half precision."
        )
    allowed = some.allowed()
    if allowed.shape[1] > 1 and bool((allowed != allowed[:, :1]).any()):
        raise UnsupportedModelError(f"{call.module_name}: its heads have different masks; use capture_attention.")
    allowed = allowed[:, 0] & real[:, None, :]
    seen = allowed & real[:, :, None]
    keys = seen.any(1)
    by_row = bool((seen != (keys[:, None, :] & real[:, :, None])).any())
    return LayerView(some, real, seen, seen if by_row else keys)
