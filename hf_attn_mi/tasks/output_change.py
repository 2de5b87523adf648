"""The output of a forward pass, and how far the output of another pass is from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.output_heads import find_logits, find_output_head, whole_predictions
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import NothingToExplainError, Target
from hf_attn_mi.models.weights import nonfinite_reason
from hf_attn_mi.results.certificate import OutputChange

_TOGETHER = (("logits",), ("start_logits", "end_logits"), ("last_hidden_state",))


@dataclass(frozen=True, eq=False)
class RunOutput:
    """The outputs of one forward pass on one input that are compared.

    Attributes:
        name: the names of the output's fields that were taken.
        output: their entries in float64, one after the other.
        precision: the precision in which the model computed them.
        predictions: what the model predicts, as numbers: those of the output head that reads the outputs; without
            one, the class of each token or both ends of a span. None if the outputs predict no class.
        target, target_name, probability, value: those of the explained class; None and "" without one.
    """

    name: str
    output: Tensor
    precision: torch.dtype
    predictions: tuple[int, ...] | None = None
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
    name, parts = _parts(outputs, runner.config)
    output = torch.cat([part.detach().double().flatten() for part in parts])
    if not bool(torch.isfinite(output).all()):
        raise InvalidInputError(f"model: the {name} are not finite. {nonfinite_reason(runner.model)}")
    head = runner.output_head or find_output_head(outputs, runner.config)
    if head is None:
        predictions = _of_positions(parts, name, runner)
    else:
        predictions = whole_predictions(head, outputs, runner.config)
    plain = RunOutput(name, output, parts[0].dtype, predictions)
    free = not target.is_function and target.targets == (None,)
    if free and head is None:
        return plain
    try:
        reading = (target if target.reads_rows else target.unsettled()).read(outputs)
    except NothingToExplainError:
        if free:
            return plain
        raise
    one = reading.explained[0]
    return replace(
        plain,
        target=one.target,
        target_name=one.name,
        probability=one.probability,
        value=float(reading.values[0]),
    )


def output_change(original: RunOutput, new: RunOutput) -> OutputChange:
    """The differences between the second run and the first."""
    largest = float((new.output - original.output).abs().max())
    return OutputChange(
        largest=largest,
        relative=largest / original.scale if original.scale > 0 else largest,
        probability=None
        if original.probability is None or new.probability is None
        else new.probability - original.probability,
        value=None if original.value is None or new.value is None else new.value - original.value,
        kept=None if original.predictions is None else original.predictions == new.predictions,
    )


def _of_positions(parts: tuple[Tensor, ...], name: str, runner: EncoderRunner) -> tuple[int, ...] | None:
    """The predictions of outputs that no output head reads: the class of each token, or both ends of a span."""
    kind = getattr(runner.config, "problem_type", None)
    if "logits" not in name or kind == "regression" or (parts[0].shape[-1] == 1 and name == "logits"):
        return None
    labels = [part > 0 if kind == "multi_label_classification" else part.argmax(-1) for part in parts]
    return tuple(int(number) for label in labels for number in label.flatten().tolist())


def _parts(outputs: Any, config: object) -> tuple[str, tuple[Tensor, ...]]:
    for names in _TOGETHER:
        parts = tuple(getattr(outputs, name, None) for name in names)
        if all(isinstance(part, Tensor) for part in parts):
            return ", ".join(names), parts  # type: ignore[return-value]
    logits = find_logits(outputs, config)
    if logits is not None:
        return "logits", (logits,)
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
