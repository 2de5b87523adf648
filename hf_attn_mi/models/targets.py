"""What is explained: a class, by number or name, or any function of the outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.weights import unsound_weight

CALLABLE = "pass target=function, a function from the model's outputs to one number per input, shape (batch,)"


@dataclass(frozen=True)
class ExplainedTarget:
    """What was explained for one input."""

    target: int | None
    name: str
    probability: float | None


def read_targets(target: Any, model: nn.Module, count: int) -> list[int | None] | Callable[[Any], Tensor]:
    """One class number (None = the predicted class) for each input, or the caller's function.

    Raises:
        InvalidInputError: unknown label, number out of range, or not one target for each input.
    """
    if callable(target):
        return target  # type: ignore[no-any-return]
    if hasattr(target, "tolist"):  # a tensor, an array or a number of one
        target = target.tolist()
    if isinstance(target, Sequence) and not isinstance(target, str):
        if len(target) != count:
            raise InvalidInputError(
                f"target has {len(target)} entries for {count} inputs; pass one for each, or one for all."
            )
        return [_number(item, model) for item in target]
    return [_number(target, model)] * count


def _number(target: Any, model: nn.Module) -> int | None:
    config = getattr(model, "config", None)
    names = {int(k): str(v) for k, v in (getattr(config, "id2label", None) or {}).items()}
    if target is None:
        return None
    if isinstance(target, str):
        exact = [k for k, v in names.items() if v == target]
        loose = [k for k, v in names.items() if v.lower() == target.lower()]
        found = exact or loose
        if len(found) != 1:
            fault = "names more than one label" if found else "is not a label"
            raise InvalidInputError(
                f"target {target!r} {fault} of this model; its labels are {list(names.values())}. Pass one of these as "
                "it is written, or the number of the class."
            )
        return found[0]
    if isinstance(target, bool) or not isinstance(target, int):
        raise InvalidInputError(
            f"target must be None (the predicted class), a class number, a label name, a list of these or a function; "
            f"not {type(target).__name__}: {target!r}."
        )
    if names and not 0 <= target < len(names):
        raise InvalidInputError(
            f"target {target} is out of range: this model has classes 0 to {len(names) - 1} {list(names.values())}."
        )
    return target


class Target:
    """The explained value of a batch, computed inside the forward pass; keeps what it found."""

    def __init__(self, wanted: list[int | None] | Callable[[Any], Tensor], model: nn.Module) -> None:
        self.wanted, self.model = wanted, model
        self.explained: list[ExplainedTarget] = []

    def __call__(self, outputs: Any) -> Tensor:
        """(batch,) class logit minus the mean of the others; the logit itself where the outputs are independent.

        Independent are the labels of a multi-label model and the values of a regression; a regression, and a single
        output that is no label, has no probability.
        """
        if callable(self.wanted):
            return self._by_function(self.wanted, outputs)
        logits = getattr(outputs, "logits", None)
        if logits is None and isinstance(outputs, (tuple, list)) and outputs:
            logits = outputs[0]
        batch = len(self.wanted)
        if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[0] != batch:
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else "none"
            raise InvalidInputError(
                f"target: {type(self.model).__name__} has no class logits of shape (batch, classes) (logits: {shape}). "
                f"Load it with a classification head (AutoModelForSequenceClassification), or {CALLABLE}."
            )
        if not bool(torch.isfinite(logits.detach()).all()):
            raise InvalidInputError(f"model: the logits are not finite. {not_finite(self.model)}")
        classes = logits.shape[1]
        for number in self.wanted:
            if number is not None and not 0 <= number < classes:
                raise InvalidInputError(f"target {number} is out of range: this model has classes 0 to {classes - 1}.")
        predicted = logits.detach().argmax(1)
        chosen = torch.tensor(
            [int(p) if w is None else w for w, p in zip(self.wanted, predicted)], device=logits.device
        )
        own = logits.gather(1, chosen[:, None])[:, 0].double()
        config = getattr(self.model, "config", None)
        names = getattr(config, "id2label", None) or {}
        kind = getattr(config, "problem_type", None)
        labels = kind == "multi_label_classification"
        regression = kind == "regression" or (classes == 1 and not labels)
        probabilities = logits.detach().double().sigmoid() if labels else logits.detach().double().softmax(1)
        self.explained = [
            ExplainedTarget(c, str(names.get(c, f"class {c}")), None if regression else float(probabilities[i, c]))
            for i, c in enumerate(chosen.tolist())
        ]
        if regression or labels:
            return own
        return own - (logits.double().sum(1) - own) / (classes - 1)

    def _by_function(self, function: Callable[[Any], Tensor], outputs: Any) -> Tensor:
        value = function(outputs)
        if not isinstance(value, Tensor) or value.dim() != 1:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InvalidInputError(f"target: the function must return a tensor of shape (batch,), not {shape}.")
        if not bool(torch.isfinite(value.detach()).all()):
            raise InvalidInputError(f"model: the explained value is not finite. {not_finite(self.model)}")
        name = getattr(function, "__name__", type(function).__name__)
        self.explained = [ExplainedTarget(None, "function" if name == "<lambda>" else name, None)] * value.shape[0]
        return value.double()


def not_finite(model: nn.Module) -> str:
    """A sentence that says which weights hold NaN or inf, if any do."""
    name = unsound_weight(model)
    if name is not None:
        return f"Weight {name} holds NaN or infinite entries; load sound weights."
    return "The weights are finite, so the forward pass overflows: try float32 in place of half precision."
