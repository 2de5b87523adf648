"""The statistics of each attention layer, for every input of a batch, collected while the model runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product

import torch
from torch import Tensor

from hf_attn_mi.attention import efficient_attention
from hf_attn_mi.capture import AttentionCall
from hf_attn_mi.errors import HfAttnMiError, InvalidInputError, UnsupportedModelError
from hf_attn_mi.kernels import AttentionStatistics, attention_statistics
from hf_attn_mi.kernels.inputs import is_finite
from hf_attn_mi.methods.call_stack import CallStack, stacked
from hf_attn_mi.methods.cross_attention import CrossAttention
from hf_attn_mi.methods.heads import HeadStatistics, head_statistics
from hf_attn_mi.models.encoded_input import EncodedInput, real_positions
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.results.layer_attention import LayerAttention

CHUNK = 4_000_000  # entries of attention rows formed at a time


@dataclass(frozen=True, eq=False)
class LayerView:
    """Some inputs of one attention call, in float32 or wider.

    Attributes:
        call: the call, cut to these inputs and their tokens.
        real: (batch, n) bool: tokens that are neither padding nor masked.
        visible: (batch, n, n) bool: the keys that each real query sees.
        keys: (batch, n) bool, or `visible` where queries see different keys (causal, sliding window).
    """

    call: AttentionCall
    real: Tensor
    visible: Tensor
    keys: Tensor

    @property
    def per_query(self) -> bool:
        """Whether queries see different keys."""
        return self.keys.dim() == 3

    @cached_property
    def rows(self) -> Tensor:
        """(batch, heads, n, n) attention, zero for masked keys and queries; formed when first asked for."""
        return self.call.attention() * self.visible[:, None]

    @cached_property
    def values(self) -> Tensor:
        """(batch, heads, n, head_dim)."""
        return self.call.values_per_head()


LEVELS = ("full", "summary", "none")
EXTRAS = frozenset({"received", "efficient", "matrices", "per_query_effective", "head"})


@dataclass
class LayerStatistics:
    """Consumer of attention calls: the statistics of every layer that attends over the input's own tokens.

    Args:
        lengths: number of tokens of each input of the batch.
        real: (batch, tokens) bool, True for real tokens.
        encoder: prefix of the modules to keep ("" keeps all), so that a decoder's tokens are not mixed in.
        level: "full", or "summary" for entropy, attention received and the counts that decide identifiability only.
        extras: what a method reads: "received" and "head" (always there), "efficient" (efficient attention, about a
            millisecond a row), "matrices" (the head-mean attention of each layer), "per_query_effective" (effective
            attention also where queries see different keys, seconds a layer on long input).
        head: collects the attention of a classification head, which is separate from the layers of the encoder.
        cross: collects the attention of a decoder to the input's tokens.

    Calls of few tokens wait, and the statistics of several layers are computed together: for these most of the time is
    that of starting operations.

    Attributes:
        finished: for each input one `LayerAttention` a layer, None for those that wait; read `layers`.
        efficient_received: for each input and layer (heads, tokens) efficient attention received ("efficient").
        matrices: for each input and layer (tokens, tokens) attention, mean over heads ("matrices").
        skipped: names of attention modules over other tokens.
        other_keys: those of `skipped` whose keys are other tokens (windows, merged patches, latents), not their queries
            alone (as in pooling by attention).
    """

    lengths: list[int]
    real: Tensor
    encoder: str = ""
    level: str = "full"
    extras: frozenset[str] = frozenset()
    head: HeadStatistics | None = None
    cross: CrossAttention | None = None
    finished: list[list[LayerAttention | None]] = field(default_factory=list)
    efficient_received: list[list[Tensor]] = field(default_factory=list)
    matrices: list[list[Tensor]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    other_keys: list[str] = field(default_factory=list)
    waiting: CallStack = field(default_factory=CallStack)

    def __post_init__(self) -> None:
        self.finished = [[] for _ in self.lengths]
        self.efficient_received = [[] for _ in self.lengths]
        self.matrices = [[] for _ in self.lengths]

    @classmethod
    def of(
        cls,
        runner: EncoderRunner,
        inputs: Sequence[EncodedInput],
        *,
        level: str = "full",
        extras: frozenset[str] = frozenset(),
    ) -> LayerStatistics | None:
        """The collector for a batch of these inputs; None if there is nothing to collect.

        Args:
            runner: runs the model.
            inputs: the inputs of the batch.
            level: "full", "summary", or "none" for `extras` only.
            extras: extra statistics, as in `LayerStatistics`.
        """
        if not inputs[0].token_count or (level == "none" and not extras):
            return None
        unknown = sorted(extras - EXTRAS)
        if unknown:
            raise InvalidInputError(f"statistics {unknown} are not known; allowed are {', '.join(sorted(EXTRAS))}.")
        arguments = runner.collate(inputs)
        real = real_positions(inputs, arguments)
        lengths = [one.token_count for one in inputs]
        head = head_statistics(runner.model, lengths, real, "efficient" in extras)
        encoder, wanted = runner.encoder_prefix, level
        cross = CrossAttention.of(lengths, real, encoder, arguments, effective=wanted == "full")
        level = "summary" if level == "none" else level
        return cls(lengths, real, encoder, level, extras, head, None if wanted == "none" else cross)

    def __call__(self, call: AttentionCall) -> None:
        """Summarize one attention call."""
        if self.head is not None and self.head.takes(call):
            self.head(call, 1 + max((layer.layer for layer in self.layers[0]), default=-1))
            return
        if self.cross is not None and self.cross.takes(call):
            self.cross(call)
            return
        if not covers_tokens(call, self.real, self.encoder):
            self.skipped.append(call.module_name)
            if call.value.shape[0] != len(self.lengths) or call.value.shape[2] != self.real.shape[1]:
                self.other_keys.append(call.module_name)
            return
        if self.extras.isdisjoint(("efficient", "matrices")) and self._waits(call):
            return
        with torch.no_grad():
            efficient = "efficient" in self.extras
            size = 1 if efficient else max(1, CHUNK // (call.heads * self.real.shape[1] ** 2))
            for start in range(0, len(self.lengths), size):
                chunk = range(start, min(start + size, len(self.lengths)))
                longest = max(self.lengths[i] for i in chunk)
                view = layer_view(call, chunk, self.real[chunk.start : chunk.stop, :longest])
                for i, summary in zip(chunk, self._summaries([call], view, chunk)):
                    self.finished[i].append(summary)
                if "matrices" in self.extras:
                    for i, rows in zip(chunk, view.rows):
                        self.matrices[i].append(rows[:, : self.lengths[i], : self.lengths[i]].mean(0).cpu())

    @property
    def layers(self) -> list[list[LayerAttention]]:
        """For each input one `LayerAttention` a layer."""
        self.finish()
        return [[layer for layer in layers if layer is not None] for layers in self.finished]

    def _waits(self, call: AttentionCall) -> bool:
        """Whether the call waits; its result gets a place."""
        if not self.waiting.takes(call):
            self.finish()
            if not self.waiting.takes(call):
                return False
        self.waiting.add(len(self.finished[0]), call)
        for layers in self.finished:
            layers.append(None)
        return True

    def finish(self) -> None:
        """Summarize the calls that wait."""
        groups = self.waiting.take()
        with torch.no_grad(), torch._C.DisableTorchFunction():  # the modes that follow the model may still be open
            for group in groups:
                try:
                    self._summarize(group)
                except HfAttnMiError:
                    for one in group:  # so that the message names the module
                        self._summarize([one])

    def _summarize(self, group: list[tuple[int, AttentionCall]]) -> None:
        """Summarize calls of the same form in one step."""
        calls, inputs = [call for _, call in group], range(len(self.lengths))
        real = self.real[:, : max(self.lengths)].repeat(len(calls), 1)
        view = layer_view(stacked(calls), range(len(calls) * len(inputs)), real)
        places = product((place for place, _ in group), inputs)
        for (place, i), summary in zip(places, self._summaries(calls, view, inputs), strict=True):
            self.finished[i][place] = summary

    def of_input(self, index: int) -> tuple[LayerAttention, ...]:
        """The layers of the encoder, of a decoder's attention to it, and of the attention head, for one input."""
        cross = () if self.cross is None else tuple(self.cross.layers[index])
        head = () if self.head is None else tuple(self.head.layers[index])
        self.finish()
        return (*(layer for layer in self.finished[index] if layer is not None), *cross, *head)

    def _summaries(self, calls: list[AttentionCall], view: LayerView, chunk: range) -> Iterator[LayerAttention]:
        """The summaries of each call, input by input; the view holds the calls one after another."""
        try:
            statistics, null_space, effective = _statistics(view, calls[0].output.dtype, self.level, self.extras)
        except InvalidInputError as error:
            _refuse_ignored_mask(view, error)
            raise
        # Brought to the processor for all calls at once: a device has to finish its work for each transfer.
        real_counts, rank = view.real.sum(1).tolist(), statistics.rank.cpu()
        entropy, received = statistics.mean_entropy.float().cpu(), statistics.received.float().cpu()
        null_space = None if null_space is None else null_space.float().cpu()
        effective = None if effective is None else effective.float().cpu()
        for b, (call, i) in enumerate(product(calls, chunk)):
            n = self.lengths[i]
            yield LayerAttention(
                layer=call.layer,
                name=call.module_name,
                n=real_counts[b],
                head_dim=call.head_dim,
                rank=rank[b],
                null_space_fraction=None if null_space is None else null_space[b],
                entropy=entropy[b],
                received=received[b, :, :n],
                received_effective=None if effective is None else effective[b, :, :n],
                support_size=self._support_size(view, b, i, n),
            )

    def _support_size(self, view: LayerView, b: int, i: int, n: int) -> Tensor | None:
        """(heads,) mean support of efficient attention; keeps what each token receives of it."""
        if "efficient" not in self.extras:
            return None
        real, keys = view.real[b, :n], view.keys[b, :n, :n] if view.per_query else view.keys[b, :n]
        keys = keys.expand(view.rows.shape[1], *keys.shape)  # a (queries, keys) mask could be read as (heads, keys)
        solved = efficient_attention(view.rows[b, :, :n, :n], view.values[b, :, :n], keys)
        self.efficient_received[i].append((solved.attention[:, real].sum(1) / real.sum()).cpu())
        return solved.support_size[:, real].double().mean(1).float()


def _statistics(
    view: LayerView, precision: torch.dtype, level: str, extras: frozenset[str]
) -> tuple[AttentionStatistics, Tensor | None, Tensor | None]:
    """One tiled pass over the call: its statistics, ||A - A_eff|| / ||A|| and the effective attention received.

    The last two are None if they were not computed: at level "summary", and where queries see different keys and
    each row has a projector of its own (unless "per_query_effective" asks for them). With independent values (n at
    most the rank) they are known without computing anything: A_eff is A.
    """
    call, formed = view.call, view.call.rows is not None
    keys = view.keys.any(1) if view.per_query else view.keys
    by_keys = not view.per_query and (call.mask is None or (call.mask.dtype == torch.bool and call.mask.shape[1] == 1))
    effective = "per_query_effective" in extras or (level == "full" and not view.per_query)
    statistics = attention_statistics(
        None if formed else call.query,
        None if formed else call.key,
        call.value,
        call.output if precision in (torch.float32, torch.float64) else None,  # else computed again in float32
        rows=view.rows if formed else None,
        mask=None if formed or by_keys else call.mask,
        scale=call.scale,
        is_causal=call.is_causal and view.per_query and not formed,
        key_mask=keys,
        query_mask=view.real,
        effective=effective,
    )
    if effective:
        return statistics, statistics.null_space_fraction, statistics.received_effective
    if bool((statistics.n <= statistics.rank).all()):  # independent values: every row is determined by its output
        return statistics, torch.zeros_like(statistics.rank, dtype=torch.float32), statistics.received
    return statistics, None, None


def _refuse_ignored_mask(view: LayerView, error: InvalidInputError) -> None:
    """Raise `UnsupportedModelError` where the model lets its tokens attend to tokens that are masked in the inputs."""
    attended = view.call.allowed()[:, 0] & view.real[:, :, None] & ~view.real[:, None, :]
    if not bool(attended.any()):
        return
    count = int(attended.any(1).any(0).sum())
    raise UnsupportedModelError(
        f"{view.call.module_name} attends to {count} tokens that inputs['attention_mask'] masks: the model ignores its "
        "attention_mask, or replaces it by another. Pass the inputs with the mask that the model uses (or without "
        "attention_mask, if it uses none), or layers='none' for scores without the attention of the layers."
    ) from error


def covers_tokens(call: AttentionCall, real: Tensor, encoder: str = "") -> bool:
    """Whether queries and keys of the call are the tokens of the batch: no windows, no cross-attention."""
    batch, tokens = real.shape
    same = call.output.shape[0] == batch and call.output.shape[2] == tokens and call.value.shape[2] == tokens
    return same and (encoder == "" or call.module_name.startswith(encoder + "."))


def _finite_at(value: Tensor, real: Tensor) -> bool:
    """Whether the values (batch or 1, heads, n, head_dim) of real tokens are finite."""
    used = value.transpose(1, 2)
    return bool(torch.isfinite(used[real] if used.shape[0] == real.shape[0] else used).all())


def layer_view(call: AttentionCall, inputs: range, real: Tensor) -> LayerView:
    """The rows, values and output of some inputs.

    Args:
        call: an attention call that covers the tokens of the batch.
        inputs: their places in the batch.
        real: (inputs, n) bool, True for real tokens; n is the length of the longest of them.

    Raises:
        InvalidInputError: the values of real tokens are not finite.
        UnsupportedModelError: the heads of one module have different masks.
    """
    n = real.shape[1]

    def cut(tensor: Tensor, *dims: int) -> Tensor:
        tensor = tensor.detach()
        tensor = tensor[inputs.start : inputs.stop] if tensor.shape[0] > 1 else tensor
        for dim in dims:
            tensor = tensor.narrow(dim, 0, n) if tensor.shape[dim] > 1 else tensor
        return tensor if tensor.dtype in (torch.bool, torch.float32, torch.float64) else tensor.float()

    def cut_if_given(tensor: Tensor | None, *dims: int) -> Tensor | None:
        return None if tensor is None else cut(tensor, *dims)

    part = replace(
        call,
        query=cut_if_given(call.query, 2),
        key=cut_if_given(call.key, 2),
        value=cut(call.value, 2),
        mask=cut_if_given(call.mask, 2, 3),
        output=cut(call.output, 2),
        rows=cut_if_given(call.rows, 2, 3),
        raw_logits=cut_if_given(call.raw_logits, 2, 3),
    )
    real = real.to(part.value.device)
    if not is_finite(part.value) and not _finite_at(part.value, real):
        raise InvalidInputError(
            f"model: {call.module_name} computed NaN or infinite values from finite weights, so the forward pass "
            "overflows: try float32 in place of half precision."
        )
    allowed = part.allowed()
    if allowed.shape[1] > 1 and bool((allowed != allowed[:, :1]).any()):
        raise UnsupportedModelError(f"{call.module_name}: its heads have different masks; use capture_attention.")
    allowed = allowed[:, 0] & real[:, None, :]
    visible = allowed & real[:, :, None]
    keys = visible.any(1)
    per_query = bool((visible != (keys[:, None, :] & real[:, :, None])).any())
    return LayerView(part, real, visible, visible if per_query else keys)
