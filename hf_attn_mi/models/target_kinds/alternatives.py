"""The targets `choice` and `entails`: one of several inputs that the model compares (multiple choice, zero-shot)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.labels import label_names
from hf_attn_mi.models.output_heads import ExplainedTarget, find_logits
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.target_kinds.base import Bound, BoundTarget, OutputRow, TargetReading, call_text, check_count

TEMPLATE = "This example is {}."


@dataclass(frozen=True)
class Choice:
    """One of the choices of a multiple-choice model; the tokens of this choice (with its prompt) get scores.

    The explained value is the logit of the choice, on which the tokens of the other choices have no influence; the
    probability is the softmax over all choices.

    Args:
        k: the number of the choice, from 0; None for the best.

    Raises:
        InvalidInputError: a value of the wrong type.

    Example:
        >>> Choice(1).k
        1
    """

    k: int | None = None
    kind: ClassVar[str] = "choice"

    def __post_init__(self) -> None:
        check_count("choice", "k", self.k, optional=True)

    def bind(self, one: EncodedInput, runner: EncoderRunner) -> BoundTarget:
        """See `TargetKind.bind`."""
        bound = self.every(one, runner)
        if self.k is None:
            return max(bound, key=lambda each: each.logits[each.index])
        if self.k >= len(bound):
            raise InvalidInputError(f"target choice: k must be 0 to {len(bound) - 1} for this input, not {self.k}.")
        return bound[self.k]

    def every(self, one: EncodedInput, runner: EncoderRunner) -> list[BoundAlternative]:
        """Every choice of the input, from one run over all of them."""
        if not one.alternatives:
            raise InvalidInputError(
                "target choice: the input has no choices. Pass (prompt, [choice, choice, ...]), or tensors of shape "
                "(batch, choices, tokens), to a model with a multiple-choice head."
            )
        logits = _logits(one.alternatives, runner)
        if logits.shape[1] != 1:
            raise InvalidInputError(f"target choice: {runner.class_name} gives {logits.shape[1]} logits for a choice.")
        column = tuple(logits[:, 0].tolist())
        return [
            BoundAlternative(each, runner, k, _choice_name(k, each), column, 0, None, call_text("choice", k))
            for k, each in enumerate(one.alternatives)
        ]


def _has_one_place(template: str) -> bool:
    """Whether a label can be put into the template, and is then part of it.

    Example:
        >>> _has_one_place("This is {}."), _has_one_place("This is {1}."), _has_one_place("This is {.")
        (True, False, False)
    """
    try:
        return template.format("a") != template.format("b")
    except (IndexError, KeyError, ValueError, AttributeError):
        return False


@dataclass(frozen=True)
class Entails:
    """A label of zero-shot classification: the text entails the hypothesis that names the label.

    Every label is put into the template, and the text and each hypothesis are run as a pair through a model of natural
    language inference. The explained value is the entailment logit of the pair of this label, the probability its
    softmax over all labels, as in the pipeline of transformers. With `multi_label`, or a single label, the value is the
    entailment logit minus the contradiction logit of the pair, and the probability the softmax over these two.

    Args:
        label: one of the labels; None for the best.
        among: all labels that are compared; () for `label` alone.
        template: the template of the hypothesis, with {} for the label.
        multi_label: the labels do not exclude each other.

    Raises:
        InvalidInputError: no label, a label that is not among the labels, or a template without {}.

    Example:
        >>> Entails("sports", among=("sports", "politics")).label
        'sports'
    """

    label: str | None = None
    among: Sequence[str] = ()
    template: str = TEMPLATE
    multi_label: bool = False
    kind: ClassVar[str] = "entails"

    def __post_init__(self) -> None:
        among = self.among
        if isinstance(among, str) or not all(isinstance(label, str) and label.strip() for label in among):
            raise InvalidInputError(f"target entails: among must be a list of labels, not {shown(among)}.")
        if self.label is not None and not isinstance(self.label, str):
            raise InvalidInputError(f"target entails: label must be a text, not {shown(self.label)}.")
        if not isinstance(self.template, str) or not _has_one_place(self.template):
            raise InvalidInputError(
                f"target entails: template must hold {{}} for the label, not {shown(self.template)}."
            )
        object.__setattr__(self, "among", tuple(among) or (() if self.label is None else (self.label,)))

    def bind(self, one: EncodedInput, runner: EncoderRunner) -> BoundTarget:
        """See `TargetKind.bind`."""
        if self.label is not None and self.label not in self.among:
            raise InvalidInputError(
                f"target {shown(self.label)} is none of the candidate labels {list(self.among)}; write one of them."
            )
        bound = self.every(one, runner)
        if self.label is not None:
            return bound[list(self.among).index(self.label)]
        return max(bound, key=lambda each: each.probability(torch.tensor(each.logits, dtype=torch.float64)))

    def _premise(self, one: EncodedInput) -> str | None:
        """The text; the first text of a pair with one of the hypotheses, as it stands in results."""
        pair = len(one.texts) == 2 and one.texts[1] in [self.template.format(label) for label in self.among]
        return one.texts[0] if len(one.texts) == 1 or pair else None

    def every(self, one: EncodedInput, runner: EncoderRunner) -> list[BoundAlternative]:
        """Every label, from one run over the pairs of all labels."""
        if not self.among:
            raise InvalidInputError(
                "target entails: no labels are known; pass candidate_labels=[...], or entails('label', among=[...])."
            )
        text = self._premise(one)
        if text is None:
            raise InvalidInputError("target entails: the input must be one text, which is paired with each hypothesis.")
        entailment, contradiction = _nli_labels(runner)
        pairs = [(text, self.template.format(label)) for label in self.among]
        encoded, _ = runner.encode(pairs)
        logits = _logits(encoded, runner)
        alone = self.multi_label or len(self.among) == 1
        bound = []
        for k, (label, each) in enumerate(zip(self.among, encoded)):
            call = call_text(
                "entails", label, among=self.among, template=self.template, multi_label=self.multi_label or None
            )
            column = tuple((logits[k, [entailment, contradiction]] if alone else logits[:, entailment]).tolist())
            other = contradiction if alone else None
            bound.append(BoundAlternative(each, runner, 0 if alone else k, label, column, entailment, other, call, k))
        return bound


@dataclass(frozen=True, eq=False)
class BoundAlternative(Bound):
    """One of several inputs whose logits are compared; the others are held as they are.

    Attributes:
        index: position of this input's logit in `logits`.
        name: the name of the alternative.
        logits: the logits of all alternatives, which share one softmax.
        column: the column of the model's logits that is read.
        other: a second column that is subtracted, the logit of the opposite; None for no such column.
        call: the target as a string.
        number: the number of the alternative in results; None for `index`.
    """

    index: int
    name: str
    logits: tuple[float, ...]
    column: int
    other: int | None
    call: str
    number: int | None = None

    def probability(self, logits: Tensor) -> float:
        """The softmax probability of this alternative."""
        return float(logits.softmax(0)[self.index])

    def answer(self) -> tuple[float, float]:
        """The probability and the explained value, as they were when the alternatives were compared."""
        logits = torch.tensor(self.logits, dtype=torch.float64)
        value = self.logits[self.index] - (0.0 if self.other is None else self.logits[1])
        return self.probability(logits), value

    def read(self, row: OutputRow) -> TargetReading:
        """See `BoundTarget.read`."""
        output_logits = find_logits(row.outputs, self.runner.config)
        assert output_logits is not None
        logits = output_logits[row.index].double()
        compared = torch.tensor(self.logits, dtype=torch.float64)
        compared[self.index] = logits.detach()[self.column]
        value = logits[self.column]
        if self.other is not None:
            compared[1 - self.index] = logits.detach()[self.other]
            value = value - logits[self.other]
        number = self.index if self.number is None else self.number
        explained = ExplainedTarget(number, self.name, self.probability(compared))
        return TargetReading(value, explained, int(compared.argmax()))


def _logits(inputs: Sequence[EncodedInput], runner: EncoderRunner) -> Tensor:
    """(inputs, classes) float64 logits, from one batch where padding changes nothing."""
    rows: dict[int, Tensor] = {}
    with runner.session(), torch.no_grad():
        for places in runner.batches(inputs, len(inputs)):
            logits = find_logits(runner.forward(runner.collate([inputs[i] for i in places])), runner.config)
            if logits is None or logits.shape[0] != len(places):
                raise InvalidInputError(f"target: {runner.class_name} has no class logits of shape (batch, classes).")
            rows.update(zip(places, logits.double().cpu()))
    return torch.stack([rows[i] for i in range(len(inputs))])


def _choice_name(k: int, one: EncodedInput) -> str:
    return f"choice {k}: {one.texts[-1]!r}" if one.texts else f"choice {k}"


def _nli_labels(runner: EncoderRunner) -> tuple[int, int]:
    """Numbers of the labels entailment and contradiction, as the pipeline of transformers finds them.

    Raises:
        InvalidInputError: no label begins with "entail".
    """
    names = label_names(runner.config)
    entailment = next((number for number, name in names.items() if name.lower().startswith("entail")), None)
    if entailment is None:
        raise InvalidInputError(
            f"target entails: {runner.class_name} has no label of entailment (labels: {list(names.values())}); a model "
            "of natural language inference is needed."
        )
    return entailment, len(names) - 1 if entailment == 0 else 0
