"""The outputs of a model that a report shows: every class, the explained value, and where it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.output_heads import find_logits, find_output_head
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.target_kinds.alternatives import Entails
from hf_attn_mi.models.targets import Target
from hf_attn_mi.results.explanation import Explanation
from hf_attn_mi.results.report_parts import ClassOutput
from hf_attn_mi.tasks.report_inputs import ReportRun, ReportTargets

MOST_CLASSES = 100  # whose probabilities are kept: the most probable ones


@dataclass(frozen=True)
class ReportOutput:
    """The model's outputs for one input: every class, the explained value, and the tokens where it is read."""

    classes: tuple[ClassOutput, ...]
    value: float
    anchors: tuple[int, ...]


def read_output(
    run: ReportRun, chosen: ReportTargets, one: EncodedInput, target: Target, explanation: Explanation
) -> ReportOutput:
    """No classes for a target function and for outputs without class logits."""
    runner = run.runner
    if run.stride is not None:  # the logits of all windows together
        windows = explanation.info["windows"]
        joined = {"logits": torch.tensor([list(windows["logits"])], dtype=torch.float64)}
        return ReportOutput(_classes(joined, target, runner), float(windows["value"]), ())
    outputs = None if run.kept_passes is None else run.kept_passes.outputs([one])
    if outputs is None:  # explained in a batch with others
        with runner.session(), torch.no_grad():
            outputs = runner.forward(runner.collate([one]))
    value = float(target.read(outputs).values[0])
    if target.is_function or target.bound is not None:
        labels = chosen.main.every(one, runner) if isinstance(chosen.main, Entails) else ()
        found = tuple(ClassOutput(k, each.name, *each.answer()) for k, each in enumerate(labels))
        return ReportOutput(found, value, () if target.is_function else target.anchors(0))
    return ReportOutput(_classes(outputs, target, runner), value, ())


def _classes(outputs: Any, target: Target, runner: EncoderRunner) -> tuple[ClassOutput, ...]:
    """The most probable classes of one input, by their numbers."""
    logits = find_logits(outputs, runner.config)
    head = find_output_head(outputs, runner.config) if target.head is None else target.head
    if logits is None or head is None:
        return ()
    found = []
    for number in sorted(logits[0].float().topk(min(MOST_CLASSES, logits.shape[1])).indices.tolist()):
        reading = head.read(outputs, [number], runner.config)
        explained = reading.explained[0]
        found.append(ClassOutput(number, explained.name, explained.probability, float(reading.values[0])))
    return tuple(found)
