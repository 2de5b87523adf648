"""`KeptPasses`: what one forward pass of each batch gave, kept for the methods and targets to come."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.capture import LayerStates
from hf_attn_mi.errors import HfAttnMiError
from hf_attn_mi.methods.base import TokenScorer
from hf_attn_mi.methods.batch import ScoringBatch
from hf_attn_mi.methods.layer_statistics import LEVELS, LayerStatistics
from hf_attn_mi.methods.shared_pass import PassConsumer, PassReader, SharedPass
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.input_pass import knows_input_pass
from hf_attn_mi.models.runner import EncoderRunner

MOST_BYTES = 1 << 28  # of tensors of all kept passes together
ALWAYS = frozenset({"received", "head"})  # statistics that every collector has


@dataclass
class _Kept:
    """A pass with its consumers, by what they collect."""

    shared: SharedPass
    statistics: dict[tuple[str, frozenset[str]], PassConsumer] = field(default_factory=dict)
    observers: dict[str, PassConsumer] = field(default_factory=dict)
    bytes: int | None = None  # None until the pass has been run


class KeptPasses:
    """The passes over unchanged inputs that several methods or targets read, one for each batch.

    The first method that needs the pass of a batch runs it. Everything that the methods named here read is collected
    meanwhile, by the consumers that each of them would have alone, so that its scores are the same. What is kept are
    the outputs without their graph and the summaries of the layers: no activations, no attention.

    Args:
        runner: runs the model.
        scorers: the methods to come; those without `statistics` and `observer` read the outputs only.
        timed: count what each pass costs; see `PassReader.cost`.
        most_bytes: batches are kept until their tensors take so much; later ones are run by each method.

    Example:
        >>> kept = KeptPasses(runner, [attention, effective])                                         # doctest: +SKIP
        >>> for scorer in (attention, effective):                                                     # doctest: +SKIP
        ...     score_batch(runner, inputs, scorer, target, {}, reader=kept.reader(inputs, scorer))
    """

    def __init__(
        self,
        runner: EncoderRunner,
        scorers: Sequence[TokenScorer],
        *,
        timed: bool = False,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.runner, self.scorers, self.timed, self.most_bytes = runner, tuple(scorers), timed, most_bytes
        self._kept: dict[Hashable, _Kept] = {}

    def reader(
        self,
        inputs: Sequence[EncodedInput],
        scorer: TokenScorer,
        *,
        layers: str = "none",
        states: Callable[[LayerStates], None] | None = None,
    ) -> PassReader:
        """The pass of these inputs for one method.

        Args:
            inputs: the inputs of one batch.
            scorer: the method.
            layers: the kind of statistics of the attention layers to collect, as in `score_batch`.
            states: called with the hidden states of each layer; they are not kept, so that the pass is run anew.
        """
        key = _key(inputs)
        kept = self._kept.get(key)
        if kept is not None and (states is not None or kept.shared.failed):
            del self._kept[key]
            kept = None
        if kept is None:
            kept = self._prepared(inputs, scorer, layers, states)
            if self._has_room():
                self._kept[key] = kept
        found = self._find(kept, scorer, layers)
        if found is None:  # a method or level that was not foreseen
            return self._reader(_Kept(SharedPass(self.runner, inputs, timed=self.timed)), scorer, layers)
        return found

    def outputs(self, inputs: Sequence[EncodedInput]) -> Any:
        """The outputs of these inputs where their pass is kept and was run, else None."""
        kept = self._kept.get(_key(inputs))
        return None if kept is None else kept.shared.outputs

    def release(self) -> None:
        """Let go of everything."""
        self._kept.clear()

    def _prepared(
        self,
        inputs: Sequence[EncodedInput],
        scorer: TokenScorer,
        layers: str,
        states: Callable[[LayerStates], None] | None,
    ) -> _Kept:
        """A pass that is yet to be run, with the consumers of every method."""
        kept = _Kept(SharedPass(self.runner, inputs, states=states, timed=self.timed, of_several=True))
        self._reader(kept, scorer, layers)
        with suppress(HfAttnMiError):  # of a model that cannot be run
            if not knows_input_pass(self.runner, kept.shared.arguments):
                return kept  # attention cannot be read, and what reads it would stop methods that do not
        for other in self.scorers:
            with suppress(Exception):  # whatever is wrong with another method is said when that one is run
                self._reader(kept, other, "none")
        return kept

    def _reader(self, kept: _Kept, scorer: TokenScorer, layers: str) -> PassReader:
        """The reader of one method; its consumers are added where they are missing."""
        shared, (level, extras) = kept.shared, _needed(scorer, layers)
        if _collector(kept, level, extras) is None:
            statistics = LayerStatistics.of(self.runner, shared.inputs, level=level, extras=extras)
            if statistics is not None:
                kept.statistics[level, extras - ALWAYS] = shared.add(statistics)
        reader = PassReader(shared, _collector(kept, level, extras))
        observer = getattr(scorer, "observer", None)
        if observer is not None and shared.inputs[0].token_count:
            if scorer.name not in kept.observers:
                batch = ScoringBatch(self.runner, shared.inputs, reader=reader)
                kept.observers[scorer.name] = shared.add(observer(batch))
            reader.observer = kept.observers[scorer.name]
        return reader

    def _find(self, kept: _Kept, scorer: TokenScorer, layers: str) -> PassReader | None:
        """The reader of one method; None if the pass has been begun without its consumers."""
        level, extras = _needed(scorer, layers)
        observed = getattr(scorer, "observer", None) is None or scorer.name in kept.observers
        collected = (level == "none" and not extras) or _collector(kept, level, extras) is not None
        if kept.shared.begun and kept.shared.inputs[0].token_count and not (observed and collected):
            return None
        return self._reader(kept, scorer, layers)

    def _has_room(self) -> bool:
        for one in self._kept.values():
            if one.bytes is None and one.shared.outputs is not None:
                held = [getattr(consumer.receive, "__dict__", {}) for consumer in one.shared.consumers]
                one.bytes = tensor_bytes([one.shared.outputs, one.shared.arguments, held])
        return sum(one.bytes or 0 for one in self._kept.values()) < self.most_bytes


def _needed(scorer: TokenScorer, layers: str) -> tuple[str, frozenset[str]]:
    """The level and the extra statistics that a method reads."""
    return layers, frozenset(getattr(scorer, "statistics", ()))


def _collector(kept: _Kept, level: str, extras: frozenset[str]) -> PassConsumer | None:
    """The collector that holds this; of any level where a method reads its own statistics only."""
    if level != "none" or not extras:
        return kept.statistics.get((level, extras - ALWAYS))
    found = (kept.statistics.get((other, extras - ALWAYS)) for other in LEVELS)
    return next((one for one in found if one is not None), None)


def _key(inputs: Sequence[EncodedInput]) -> Hashable:
    """What decides the pass of these inputs: their tensors, entry by entry."""
    return tuple((one.token_count, one.length, *map(_digest, sorted(one.tensors.items()))) for one in inputs)


def _digest(item: tuple[str, Tensor]) -> Hashable:
    name, tensor = item
    tensor = tensor.detach().cpu()
    content = tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return name, tuple(tensor.shape), str(tensor.dtype), hashlib.blake2b(content).digest()


def tensor_bytes(value: Any) -> int:
    """Bytes of all tensors in a value, through containers and dataclasses.

    Example:
        >>> import torch
        >>> tensor_bytes({"a": [torch.zeros(3), torch.zeros(2, dtype=torch.float64)]})
        28
    """
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(map(tensor_bytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(tensor_bytes, value))
    if is_dataclass(value) and not isinstance(value, type):
        return sum(tensor_bytes(getattr(value, one.name)) for one in fields(value))
    return 0
