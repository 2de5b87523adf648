"""The pass of texts through a model that a profile is fitted to."""

from __future__ import annotations

import time
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.capture import LayerStates, capture_attention, model_lock
from hf_attn_mi.data.reservoir import Reservoir
from hf_attn_mi.data.texts import TextReader
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.methods.layer_statistics import LayerCollector, encoder_prefix
from hf_attn_mi.models.batching import batches, padding_id, real_tokens, stack
from hf_attn_mi.models.encode import maximum_length, read_inputs
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.inspect_layers import Survey, arguments_of, class_logits, survey
from hf_attn_mi.models.loading import device_of, evaluation_mode
from hf_attn_mi.models.padding import ignores_padding
from hf_attn_mi.models.text_inputs import encode_text
from hf_attn_mi.tasks.sites import SitePlan

LEAST = 50  # inputs: 20 for each of two classes, and five for each of ten folds


@dataclass
class TextPass:
    """The pass of the texts through the model; `found`, `plan` and `sample` are made with the first of them."""

    model: nn.Module
    tokenizer: Any
    chosen: tuple[str, ...]
    wanted: list[int] | None
    memory: int
    seed: int
    most: int | None = None  # texts there can be
    number: int = 0  # of the next text
    cut: int = 0  # texts longer than the model's maximum
    bare: int = 0  # texts that the tokenizer makes nothing of
    seconds: float = 0.0
    layers: tuple[int, ...] = ()
    found: Survey = field(init=False)
    plan: SitePlan = field(init=False)
    sample: Reservoir = field(init=False)

    @property
    def bytes_each(self) -> int:
        """Memory of one input's states."""
        return len(self.layers) * len(self.plan.names) * self.found.width * 4

    def take(self, texts: list[Any], size: int) -> None:
        """Run those of the texts that the sample keeps."""
        numbered = self._encode(texts)
        if numbered and not self.layers:
            self._start([example for _, example in numbered])
        rows = [self.sample.offer(number) for number, _ in numbered] if numbered else []
        kept = [
            (row, number, example)
            for row, (number, example) in zip(rows, numbered)
            if row is not None and self.sample.owner[row] == number
        ]
        examples = [example for *_, example in kept]
        pad = padding_id(self.model)
        mixed = size > 1 and pad is not None and len({example.length for example in examples}) > 1
        before = time.perf_counter()
        for positions in batches(examples, size, mixed=mixed and ignores_padding(self.model, examples, pad)):
            self._forward([kept[i] for i in positions], pad or 0)
        self.seconds += time.perf_counter() - before

    def finish(self) -> int:
        """The number of inputs kept."""
        kept = len(self.sample.owner) if self.layers else 0
        if kept < LEAST:
            raise InvalidInputError(
                f"dataset has {kept} texts with tokens; a profile needs 20 for each class, better a few hundred."
            )
        return kept

    def notes(self, texts: TextReader, kept: int) -> list[str]:
        """Warnings about the texts."""
        found = []
        if kept < self.number - self.bare:
            found.append(
                f"{kept} of {self.number - self.bare} inputs were kept, drawn at random: the states of more do not fit "
                f"into memory={self.memory} bytes ({self.bytes_each} an input)."
            )
        if self.cut:
            found.append(f"{self.cut} of {texts.seen} texts were cut to the model's maximum length.")
        return found

    def _encode(self, texts: list[Any]) -> list[tuple[int, EncodedInput]]:
        numbers = range(self.number, self.number + len(texts))
        self.number += len(texts)
        limit, spoken = maximum_length(self.model, self.tokenizer), []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one for each text that is cut; they are counted
            for number, text in zip(numbers, texts):
                with suppress(InvalidInputError):  # a text without a token of its own
                    encode_text(text, self.tokenizer, limit, True, number)
                    spoken.append((number, text))
            self.bare += len(texts) - len(spoken)
            if not spoken:
                return []
            examples, *_ = read_inputs([text for _, text in spoken], self.model, self.tokenizer, True)
        self.cut += sum(bool(example.warnings) for example in examples)
        return [(number, example) for (number, _), example in zip(spoken, examples)]

    def _start(self, examples: list[EncodedInput]) -> None:
        self.found = survey(self.model, next((e for e in examples if int(e.length or 0) > 2), examples[0]))
        self.layers = read_layers(self.wanted, self.found)
        self.plan = SitePlan(self.chosen, examples, self.found.reads, self.seed)
        capacity = self.memory // self.bytes_each
        if capacity < LEAST:
            raise InvalidInputError(
                f"memory={self.memory} bytes holds {capacity} inputs of {self.bytes_each} bytes; at least {LEAST} are "
                "needed: raise it, or choose fewer layers or sites."
            )
        shape = (len(self.layers), len(self.plan.names), self.found.width)
        rows = capacity if self.most is None else min(capacity, max(self.most, 1))
        self.sample = Reservoir(rows, shape, self.found.classes, seed=self.seed)

    def _forward(self, kept: list[tuple[int, int, EncodedInput]], pad: int) -> None:
        rows, examples = [row for row, *_ in kept], [example for *_, example in kept]
        fixed = [self.plan.places(example, number) for _, number, example in kept]
        batch = stack(examples, pad, device_of(self.model))
        seen = None
        if self.plan.ranks:
            seen = LayerCollector(
                [int(e.length or 0) for e in examples], real_tokens(batch), encoder_prefix(self.model)
            )

        def take(record: LayerStates) -> None:
            if record.stack == self.found.stack and record.index in self.layers:
                ranked = [self._ranked(seen, i, example, record.index) for i, example in enumerate(examples)]
                places = torch.tensor([[*always, *more] for always, more in zip(fixed, ranked)])
                self.sample.put(self.layers.index(record.index), rows, record.states, places)

        watch = capture_attention(self.model, seen or _ignore, states=take)
        with model_lock(self.model), evaluation_mode(self.model), watch:
            outputs = self.model(**arguments_of(self.model, batch))
        logits: Tensor = class_logits(self.model, outputs, len(rows))
        self.sample.outputs[rows] = logits.double().softmax(1).cpu()

    def _ranked(self, seen: LayerCollector | None, i: int, example: EncodedInput, index: int) -> list[int]:
        """Picks by attention in the layer whose output the states of this index are."""
        layers = [] if seen is None else seen.layers[i]
        made = next((layer for layer in layers if layer.layer == index - 1), None)
        return self.plan.ranked(example, None if made is None else made.received.mean(0))


def _ignore(call: Any) -> None:
    """The pass is watched for its states only."""


def read_layers(wanted: Any, found: Survey) -> tuple[int, ...]:
    """The wanted layers, in order.

    Raises:
        InvalidInputError: no list of numbers, or a layer that is not there.
    """
    if wanted is None:
        return found.layers
    if not isinstance(wanted, (list, tuple, range)) or not wanted or not all(type(layer) is int for layer in wanted):
        raise InvalidInputError(f"layers must be None (all) or a list of whole numbers, not {wanted!r}.")
    missing = sorted(set(wanted) - set(found.layers))
    if missing:
        raise InvalidInputError(
            f"layers {missing} are not there; this model has {list(found.layers)} (0 = embeddings, i = output of layer "
            "i)."
        )
    return tuple(sorted(set(wanted)))
