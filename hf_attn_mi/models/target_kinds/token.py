"""The target `token`: the label of a token, a word or an entity, for token classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.labels import label_name, label_names, label_number
from hf_attn_mi.models.output_heads import ExplainedTarget
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.target_kinds.base import (
    Bound,
    BoundTarget,
    OutputRow,
    TargetReading,
    call_text,
    check_count,
    contrast,
)
from hf_attn_mi.models.target_kinds.places import locate, real_ordinary, text_of

OUTSIDE = "O"  # the label of tokens that belong to no entity
Part = tuple[int, int, float]  # token, label, weight


@dataclass(frozen=True)
class Token:
    """The label of a token, for token classification (entities, parts of speech).

    The explained value is the logit of the label minus the mean of the other logits, the probability the softmax over
    the labels; of several tokens the mean of both.

    Args:
        word: the word, as in the text; several words are an entity. Without `word`, `position` and `span` the most
            probable entity token is explained: the highest probability of a label other than "O".
        label: name or number; None for the most probable one.
        occurrence: the number of the occurrence of the word, from 0.
        position: the position of the token, instead of a word; special tokens count.
        span: (start, end) characters, instead of a word.
        tokens: "first" reads the first token of the word or span, where token classifiers are trained; "all" reads
            each of its tokens and takes the mean.

    Raises:
        InvalidInputError: values of the wrong type.

    Example:
        >>> Token(word="Paris", label="B-LOC").label
        'B-LOC'
    """

    word: str | None = None
    label: str | int | None = None
    occurrence: int = 0
    position: int | None = None
    span: tuple[int, int] | None = None
    tokens: Literal["first", "all"] = "first"
    kind: ClassVar[str] = "token"

    def __post_init__(self) -> None:
        check_count("token", "occurrence", self.occurrence)
        if self.word is not None and not isinstance(self.word, str):
            raise InvalidInputError(f"target token: word must be a text, not {shown(self.word)}; position= is a place.")
        if self.tokens not in ("first", "all"):
            raise InvalidInputError(f"target token: tokens must be 'first' or 'all', not {shown(self.tokens)}.")

    def bind(self, one: EncodedInput, runner: EncoderRunner) -> BoundTarget:
        """See `TargetKind.bind`."""
        label = None if self.label is None else label_number(self.label, runner.config)
        if self.word is None and self.position is None and self.span is None:
            return _BestEntity(one, runner, label)
        places = locate(
            "token",
            one,
            word=self.word,
            occurrence=self.occurrence,
            position=self.position,
            span=self.span,
            tokenizer=runner.tokenizer,
        )
        chosen = places[:1] if self.tokens == "first" else places
        return BoundLabels(
            one, runner, tuple((i, label, 1 / len(chosen)) for i in chosen), text_of(one, places, runner.tokenizer)
        )


@dataclass(frozen=True, eq=False)
class BoundLabels(Bound):
    """Labels of tokens, each with a weight.

    Attributes:
        parts: (token, label, weight) with weights that sum to 1; a label of None is the most probable one.
        text: the text of these tokens.
        label_text: the label of the whole span; "" for the label of its first token.
    """

    parts: tuple[tuple[int, int | None, float], ...]
    text: str
    label_text: str = ""

    @property
    def anchors(self) -> tuple[int, ...]:
        """The tokens whose labels are read."""
        return tuple(sorted({part[0] for part in self.parts}))

    @property
    def call(self) -> str:
        """See `BoundTarget.call`."""
        first, label, _ = self.parts[0]
        if len(self.parts) == 1:
            return call_text("token", position=first, label=label)
        return call_text("entity", self.parts, self.text, self.label_text or None)

    def settle(self, row: OutputRow) -> BoundLabels:
        """Decide for the most probable label, of all tokens together."""
        if all(label is not None for _, label, _ in self.parts):
            return self
        logits = row.token_logits("token").detach().double()
        probabilities = sum(weight * logits[row.place(i)].softmax(0) for i, _, weight in self.parts)
        assert isinstance(probabilities, Tensor)
        best = int(probabilities.argmax())
        return replace(self, parts=tuple((i, best if label is None else label, w) for i, label, w in self.parts))

    def read(self, row: OutputRow) -> TargetReading:
        """See `BoundTarget.read`."""
        logits, config = _label_logits(row, self.runner), self.runner.config
        values, probability, predictions = [], 0.0, []
        for token, label, weight in self.parts:
            assert label is not None
            value, one_probability, predicted = contrast(logits[row.place(token)], label)
            values.append(weight * value)
            probability += weight * one_probability
            predictions.append(predicted)
        first = self.parts[0][1]
        assert first is not None
        name = f"{self.label_text or label_name(first, config)} of {self.text!r}"
        explained = ExplainedTarget(first, name, probability)
        same = all(predicted == label for predicted, (_, label, _) in zip(predictions, self.parts))
        return TargetReading(torch.stack(values).sum(), explained, first if same else _number(predictions))


@dataclass(frozen=True)
class Entity:
    """Several tokens, each with a label and a weight: an entity as a pipeline groups it.

    Args:
        parts: (token, label number, weight) with weights that sum to 1.
        text: the text of these tokens.
        label: the entity's label.
    """

    parts: tuple[Part, ...]
    text: str = ""
    label: str = ""
    kind: ClassVar[str] = "entity"

    def __post_init__(self) -> None:
        good = isinstance(self.parts, tuple) and self.parts and all(len(part) == 3 for part in self.parts)
        if not good:
            raise InvalidInputError("target entity: parts must be (token, label number, weight) of one token or more.")

    def bind(self, one: EncodedInput, runner: EncoderRunner) -> BoundTarget:
        """See `TargetKind.bind`."""
        for token, label, _ in self.parts:
            locate("entity", one, position=token)
            label_number(label, runner.config)
        text = self.text or text_of(one, [part[0] for part in self.parts], runner.tokenizer)
        return BoundLabels(one, runner, self.parts, text, self.label)


@dataclass(frozen=True, eq=False)
class _BestEntity(Bound):
    """The most probable token of a label other than "O"."""

    label: int | None

    @property
    def call(self) -> str:
        return call_text("token", label=self.label)

    def settle(self, row: OutputRow) -> BoundLabels:  # type: ignore[override]
        place, label = entity_tokens(row, self.runner, self.label)[0]
        return BoundLabels(
            self.one, self.runner, ((place, label, 1.0),), text_of(self.one, [place], self.runner.tokenizer)
        )

    def read(self, row: OutputRow) -> TargetReading:
        return self.settle(row).read(row)


def entity_tokens(row: OutputRow, runner: EncoderRunner, label: int | None = None) -> list[tuple[int, int]]:
    """(token, label) of each ordinary token with its most probable label other than "O", the most probable first.

    Args:
        row: outputs of the whole input.
        runner: runs the model.
        label: only this label.

    Raises:
        InvalidInputError: no logits of labels for each token, or no ordinary token.
    """
    probabilities = _label_logits(row, runner).detach().double().softmax(1)
    allowed = [label] if label is not None else entity_labels(runner.config, probabilities.shape[1])
    places = real_ordinary(row.one)
    if not places:
        raise InvalidInputError("target token: the input has no tokens other than the special ones.")
    labels = {i: max(allowed, key=lambda k, i=i: float(probabilities[i, k])) for i in places}  # type: ignore[misc]
    return sorted(labels.items(), key=lambda found: (-float(probabilities[found]), found[0]))


def predicted_entities(row: OutputRow, runner: EncoderRunner) -> list[BoundLabels]:
    """Every ordinary token whose most probable label is another than "O", with this label."""
    best = _label_logits(row, runner).detach().argmax(1).tolist()
    entities = set(entity_labels(runner.config, len(label_names(runner.config)) or max(best) + 1))
    return [
        BoundLabels(row.one, runner, ((i, best[i], 1.0),), text_of(row.one, [i], runner.tokenizer))
        for i in real_ordinary(row.one)
        if best[i] in entities
    ]


def entity_labels(config: object, count: int) -> list[int]:
    """The labels of entities: all but "O"."""
    names = label_names(config)
    return [number for number in range(count) if names.get(number) != OUTSIDE] or list(range(count))


def _label_logits(row: OutputRow, runner: EncoderRunner) -> Tensor:
    logits, names = row.token_logits("token"), label_names(runner.config)
    if names and logits.shape[1] != len(names):
        raise InvalidInputError(
            f"target token: {runner.class_name} gives {logits.shape[1]} logits for each token and names {len(names)} "
            "labels, so it is not a token classifier. For a language model use mask() or next_token()."
        )
    if logits.shape[1] < 2:
        raise InvalidInputError("target token: there is a single label, so its probability is always 1.")
    return logits


def _number(predictions: Sequence[int]) -> int:
    """One number for the predicted labels of several tokens; never that of a label."""
    number = 0
    for label in predictions:
        number = 10_007 * number + label
    return -1 - number
