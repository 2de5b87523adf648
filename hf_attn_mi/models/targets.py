"""What is explained for each input: a class by number or name, the predicted one, or a function of the outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.output_heads import (
    TARGET_FUNCTION,
    ExplainedTarget,
    Function,
    HeadReading,
    OutputHead,
    find_logits,
    find_output_head,
    label_names,
)
from hf_attn_mi.models.weights import nonfinite_reason

TargetFunction = Callable[[Any], Tensor]


class Target:
    """What is explained for each of some inputs.

    Calling it with the outputs of a forward pass gives the explained values. The first call settles what is
    explained: a target of None becomes the class that the model predicts.

    Args:
        targets: for each input the number of its class, or None for the predicted one.
        model: the unwrapped model; its configuration names the classes.
        head: reads the outputs; None for the registered output head that accepts them.

    Attributes:
        explained: what is explained for each input; None before the first call.
    """

    def __init__(self, targets: Sequence[int | None], model: nn.Module, *, head: OutputHead | None = None) -> None:
        self.targets, self.model, self.head = tuple(targets), model, head
        self.explained: tuple[ExplainedTarget, ...] | None = None

    def __len__(self) -> int:
        """Number of inputs."""
        return len(self.targets)

    @property
    def is_function(self) -> bool:
        """Whether a function of the caller is explained in place of a class."""
        return isinstance(self.head, Function)

    def __call__(self, outputs: object) -> Tensor:
        """(batch,) float64 explained values, connected to the outputs by gradients.

        Raises:
            InvalidInputError: outputs that no output head reads, targets they do not have, or values not finite.
        """
        return self.read(outputs).values

    def read(self, outputs: object) -> HeadReading:
        """The values with their names, probabilities and the model's predictions; see `__call__`."""
        config = getattr(self.model, "config", None)
        head = find_output_head(outputs, config) if self.head is None else self.head
        logits = find_logits(outputs, config)
        if self.head is None and (head is None or (logits is not None and logits.shape[0] != len(self))):
            raise self._unreadable(outputs)
        assert head is not None
        if self.head is None and logits is not None and not bool(torch.isfinite(logits.detach()).all()):
            raise InvalidInputError(f"model: the logits are not finite. {nonfinite_reason(self.model)}")
        reading = head.read(outputs, self.targets, config)
        if not bool(torch.isfinite(reading.values.detach()).all()):
            raise InvalidInputError(f"model: the explained value is not finite. {nonfinite_reason(self.model)}")
        if self.explained is None:
            self.explained = reading.explained
        return reading

    def select(self, inputs: Sequence[int]) -> Target:
        """The target of these inputs, by their positions; positions may repeat. Settled classes stay settled."""
        if self.explained is None:
            return Target([self.targets[i] for i in inputs], self.model, head=self.head)
        selected = Target([self.explained[i].target for i in inputs], self.model, head=self.head)
        selected.explained = tuple(self.explained[i] for i in inputs)
        return selected

    def settled(self) -> Target:
        """The same target with the classes that were explained, so that further passes follow the same classes."""
        return self.select(range(len(self)))

    def _unreadable(self, outputs: object) -> InvalidInputError:
        logits = getattr(outputs, "logits", outputs if isinstance(outputs, Tensor) else None)
        if logits is None and isinstance(outputs, tuple | list) and outputs:
            logits = outputs[0]
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else "none"
        return InvalidInputError(
            f"target: {type(self.model).__name__} has no class logits of shape (batch, classes) (logits: {shape}). "
            f"Load it with a classification head (AutoModelForSequenceClassification), or {TARGET_FUNCTION}."
        )


def read_target(target: Any, model: nn.Module, count: int, head: OutputHead | None = None) -> Target:
    """The `Target` of `count` inputs, from what a caller passes as `target=`.

    Args:
        target: None (the predicted class), a class number, a label name, one of these for each input, or a function
            from the model's outputs to (batch,) values.
        model: the unwrapped model.
        count: number of inputs.
        head: reads classes off the outputs; None for the registered output heads.

    Raises:
        InvalidInputError: unknown label, number out of range, or not one target for each input.
    """
    if callable(target):
        return Target([None] * count, model, head=Function(target))
    if hasattr(target, "tolist"):  # a tensor, an array, or a number of one of them
        target = target.tolist()
    if isinstance(target, Sequence) and not isinstance(target, str):
        if len(target) != count:
            raise InvalidInputError(
                f"target has {len(target)} entries for {count} inputs; pass one for each, or one for all."
            )
        return Target([_class_number(item, model) for item in target], model, head=head)
    return Target([_class_number(target, model)] * count, model, head=head)


def _class_number(target: Any, model: nn.Module) -> int | None:
    names = label_names(getattr(model, "config", None))
    if target is None:
        return None
    if isinstance(target, str):
        exact = [number for number, name in names.items() if name == target]
        loose = [number for number, name in names.items() if name.lower() == target.lower()]
        matches = exact or loose
        if len(matches) != 1:
            fault = "names more than one label" if matches else "is not a label"
            raise InvalidInputError(
                f"target {target!r} {fault} of this model; its labels are {list(names.values())}. Pass one of these as "
                "it is written, or the number of the class."
            )
        return matches[0]
    if isinstance(target, bool) or not isinstance(target, int):
        raise InvalidInputError(
            "target must be None (the predicted class), a class number, a label name, a list of these or a function; "
            f"not {type(target).__name__}: {target!r}."
        )
    if names and not 0 <= target < len(names):
        raise InvalidInputError(
            f"target {target} is out of range: this model has classes 0 to {len(names) - 1} {list(names.values())}."
        )
    return target
