"""Targets of a classifier: `label`, `value` and `margin`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.labels import label_name, label_names, label_number
from hf_attn_mi.models.output_heads import ExplainedTarget, find_logits, find_output_head
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.target_kinds.base import (
    Bound,
    BoundTarget,
    OutputRow,
    TargetKind,
    TargetReading,
    call_text,
    check_count,
)


@dataclass(frozen=True)
class Label:
    """A class of the model.

    The explained value is that of the model's output head: the logit of the class minus the mean of the other logits,
    for independent labels the logit itself.

    Args:
        name: the name of the class as the model's configuration writes it, or its number.

    Example:
        >>> Label("positive").name
        'positive'
    """

    name: str | int
    kind: ClassVar[str] = "label"

    def bind(self, one: EncodedInput, runner: EncoderRunner) -> BoundTarget:
        """See `TargetKind.bind`."""
        refuse_regression("label", runner)
        return BoundClass(one, runner, label_number(self.name, runner.config))


@dataclass(frozen=True)
class Value:
    """An output of a regression model, or one of its outputs where it has several.

    The explained value is the output itself.

    Args:
        index: the number of the output; None for the only one.

    Raises:
        InvalidInputError: not a number. When it is explained: the model is a classifier, or has several outputs and
            none is named.
    """

    index: int | None = None
    kind: ClassVar[str] = "value"

    def __post_init__(self) -> None:
        check_count("value", "index", self.index, optional=True)

    def bind(self, one: EncodedInput, runner: EncoderRunner) -> BoundTarget:
        """See `TargetKind.bind`."""
        return _BoundValue(one, runner, self.index)


@dataclass(frozen=True)
class Margin:
    """The difference of two classes, or of two targets: the evidence for one rather than the other.

    For two classes the explained value is the difference of their logits, for two targets that of their values.

    Args:
        first: a class by name or number, or a target.
        second: the class or target that is subtracted.

    Example:
        >>> Margin("positive", "negative").second
        'negative'
    """

    first: str | int | TargetKind
    second: str | int | TargetKind
    kind: ClassVar[str] = "margin"

    def bind(self, one: EncodedInput, runner: EncoderRunner) -> BoundTarget:
        """See `TargetKind.bind`."""
        sides = (self.first, self.second)
        if any(isinstance(side, TargetKind) for side in sides):
            bound = [_as_kind(side).bind(one, runner) for side in sides]
            if bound[0].one is not one or bound[1].one is not one:
                raise InvalidInputError("target margin: the two targets need two different inputs; explain each alone.")
            return _MarginOfTargets(one, runner, bound[0], bound[1])
        refuse_regression("margin", runner)
        first, second = (label_number(side, runner.config) for side in sides if not isinstance(side, TargetKind))
        if first == second:
            raise InvalidInputError(f"target margin: both sides are class {first}; pass two different classes.")
        return _MarginOfClasses(one, runner, first, second)


def refuse_regression(kind: str, runner: EncoderRunner) -> None:
    """Refuse a target of classes for a model whose configuration says that it predicts values."""
    count, problem = len(label_names(runner.config)), getattr(runner.config, "problem_type", None)
    if problem != "regression" and (count != 1 or problem is not None or runner.output_head is not None):
        return
    way = "value()" if count == 1 else f"value(0) to value({count - 1})"
    if kind == "margin":
        way = "margin(value(0), value(1))" if count > 1 else way
    raise InvalidInputError(
        f"target {kind} is for classes; {runner.class_name} is a regression model (config.problem_type, or a single "
        f"output), whose outputs are values: use {way}."
    )


def _as_kind(side: str | int | TargetKind) -> TargetKind:
    return side if isinstance(side, TargetKind) else Label(side)


@dataclass(frozen=True, eq=False)
class BoundClass(Bound):
    """A class, read by the registered output head; None for the predicted one.

    Attributes:
        number: the number of the class.
    """

    number: int | None

    @property
    def call(self) -> str:
        """See `BoundTarget.call`."""
        return call_text("label", self.number)

    def settle(self, row: OutputRow) -> BoundClass:
        """Decide for the predicted class."""
        return self if self.number is not None else replace(self, number=self.read(row).explained.target)

    def read(self, row: OutputRow) -> TargetReading:
        """See `BoundTarget.read`."""
        config = self.runner.config
        head = self.runner.output_head or find_output_head(row.outputs, config)
        logits = find_logits(row.outputs, config)
        if head is None or logits is None:
            raise InvalidInputError(f"target label: {self.runner.class_name} has no class logits of one input.")
        reading = head.read(logits[row.index : row.index + 1], [self.number], config)
        prediction = None if reading.predictions is None else reading.predictions[0]
        return TargetReading(reading.values[0], reading.explained[0], prediction)


@dataclass(frozen=True, eq=False)
class _BoundValue(Bound):
    index: int | None

    @property
    def call(self) -> str:
        return call_text("value", self.index)

    def settle(self, row: OutputRow) -> _BoundValue:
        return replace(self, index=self._checked(find_logits(row.outputs, self.runner.config)))

    def read(self, row: OutputRow) -> TargetReading:
        logits = find_logits(row.outputs, self.runner.config)
        index = self._checked(logits)
        assert logits is not None
        name = label_name(index, self.runner.config)
        return TargetReading(logits[row.index, index].double(), ExplainedTarget(index, name, None))

    def _checked(self, logits: Tensor | None) -> int:
        """The number of the output among (batch, outputs) values."""
        name, config = self.runner.class_name, self.runner.config
        if logits is None:
            raise InvalidInputError(f"target value: {name} has no outputs of shape (batch, values).")
        width = logits.shape[1]
        if width > 1 and getattr(config, "problem_type", None) != "regression":
            names = list(label_names(config).values())
            raise InvalidInputError(
                f"target value is for regression models; {name} has {width} classes{f' {names}' if names else ''}. Use "
                "label(name or number) for a class, or leave target out for the predicted one. If its outputs are "
                "values, set model.config.problem_type = 'regression'."
            )
        if self.index is None and width > 1:
            raise InvalidInputError(
                f"target value: {name} has {width} outputs; name one: value(0) to value({width - 1})."
            )
        if (self.index or 0) >= width:
            has = "one: value()" if width == 1 else f"0 to {width - 1}"
            raise InvalidInputError(f"target value: there is no output {self.index}; the model has {has}.")
        return self.index or 0


@dataclass(frozen=True, eq=False)
class _MarginOfClasses(Bound):
    first: int
    second: int

    @property
    def call(self) -> str:
        return call_text("margin", self.first, self.second)

    def read(self, row: OutputRow) -> TargetReading:
        config = self.runner.config
        logits = find_logits(row.outputs, config)
        if logits is None or max(self.first, self.second) >= logits.shape[1]:
            raise InvalidInputError(f"target margin: {self.runner.class_name} has no logits of these two classes.")
        value = logits[row.index, self.first].double() - logits[row.index, self.second].double()
        name = f"{label_name(self.first, config)} rather than {label_name(self.second, config)}"
        return TargetReading(value, ExplainedTarget(None, name, None), int(value.detach() > 0))


@dataclass(frozen=True, eq=False)
class _MarginOfTargets(Bound):
    first: BoundTarget
    second: BoundTarget

    @property
    def anchors(self) -> tuple[int, ...]:
        return tuple(sorted({*self.first.anchors, *self.second.anchors}))

    @property
    def call(self) -> str | None:
        sides = (self.first.call, self.second.call)
        return None if None in sides else f"margin({sides[0]}, {sides[1]})"

    def settle(self, row: OutputRow) -> _MarginOfTargets:
        return replace(self, first=self.first.settle(row), second=self.second.settle(row))

    def read(self, row: OutputRow) -> TargetReading:
        first, second = self.first.read(row), self.second.read(row)
        name = f"{first.explained.name} rather than {second.explained.name}"
        value = first.value - second.value
        return TargetReading(value, ExplainedTarget(None, name, None), int(value.detach() > 0))
