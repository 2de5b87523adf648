"""The output of a run, and how far the output of another run is from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.targets import Target, not_finite
from hf_attn_mi.results.certificate import OutputChange

_TOGETHER = (("logits",), ("start_logits", "end_logits"), ("last_hidden_state",))


@dataclass(frozen=True, eq=False)
class RunOutput:
    """What is compared of one run on one input.

    Attributes:
        name: of the output's fields that were taken.
        output: their entries in float64, one after the other.
        parts: the fields themselves.
        precision: in which the model computed them.
        target, target_name, probability, value: of the explained class; None and "" without one.
    """

    name: str
    output: Tensor
    parts: tuple[Tensor, ...]
    precision: torch.dtype
    target: int | None = None
    target_name: str = ""
    probability: float | None = None
    value: float | None = None

    @property
    def scale(self) -> float:
        """The largest absolute entry."""
        return float(self.output.abs().max())


def compared_output(outputs: Any, wanted: Any, model: nn.Module) -> RunOutput:
    """What to compare of the outputs of one input: logits, start and end logits, the last hidden state, or the first.

    Args:
        outputs: what the model returned.
        wanted: a class number, None for the predicted class where there is one, or a function of the outputs.
        model: the model.

    Raises:
        InvalidInputError: the output is not finite, or the target does not fit it.
    """
    name, parts = _parts(outputs)
    output = torch.cat([part.detach().double().flatten() for part in parts])
    if not bool(torch.isfinite(output).all()):
        raise InvalidInputError(f"model: the {name} are not finite. {not_finite(model)}")
    found = RunOutput(name, output, parts, parts[0].dtype)
    if not callable(wanted) and wanted is None and not (name == "logits" and parts[0].dim() == 2):
        return found
    aim = Target(wanted if callable(wanted) else [wanted], model)
    value = float(aim(outputs)[0])
    explained = aim.explained[0]
    return RunOutput(
        name, output, parts, parts[0].dtype, explained.target, explained.name, explained.probability, value
    )


def change(own: RunOutput, new: RunOutput, model: nn.Module) -> OutputChange:
    """How far the second run is from the first."""
    largest = float((new.output - own.output).abs().max())
    return OutputChange(
        largest=largest,
        relative=largest / own.scale if own.scale > 0 else largest,
        probability=None if own.probability is None or new.probability is None else new.probability - own.probability,
        value=None if own.value is None or new.value is None else new.value - own.value,
        kept=_kept(own, new, model),
    )


def _kept(own: RunOutput, new: RunOutput, model: nn.Module) -> bool | None:
    """Whether every predicted class is the same: of the input, of each token, or both ends of a span."""
    kind = getattr(getattr(model, "config", None), "problem_type", None)
    if "logits" not in own.name or kind == "regression":
        return None
    if kind == "multi_label_classification":
        return all(bool(((a > 0) == (b > 0)).all()) for a, b in zip(own.parts, new.parts))
    if own.parts[0].shape[-1] == 1 and own.name == "logits":
        return None
    return all(bool((a.argmax(-1) == b.argmax(-1)).all()) for a, b in zip(own.parts, new.parts))


def _parts(outputs: Any) -> tuple[str, tuple[Tensor, ...]]:
    for names in _TOGETHER:
        parts = tuple(getattr(outputs, name, None) for name in names)
        if all(isinstance(part, Tensor) for part in parts):
            return ", ".join(names), parts  # type: ignore[return-value]
    items: dict[str, Any] = {"output": outputs}
    if isinstance(outputs, Mapping):
        items |= outputs
    elif isinstance(outputs, tuple):
        items |= {f"output {number}": value for number, value in enumerate(outputs)}
    for name, value in items.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            return name, (value,)
    raise InvalidInputError(
        f"model: {type(outputs).__name__} holds no tensor of numbers, so there is nothing to compare."
    )
