"""Run texts through a model and collect the states that a profile is fitted to."""

from __future__ import annotations

import hashlib
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch

from hf_attn_mi.capture import LayerStates
from hf_attn_mi.data.reservoir import Reservoir
from hf_attn_mi.data.texts import TextReader
from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.methods.layer_statistics import LayerStatistics
from hf_attn_mi.models.encode import encode_text, has_tokens
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.input_pass import capture_input
from hf_attn_mi.models.inspect_layers import LayerInspection, class_logits, inspect_layers
from hf_attn_mi.models.loading import maximum_length
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.texts import read_item
from hf_attn_mi.tasks.processes import Processes
from hf_attn_mi.tasks.sites import SitePlan

MANY_COPIES = 0.01  # share of inputs that are copies, above which there is a warning
LEAST = 50  # inputs: 20 for each of two classes, and five for each of ten folds


@dataclass
class StateCollection:
    """Runs texts through a model and keeps one state of each site and layer of a sample of them.

    `inspection`, `plan` and `sample` are made with the first texts.

    Attributes:
        runner: runs the model.
        chosen: names of the sites.
        chosen_layers: indices of the layers to keep; None for all.
        memory: bytes for the states that are kept.
        seed: the random seed for every random draw.
        most: the maximum number of texts; None if that is not known.
        number: the number of the next text.
        cut: the number of texts that are longer than the model's maximum.
        empty: the number of texts without tokens.
        seconds: the duration of the forward passes.
        offered: numbers of the texts that were offered to the sample.
        marks: by the numbers of the texts that the sample kept, a digest that is the same for equal inputs.
        layers: indices of the layers that are kept.
        inspection: the stack of layers.
        plan: the token of an input that each site uses.
        sample: the states and the outputs of the model.
    """

    runner: EncoderRunner
    chosen: tuple[str, ...]
    chosen_layers: list[int] | None
    memory: int
    seed: int
    most: int | None = None
    number: int = 0
    cut: int = 0
    empty: int = 0
    seconds: float = 0.0
    offered: list[int] = field(default_factory=list)
    marks: dict[int, bytes] = field(default_factory=dict)
    layers: tuple[int, ...] = ()
    inspection: LayerInspection = field(init=False)
    plan: SitePlan = field(init=False)
    sample: Reservoir = field(init=False)

    @property
    def bytes_each(self) -> int:
        """Memory of one input's states."""
        return len(self.layers) * len(self.plan.names) * self.inspection.width * 4

    def take(self, texts: list[Any], size: int, *, mine: bool = True) -> None:
        """Run those of the texts that the sample keeps.

        Args:
            texts: the next texts.
            size: maximum number of inputs in one forward pass.
            mine: False counts them only: another process runs them. Until there are texts to start with they are
                encoded all the same, since all processes start with the same ones.
        """
        if not mine:
            if self.layers:
                self.number += len(texts)
                return
            empty, cut, numbered = self.empty, self.cut, self._encode(texts)
            self.empty, self.cut = empty, cut
            if numbered:
                self._start([one for _, one in numbered])
            return
        numbered = self._encode(texts)
        self.offered += [number for number, _ in numbered]
        if numbered and not self.layers:
            self._start([one for _, one in numbered])
        rows = [self.sample.offer(number) for number, _ in numbered] if numbered else []
        kept = [
            (row, number, one)
            for row, (number, one) in zip(rows, numbered)
            if row is not None and self.sample.owner[row] == number
        ]
        self.marks |= {number: _mark(one) for _, number, one in kept}
        started = time.perf_counter()
        for places in self.runner.batches([one for *_, one in kept], size):
            self._forward([kept[i] for i in places])
        self.seconds += time.perf_counter() - started

    def _gather(self, processes: Processes) -> None:
        """Put the samples of all processes together, in each of them."""
        if processes.count == 1:
            return
        mine = (self.sample if self.layers else None, self.offered, self.empty, self.cut, self.seconds, self.marks)
        parts = processes.gathered(mine)
        self.empty, self.cut = sum(part[2] for part in parts), sum(part[3] for part in parts)
        self.seconds = max(part[4] for part in parts)
        self.marks = {number: mark for part in parts for number, mark in part[5].items()}
        if self.layers:
            numbers = [number for part in parts for number in part[1]]
            self.sample = self.sample.merged(numbers, [part[0] for part in parts])

    def finish(self, processes: Processes) -> int:
        """The number of inputs kept, by all processes together."""
        self._gather(processes)
        kept = len(self.sample.owner) if self.layers else 0
        if kept < LEAST:
            raise InvalidInputError(
                f"dataset has {kept} texts with tokens; a profile needs 20 for each class, and a few hundred are "
                "better."
            )
        return kept

    def notes(self, texts: TextReader, kept: int) -> list[str]:
        """Warnings about the model and the texts."""
        notes = list(self.runner.notes)
        if kept < self.number - self.empty:
            notes.append(
                f"{kept} of {self.number - self.empty} inputs were kept, drawn at random: the states of more do not "
                f"fit into memory={self.memory} bytes ({self.bytes_each} for each input)."
            )
        copies = kept - len({self.marks[number] for number in self.sample.owner.values()})
        if copies > MANY_COPIES * kept:
            notes.append(
                f"{copies} of {kept} inputs are equal to others. Bounds, intervals and p-values hold for independent "
                "inputs: if these are copies, leave them out."
            )
        if self.cut:
            notes.append(f"{self.cut} of {texts.seen} texts were cut to the model's maximum length.")
        return notes

    def _encode(self, texts: list[Any]) -> list[tuple[int, EncodedInput]]:
        numbers = range(self.number, self.number + len(texts))
        self.number += len(texts)
        tokenizer = self.runner.require_tokenizer()
        limit, usable = maximum_length(self.runner.model, tokenizer), list[tuple[int, Any]]()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one for each text that is cut; they are counted
            for number, text in zip(numbers, texts):
                if has_tokens(encode_text(read_item(text, number), tokenizer, limit, True, number)):
                    usable.append((number, text))
            self.empty += len(texts) - len(usable)
            if not usable:
                return []
            encoded, _ = self.runner.encode([text for _, text in usable], truncation=True)
        self.cut += sum(bool(one.warnings) for one in encoded)
        return [(number, one) for (number, _), one in zip(usable, encoded)]

    def _start(self, inputs: list[EncodedInput]) -> None:
        self.inspection = inspect_layers(self.runner, next((one for one in inputs if one.token_count > 2), inputs[0]))
        self.layers = read_layers(self.chosen_layers, self.inspection)
        self.plan = SitePlan(self.chosen, inputs, self.inspection.reads, self.seed)
        capacity = self.memory // self.bytes_each
        if capacity < LEAST:
            raise InvalidInputError(
                f"memory={self.memory} bytes holds {capacity} inputs of {self.bytes_each} bytes; at least {LEAST} are "
                "needed: raise it, or choose fewer layers or sites."
            )
        shape = (len(self.layers), len(self.plan.names), self.inspection.width)
        rows = capacity if self.most is None else min(capacity, max(self.most, 1))
        self.sample = Reservoir(rows, shape, self.inspection.classes, seed=self.seed)

    def _forward(self, kept: list[tuple[int, int, EncodedInput]]) -> None:
        rows, inputs = [row for row, *_ in kept], [one for *_, one in kept]
        fixed = [self.plan.places(one, number) for _, number, one in kept]
        statistics = LayerStatistics.of(self.runner, inputs, level="summary") if self.plan.ranks else None

        def take(record: LayerStates) -> None:
            if record.stack == self.inspection.stack and record.index in self.layers:
                ranked = [self._ranked(statistics, i, one, record.index) for i, one in enumerate(inputs)]
                places = torch.tensor([[*always, *more] for always, more in zip(fixed, ranked)])
                self.sample.put(self.layers.index(record.index), rows, record.states, places)

        arguments = self.runner.collate(inputs)
        capture = capture_input(self.runner, arguments, statistics or _states_only, states=take)
        with self.runner.session(), torch.no_grad(), capture:
            outputs = self.runner.forward(arguments)
        logits = class_logits(self.runner, outputs, len(rows))
        self.sample.outputs[rows] = logits.double().softmax(1).cpu()

    def _ranked(self, statistics: LayerStatistics | None, i: int, one: EncodedInput, index: int) -> list[int]:
        """Positions ranked by the attention they receive in the layer that produced the states of this index."""
        layers = [] if statistics is None else statistics.layers[i]
        layer = next((layer for layer in layers if layer.layer == index - 1), None)
        return self.plan.ranked(one, None if layer is None else layer.received.mean(0))


def _states_only(call: object) -> None:
    """The pass is captured for its states only."""


def read_layers(layers: object, inspection: LayerInspection) -> tuple[int, ...]:
    """The chosen layers, in order.

    Raises:
        InvalidInputError: not a list of numbers, or a layer that does not exist.
    """
    if layers is None:
        return inspection.layers
    if not isinstance(layers, list | tuple | range) or not layers or not all(type(layer) is int for layer in layers):
        raise InvalidInputError(f"layers must be None (all) or a list of whole numbers, not {shown(layers)}.")
    missing = sorted(set(layers) - set(inspection.layers))
    if missing:
        raise InvalidInputError(
            f"layers {missing} do not exist; this model has {list(inspection.layers)} (0 = embeddings, i = output of "
            "layer i)."
        )
    return tuple(sorted(set(layers)))


def _mark(one: EncodedInput) -> bytes:
    """Return a digest of what the model reads."""
    digest = hashlib.sha256()
    for name in sorted(one.tensors):
        digest.update(name.encode() + one.tensors[name].cpu().contiguous().numpy().tobytes())
    return digest.digest()[:8]
