"""The model's answers for one input under each restriction of a batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.output_heads import ClassLogits, ExplainedTarget, MultiLabel, find_logits, find_output_head
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target


@dataclass(frozen=True)
class Answer:
    """The model's answer under one restriction.

    Attributes:
        probability: the probability of the explained class.
        same: whether the prediction equals that of the whole input.
        odds: log-odds of the explained class; for other targets their explained value.
        margin: above zero where the prediction is that of the whole input: its logit minus the largest other one; plus
            or minus infinity where the prediction is not read off class logits.
    """

    probability: float
    same: bool
    odds: float
    margin: float


@dataclass(frozen=True, eq=False)
class PassOutput:
    """One pass: its answers, and (batch,) explained values, log-odds and margins connected to the graph."""

    answers: list[Answer]
    values: Tensor
    odds: Tensor
    margin: Tensor


def read_pass(
    outputs: Any, target: Target, runner: EncoderRunner, predicted: int | None
) -> tuple[PassOutput, ExplainedTarget, int]:
    """Read the outputs of a pass over copies of one input.

    Args:
        outputs: the outputs of the model.
        target: one entry for each copy.
        runner: runs the model.
        predicted: the prediction for the whole input; None if this is the pass that gives it.

    Returns:
        The answers, what is explained, and the prediction for the whole input.

    Raises:
        InvalidInputError: there is not a class with a probability.
    """
    reading = target.read(outputs)
    one = reading.explained[0]
    if one.probability is None or reading.predictions is None:
        raise InvalidInputError(
            f"target {one.name!r} of {runner.class_name} has no probability that a set of attention weights could keep "
            "(regression, similarity and margins have none). Explain a class, a token, a mask or an answer."
        )
    predicted = reading.predictions[0] if predicted is None else predicted
    same = [now == predicted for now in reading.predictions]
    head = None if target.reads_rows else target.head or find_output_head(outputs, runner.config)
    logits = find_logits(outputs, runner.config)
    odds = margin = reading.values
    margins = [math.inf if kept else -math.inf for kept in same]
    if isinstance(head, ClassLogits) and logits is not None and one.target is not None:
        odds, margin = _over_all(logits.double(), one.target), _over_others(logits.double(), predicted)
        margins = margin.detach().tolist()
    elif isinstance(head, MultiLabel):
        margin = odds if predicted else -odds
        margins = margin.detach().tolist()
    answers = [
        Answer(float(explained.probability or 0.0), kept, *numbers)
        for explained, kept, *numbers in zip(reading.explained, same, odds.detach().tolist(), margins)
    ]
    return PassOutput(answers, reading.values, odds, margin), one, predicted


def _over_all(logits: Tensor, place: int) -> Tensor:
    """The log-odds of this class: its logit minus log-sum-exp of the others."""
    return logits[:, place] - torch.cat([logits[:, :place], logits[:, place + 1 :]], 1).logsumexp(1)


def _over_others(logits: Tensor, place: int) -> Tensor:
    """The logit of this class minus the largest other one."""
    return logits[:, place] - torch.cat([logits[:, :place], logits[:, place + 1 :]], 1).amax(1)
