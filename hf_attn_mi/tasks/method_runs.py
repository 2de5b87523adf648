"""The scores of one method on all inputs of `compare`, and their cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from hf_attn_mi.errors import BackendUnavailableError, HfAttnMiError, InvalidInputError, shown
from hf_attn_mi.methods import TokenScorer, find_method, read_options
from hf_attn_mi.methods.scoring import check_method, score_batch
from hf_attn_mi.models.encoded_input import EncodedInput, batches_by_length
from hf_attn_mi.models.memory import out_of_memory
from hf_attn_mi.models.pass_counter import Passes, counted
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target

MEMORY_NOTE = "Memory ran out: inputs were scored in smaller batches."
MAX_FAILURES = 3  # inputs that a method may fail on, with none scored, before it is given up
FAILURES = (HfAttnMiError, RuntimeError, AssertionError, ImportError)  # those of this package, torch and Captum


@dataclass
class MethodRun:
    """The scores of one method.

    Attributes:
        scores: for each input (tokens,) float32, or None if the method failed.
        gaps: completeness gap of each input, where the method has one.
        passes: seconds and sequences of the inputs that were scored.
        reasons: why inputs failed, by their index.
        notes: remarks for the reader.
    """

    scores: list[Tensor | None]
    gaps: list[float | None]
    passes: Passes = field(default_factory=Passes)
    reasons: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def empty(cls, count: int) -> MethodRun:
        """A run without scores for `count` inputs."""
        return cls([None] * count, [None] * count)

    @property
    def scored(self) -> int:
        """The number of inputs with scores."""
        return sum(scores is not None for scores in self.scores)

    @property
    def failure(self) -> str | None:
        """Why not all inputs have scores, in one sentence; None if all have."""
        missing = len(self.scores) - self.scored
        if not missing:
            return None
        reason = next(iter(self.reasons.values()))
        return reason if not self.scored else f"{missing} of {len(self.scores)} inputs: {reason}"


def read_all_options(
    names: Sequence[str], options: Mapping[str, Any] | None, runner: EncoderRunner, seed: int
) -> dict[str, dict[str, Any]]:
    """The options of each method, checked; methods with a seed get `seed` where the caller gives none.

    Raises:
        InvalidInputError: options of a method that is not compared, or that it does not take.
    """
    by_method = {} if options is None else options
    if not isinstance(by_method, Mapping) or any(name not in names for name in by_method):
        unknown = [name for name in by_method if name not in names] if isinstance(by_method, Mapping) else by_method
        raise InvalidInputError(
            "options must be a dict from method to its options, such as {'integrated_gradients': {'steps': 20}}, "
            f"for methods among {', '.join(names)}; not {shown(unknown)}."
        )
    values = {}
    for name in names:
        scorer, chosen = find_method(name), by_method.get(name)
        values[name] = read_options(scorer, chosen)
        if "seed" in values[name] and "seed" not in (chosen or {}):
            values[name]["seed"] = seed
        if values[name].get("baseline") is not None:
            check_method(runner, scorer, values[name])  # a missing mask token is the caller's mistake
    return values


def run_method(
    scorer: TokenScorer,
    runner: EncoderRunner,
    inputs: Sequence[EncodedInput],
    target: Target,
    *,
    options: Mapping[str, Any],
    batch_size: int,
    mixed: bool,
    advance: Callable[[int], Any],
) -> MethodRun:
    """Score every input by this method; one that fails does not stop the others.

    The shortest input is scored once before the clock starts, so that what is compiled or loaded at first use is not
    counted. A batch that fails is tried input by input, or in halves where memory ran out.

    Args:
        scorer: the method.
        runner: runs the model.
        inputs: the inputs to score.
        target: the target, already settled, of all inputs.
        options: the options of the method.
        batch_size: maximum number of inputs in one pass.
        mixed: whether lengths may differ within a batch.
        advance: called with the number of inputs that are done.
    """
    run = MethodRun.empty(len(inputs))
    # A function sees one input at a time, without padding.
    size = 1 if target.alone or not runner.takes_batches(inputs[0]) else batch_size
    queue = runner.apart(inputs, batches_by_length(inputs, size, mixed=mixed))

    def score(places: list[int]) -> None:
        with counted(runner.model) as passes:
            check_method(runner, scorer, options)
            scored = score_batch(runner, [inputs[i] for i in places], scorer, target.select(places), options)
        run.passes = run.passes.plus(passes)
        for i, scores, gap in zip(places, scored.scores, scored.gaps):
            run.scores[i], run.gaps[i] = scores, gap
        run.notes += [note for note in scored.result.notes if note not in run.notes]

    if len(inputs) > 1 and _try(score, queue[0][:1]) is None:
        run = MethodRun.empty(len(inputs))
    while queue:
        places = queue.pop(0)
        failure = _try(score, places)
        if failure is not None and len(places) > 1 and not failure.final:
            size = (len(places) + 1) // 2 if failure.memory else 1
            run.notes += [MEMORY_NOTE] * (failure.memory and MEMORY_NOTE not in run.notes)
            queue[:0] = [places[start : start + size] for start in range(0, len(places), size)]
            continue
        advance(len(places))
        if failure is not None:
            run.reasons |= dict.fromkeys(places, failure.text)
            if not run.scored and (failure.final or len(run.reasons) >= MAX_FAILURES):
                advance(sum(map(len, queue)))
                break
    return run


@dataclass(frozen=True)
class _Failure:
    text: str
    final: bool = False  # the same for every input
    memory: bool = False


def _try(score: Callable[[list[int]], None], places: list[int]) -> _Failure | None:
    try:
        score(places)
    except ImportError as error:
        return _Failure(f"{error}; install it to use this method.", final=True)
    except HfAttnMiError as error:
        return _Failure(str(error), final=isinstance(error, BackendUnavailableError))
    except FAILURES as error:
        first = (str(error).strip() or "no message").splitlines()[0]
        return _Failure(f"{type(error).__name__}: {first}", memory=out_of_memory(error))
    return None
