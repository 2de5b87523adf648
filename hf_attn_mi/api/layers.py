"""What was seen in each attention layer, for every example of a batch, while the model runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from hf_attn_mi.attention import effective_attention, effective_summary, efficient_attention, received_effective
from hf_attn_mi.capture import AttentionCall
from hf_attn_mi.errors import InvalidInput, UnsupportedModel
from hf_attn_mi.explanation import LayerAttention

CHUNK = 4_000_000  # entries of attention rows formed at a time


@dataclass(frozen=True, eq=False)
class HeadView:
    """Some examples of one attention call, in float32 or wider."""

    rows: Tensor  # (batch, heads, n, n) attention, zero for masked keys and queries
    values: Tensor  # (batch, heads, n, head_dim)
    output: Tensor  # (batch, heads, n, head_dim)
    real: Tensor  # (batch, n) bool: tokens that are neither padding nor masked
    keys: Tensor  # (batch, n) bool, or (batch, n, n) where queries see different keys (causal, sliding window)

    @property
    def by_row(self) -> bool:
        """Whether queries see different keys."""
        return self.keys.dim() == 3


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
    """

    lengths: list[int]
    masks: Tensor
    encoder: str = ""
    efficient: bool = False
    matrices: bool = False
    by_row: bool = False
    layers: list[list[LayerAttention]] = field(default_factory=list)
    efficient_received: list[list[Tensor]] = field(default_factory=list)
    means: list[list[Tensor]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.layers = [[] for _ in self.lengths]
        self.efficient_received = [[] for _ in self.lengths]
        self.means = [[] for _ in self.lengths]

    def __call__(self, call: AttentionCall) -> None:
        """Summarise one attention call."""
        if not covers_tokens(call, self.masks, self.encoder):
            self.skipped.append(call.module_name)
            return
        with torch.no_grad():
            size = 1 if self.efficient else max(1, CHUNK // (call.heads * self.masks.shape[1] ** 2))
            for start in range(0, len(self.lengths), size):
                chunk = range(start, min(start + size, len(self.lengths)))
                longest = max(self.lengths[i] for i in chunk)
                view = head_view(call, chunk, self.masks[chunk.start : chunk.stop, :longest])
                for i, summary in zip(chunk, self._summaries(call, view, chunk)):
                    self.layers[i].append(summary)
                if self.matrices:
                    for i, rows in zip(chunk, view.rows):
                        self.means[i].append(rows[:, : self.lengths[i], : self.lengths[i]].mean(0).cpu())

    def _summaries(self, call: AttentionCall, view: HeadView, chunk: range) -> Iterator[LayerAttention]:
        count = view.real.sum(1)[:, None, None]
        received = view.rows.sum(2) / count  # rows of masked queries are zero
        entropy = torch.special.entr(view.rows).sum((2, 3)) / count[..., 0]
        rank, difference, unseen = self._effective(view, received)
        for b, i in enumerate(chunk):
            n = self.lengths[i]
            yield LayerAttention(
                layer=call.layer, name=call.module_name, n=int(count[b]), head_dim=call.head_dim, rank=rank[b],
                difference=None if difference is None else difference[b].float(), entropy=entropy[b].float(),
                received=received[b, :, :n].float(),
                received_effective=None if unseen is None else unseen[b, :, :n].float(),
                support=self._support(view, b, i, n),
            )  # fmt: skip

    def _effective(self, view: HeadView, received: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Rank, difference and effective weight received; the last two None where they cost and nobody asked."""
        union = view.keys.any(1) if view.by_row else view.keys
        seen = effective_summary(view.rows, view.values, union, view.real)
        whole = seen.n <= seen.rank  # independent values: every row is determined by its output
        if not view.by_row or bool(whole.all()):
            unseen = received_effective(view.output, view.values, union, view.real)
            return seen.rank, seen.difference, torch.where(whole[..., None], received, unseen.to(received.dtype))
        if not self.by_row:
            return seen.rank, None, None
        full = effective_attention(view.rows, view.values, view.keys[:, None], query_mask=view.real)
        return seen.rank, full.difference, full.attention.sum(2) / view.real.sum(1)[:, None, None]

    def _support(self, view: HeadView, b: int, i: int, n: int) -> Tensor | None:
        """(heads,) mean support of efficient attention; keeps what each token receives of it."""
        if not self.efficient:
            return None
        real, keys = view.real[b, :n], view.keys[b, :n, :n] if view.by_row else view.keys[b, :n]
        keys = keys.expand(view.rows.shape[1], *keys.shape)  # a (queries, keys) mask could be read as (heads, keys)
        solved = efficient_attention(view.rows[b, :, :n, :n], view.values[b, :, :n], keys)
        self.efficient_received[i].append((solved.attention[:, real].sum(1) / real.sum()).cpu())
        return solved.support[:, real].double().mean(1).float()


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


def head_view(call: AttentionCall, examples: range, real: Tensor) -> HeadView:
    """The rows, values and output of some examples.

    Args:
        call: an attention call that covers the tokens of the batch.
        examples: their places in the batch.
        real: (examples, n) bool, True for real tokens; n is the length of the longest of them.

    Raises:
        InvalidInput: the values of real tokens are not finite.
        UnsupportedModel: the heads of one module have different masks.
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
        call, query=maybe(call.query, 2), key=maybe(call.key, 2), value=cut(call.value, 2),
        mask=maybe(call.mask, 2, 3), output=cut(call.output, 2), rows=maybe(call.rows, 2, 3),
        raw_logits=maybe(call.raw_logits, 2, 3),
    )  # fmt: skip
    real = real.to(some.value.device)
    used = some.value.transpose(1, 2)
    if not bool(torch.isfinite(used[real] if used.shape[0] == real.shape[0] else used).all()):
        raise InvalidInput(
            f"model: {call.module_name} computed NaN or infinite values from finite weights, so the forward pass "
            "overflows: try float32 in place of half precision."
        )
    allowed = some.allowed()
    if allowed.shape[1] > 1 and bool((allowed != allowed[:, :1]).any()):
        raise UnsupportedModel(f"{call.module_name}: its heads have different masks; use capture_attention.")
    allowed = allowed[:, 0] & real[:, None, :]
    seen = allowed & real[:, :, None]
    keys = seen.any(1)
    by_row = bool((seen != (keys[:, None, :] & real[:, :, None])).any())
    rows = some.attention() * seen[:, None]
    return HeadView(rows, some.values_per_head(), some.output, real, seen if by_row else keys)
