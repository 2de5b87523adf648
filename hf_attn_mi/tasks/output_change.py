"""The output of a forward pass, and how far the output of another pass is from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target
from hf_attn_mi.models.weights import nonfinite_reason
from hf_attn_mi.results.certificate import OutputChange

_TOGETHER = (("logits",), ("start_logits", "end_logits"), ("last_hidden_state",))


@dataclass(frozen=True, eq=False)
class RunOutput:
    """The outputs of one forward pass on one input that are compared.

    Attributes:
        name: the names of the output's fields that were taken.
        output: their entries in float64, one after the other.
        parts: the fields themselves.
        precision: the precision in which the model computed them.
        target, target_name, probability, value: those of the explained class; None and "" without one.
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


def read_output(outputs: Any, target: Target, runner: EncoderRunner) -> RunOutput:
    """The outputs of one input that are compared: logits, start and end logits, the last hidden state, or the first.

    Args:
        outputs: the outputs that the model returned.
        target: the target of this one input; where it names no class, the predicted class where there is one.
        runner: runs the model.

    Raises:
        InvalidInputError: the output is not finite, or the target does not fit it.
    """
    name, parts = _parts(outputs)
    output = torch.cat([part.detach().double().flatten() for part in parts])
    if not bool(torch.isfinite(output).all()):
        raise InvalidInputError(f"model: the {name} are not finite. {nonfinite_reason(runner.model)}")
    plain = RunOutput(name, output, parts, parts[0].dtype)
    classless = not (name == "logits" and parts[0].dim() == 2)
    if not target.is_function and target.targets == (None,) and classless:
        return plain
    target = target if target.reads_rows else target.unsettled()
    reading = target.read(outputs)
    explained, value = reading.explained[0], float(reading.values[0])
    return RunOutput(
        name, output, parts, parts[0].dtype, explained.target, explained.name, explained.probability, value
    )


def output_change(original: RunOutput, new: RunOutput, runner: EncoderRunner) -> OutputChange:
    """The differences between the second run and the first."""
    largest = float((new.output - original.output).abs().max())
    return OutputChange(
        largest=largest,
        relative=largest / original.scale if original.scale > 0 else largest,
        probability=None
        if original.probability is None or new.probability is None
        else new.probability - original.probability,
        value=None if original.value is None or new.value is None else new.value - original.value,
        kept=_kept(original, new, runner),
    )


def _kept(original: RunOutput, new: RunOutput, runner: EncoderRunner) -> bool | None:
    """Whether every predicted class is the same: of the input, of each token, or both ends of a span."""
    kind = getattr(runner.config, "problem_type", None)
    if "logits" not in original.name or kind == "regression":
        return None
    if kind == "multi_label_classification":
        return all(bool(((a > 0) == (b > 0)).all()) for a, b in zip(original.parts, new.parts))
    if original.parts[0].shape[-1] == 1 and original.name == "logits":
        return None
    return all(bool((a.argmax(-1) == b.argmax(-1)).all()) for a, b in zip(original.parts, new.parts))


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
