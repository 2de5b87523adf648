"""Checks one architecture of the zoo from end to end: capture against the model itself, relevance against its sum.

`check(job)` never raises for a model that is merely refused: the verdict says what happened. A verdict that starts
with "wrong" or "crashed" is a defect of this library.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi import explain
from hf_attn_mi.capture import AttentionCall, Capture, capture_attention
from hf_attn_mi.errors import HfAttnMiError, UnsupportedModelError

from .building import Built, CannotBuild, build
from .catalog import Job

RECOMPUTE_TOLERANCE = 1e-5  # attention() @ values against output, relative to the largest entry of the output
HEAD_SUM_TOLERANCE = 1e-5  # sum of the heads through W_O against the projection's output, relative likewise
REPLACE_TOLERANCE = 1e-4  # the model's own rows put back: how far the outputs move, relative to the largest entry
SMALLEST_FLIP = 1e-4  # reversed rows have to move the outputs at least this far
MODEL_ATTENTION_TOLERANCE = 2e-5  # attention() against output_attentions, absolute (rows sum to one)
STATE_FIELDS = ("hidden_states", "encoder_hidden_states", "decoder_hidden_states")


@dataclass(frozen=True)
class Check:
    """The results for one architecture; numbers are None where they were not reached.

    The verdict is "exact", "exact, no linear W_O", "refused: ...", "no attention", "not built: ...", or, for a
    defect, "wrong: ..." or "crashed: ...".
    """

    model_type: str
    auto: str
    kind: str
    verdict: str = ""
    calls: int = 0
    layers: tuple[int, ...] = ()  # layer index of each call
    modules: int = 0  # modules that computed attention ...
    projections: int = 0  # ... and those whose heads were followed to a linear W_O
    ended_by: tuple[str, ...] = ()  # what stands between the heads and W_O elsewhere
    outputs_equal: bool | None = None  # bit for bit, every tensor of the output
    recompute_error: float | None = None
    head_sum_error: float | None = None
    replace_error: float | None = None
    flip_change: float | None = None
    states: str = ""  # "equal", "not offered", or how they differ
    model_attention: tuple[int, int] = (0, 0)  # (equal, comparable) tensors of output_attentions under eager
    completeness_gap: float | None = None
    linear_gap: float | None = None  # the same of method "attnlrp"
    batch_difference: float | None = None  # scores in a batch of two against each input alone, relative
    relevance_note: str = ""  # why there is no gap
    notes: str = ""


@dataclass
class _CallSummary:
    """A consumer of attention calls that keeps numbers only."""

    layers: list[int] = field(default_factory=list)
    error: float = 0.0

    def __call__(self, call: AttentionCall) -> None:
        self.layers.append(call.layer)
        reached = call.allowed().any(
            -1, keepdim=True
        )  # a row without an allowed key is zero in a record, uniform in a model
        error = (call.attention() @ call.values_per_head() - call.output) * reached
        self.error = max(self.error, _relative(error, call.output))


def check(job: Job) -> Check:
    """Run all checks of this file on one architecture."""
    result = Check(job.model_type, job.auto, job.kind)
    try:
        built = build(job)
    except CannotBuild as error:
        return dataclasses.replace(result, verdict=f"not built: {error}")
    result = dataclasses.replace(result, notes=built.notes)
    try:
        with torch.no_grad():
            values = _captured(built) | _replaced(built)
        values |= _explained(built, job) | {"model_attention": _model_attention(built)}
    except UnsupportedModelError as error:
        return dataclasses.replace(result, verdict=_refusal(built.model, error))
    except Exception as error:
        return dataclasses.replace(result, verdict=f"crashed: {type(error).__name__}: {error}")
    result = dataclasses.replace(result, **values)
    defects = defects_of(result)
    linear = "exact" if result.projections == result.modules else "exact, no linear W_O"
    return dataclasses.replace(result, verdict=f"wrong: {'; '.join(defects)}" if defects else linear)


def defects_of(result: Check) -> list[str]:
    """What is wrong with a capture that was not refused; empty if nothing is."""
    limits = {
        "recompute_error": RECOMPUTE_TOLERANCE,
        "head_sum_error": HEAD_SUM_TOLERANCE,
        "replace_error": REPLACE_TOLERANCE,
    }
    defects = [] if result.outputs_equal else ["outputs are not bit-equal"]
    for name, limit in limits.items():
        value = getattr(result, name)
        if value is not None and not value <= limit:
            defects.append(f"{name} {value:.1e}")
    if result.flip_change is not None and not result.flip_change >= SMALLEST_FLIP:
        defects.append(f"reversed rows move the outputs by {result.flip_change:.1e} only")
    if result.states not in ("equal", "not offered"):
        defects.append(f"hidden states: {result.states}")
    equal, comparable = result.model_attention
    if equal != comparable:
        defects.append(f"{comparable - equal} of {comparable} rows differ from output_attentions")
    return defects


def _run(built: Built, **options: Any) -> Any:
    torch.manual_seed(0)  # some types draw at random in every forward
    return built.model(**built.inputs, **options)


def _captured(built: Built) -> dict[str, Any]:
    before, summary = _run(built), _CallSummary()
    with capture_attention(built.model, summary, states=True) as capture:
        after = dict(_fields(_run(built)))  # may hold hidden states besides
    checks = capture.checks.values()
    return {
        "calls": len(summary.layers),
        "layers": tuple(summary.layers),
        "recompute_error": summary.error,
        "outputs_equal": all(_all_equal(_tensors(part), _tensors(after[name])) for name, part in _fields(before)),
        "modules": len(checks),
        "projections": sum(c.features is not None for c in checks),
        "ended_by": tuple(sorted({str(c.ended_by) for c in checks if c.features is None})),
        "head_sum_error": max((c.error for c in checks if c.error is not None), default=None),
        "states": _states(built, capture),
    }


def _replaced(built: Built) -> dict[str, float]:
    """How far the outputs move with the model's own rows put back, and with every row reversed."""
    before = _main(_run(built))

    def moved(rows: Callable[[AttentionCall], Tensor]) -> float:
        with capture_attention(built.model, lambda call: None, replace=rows):
            after = _main(_run(built))
        return max(_relative(a - b, b) for a, b in zip(after, before, strict=True))

    return {"replace_error": moved(lambda c: c.attention()), "flip_change": moved(lambda c: c.attention().flip(-1))}


def _states(built: Built, capture: Capture) -> str:
    """The streamed hidden states against every list that the model itself returns."""
    try:
        output = _run(built, output_hidden_states=True)
    except (TypeError, ValueError):
        return "not offered"
    returned = {name: getattr(output, name, None) for name in STATE_FIELDS}
    returned = {
        name: s for name, s in returned.items() if isinstance(s, (tuple, list)) and s and all(map(torch.is_tensor, s))
    }
    stacks: dict[str, list[Tensor]] = {}
    for record in capture.states:
        stacks.setdefault(record.stack, []).append(record.states)
    for name, states in returned.items():
        if not any(_all_equal(states, streamed) for streamed in stacks.values()):
            lengths = ", ".join(f"{stack or 'model'} {len(streamed)}" for stack, streamed in stacks.items())
            return f"{len(states)} {name} are not among those streamed ({lengths})"
    return "equal" if returned else "not offered"


@torch.no_grad()
def _model_attention(built: Built) -> tuple[int, int]:
    """(equal, comparable) tensors of `output_attentions` in one pass with eager attention.

    A tensor is not comparable if its rows are not distributions over keys: some types return logits, or a part of the
    rows. The attention implementation of the model is changed and not restored.
    """
    calls: list[tuple[Tensor, Tensor]] = []
    try:
        built.model.set_attn_implementation("eager")
        _run(built, output_attentions=True)
    except (TypeError, ValueError):  # no eager version, or no such argument
        return 0, 0
    with capture_attention(built.model, lambda call: calls.append((call.attention(), call.allowed()))):
        output = _run(built, output_attentions=True)
    returned = [t for name, value in _fields(output) if "attentions" in name for t in _tensors(value) if t.dim() == 4]
    equal = comparable = 0
    for rows in returned:
        alike = [(captured, allowed) for captured, allowed in calls if captured.shape == rows.shape]
        if alike and _relative(rows.sum(-1) - 1, rows.sum(-1)) < 1e-3:
            comparable += 1
            equal += any(_rows_equal(captured, allowed, rows) for captured, allowed in alike)
    return equal, comparable


def _rows_equal(captured: Tensor, allowed: Tensor, returned: Tensor) -> bool:
    """Whether rows with an allowed key are equal; some types return the mean over heads in place of every head."""
    reached = allowed.any(-1, keepdim=True)
    return any(
        bool((((rows - returned) * reached).abs() <= MODEL_ATTENTION_TOLERANCE).all())
        for rows in (captured, captured.mean(1, keepdim=True))
    )


def _explained(built: Built, job: Job) -> dict[str, Any]:
    """Completeness of the relevance scores, and whether an input scores the same alone."""
    classifier = job.auto in ("seqcls", "imgcls", "audcls")
    target = None if classifier else lambda output: _main(output)[0].flatten(1)[:, :5].sum(1)
    torch.manual_seed(0)
    try:
        both = explain(built.model, dict(built.inputs), target=target)
        gap = max(e.completeness_gap for e in both)
        alone = explain(built.model, dict(built.inputs), target=target, batch_size=1)
        linear = explain(built.model, dict(built.inputs), target=target, method="attnlrp")
    except HfAttnMiError as error:
        return {"relevance_note": str(error)}
    except Exception as error:
        return {"relevance_note": f"crashed: {type(error).__name__}: {error}"}
    difference = max(_relative(a.scores - b.scores, b.scores) for a, b in zip(both, alone, strict=True))
    linear_gap = max(e.completeness_gap for e in linear)
    return {"completeness_gap": gap, "linear_gap": linear_gap, "batch_difference": difference}


def _refusal(model: nn.Module, error: UnsupportedModelError) -> str:
    """ "no attention" for networks in which no class name says attention, else the reason of the refusal."""
    names = {type(module).__name__.lower() for module in model.modules()}
    if not any("attention" in name or "attn" in name for name in names):
        return "no attention"
    reason = str(error).partition("exactly: ")[2].partition(" Supported is")[0].partition(";")[0]
    return f"refused: {(reason or str(error)).rstrip('.')}"


def _relative(difference: Tensor, reference: Tensor) -> float:
    return float(difference.abs().max() / reference.abs().max().clamp_min(1e-9))


def _all_equal(first: Any, second: Any) -> bool:
    return len(first) == len(second) and all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(first, second))


def _fields(output: Any) -> list[tuple[str, Any]]:
    return list(output.items()) if hasattr(output, "items") else []


def _main(output: Any) -> list[Tensor]:
    """The logits, else the last hidden state, else everything."""
    fields = dict(_fields(output))
    for name in ("logits", "last_hidden_state"):
        if fields.get(name) is not None:
            return _tensors(fields[name])
    return _tensors(output)


def _tensors(output: Any) -> list[Tensor]:
    """Every floating tensor in an output, in order."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    parts = output.values() if hasattr(output, "values") else output if isinstance(output, (list, tuple)) else ()
    return [tensor for part in parts for tensor in _tensors(part)]
