"""The scores of one method on all inputs of `compare`, and their cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from hf_attn_mi.errors import BackendUnavailableError, HfAttnMiError, InvalidInputError, shown
from hf_attn_mi.methods import TokenScorer, find_method, read_options
from hf_attn_mi.methods.kept_passes import KeptPasses
from hf_attn_mi.methods.scoring import check_method, needs_target, score_targets
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
    passes: SharedPasses,
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
        passes: what methods and targets share.
    """
    known = passes.run_of(scorer, target)
    if known is not None:
        advance(len(inputs))
        return known
    # A function sees one input at a time, without padding.
    size = 1 if target.alone or not runner.takes_batches(inputs[0]) else batch_size
    batches = runner.apart(inputs, batches_by_length(inputs, size, mixed=mixed))
    if len(targets := passes.targets_of(scorer, target)) > 1:
        together = _Scoring(scorer, runner, inputs, targets, options, passes)
        if not together.run(batches, advance, give_up=True):
            passes.keep(scorer, together.targets, together.runs)
            return together.runs[0]
    alone = _Scoring(scorer, runner, inputs, [target], options, passes)
    alone.run(batches, advance)
    passes.keep(scorer, alone.targets, alone.runs)
    return alone.runs[0]


class SharedPasses:
    """What the methods and targets of `compare` share: passes over the unchanged inputs, and scores of other targets.

    Args:
        runner: runs the model.
        names: the methods that are compared.
        targets: settled targets of the same inputs, the first to be run first.
    """

    def __init__(self, runner: EncoderRunner, names: Sequence[str], targets: Sequence[Target]) -> None:
        scorers, self.targets = [find_method(name) for name in names], tuple(targets)
        self.kept, self.warm_up = KeptPasses(runner, scorers, timed=True), KeptPasses(runner, scorers)
        self._runs: dict[tuple[str, int | None], MethodRun] = {}

    @classmethod
    def of(cls, runner: EncoderRunner, names: Sequence[str], targets: Sequence[Target]) -> SharedPasses | None:
        """What these targets share; None where one of them has changed the inputs (what a decoder writes)."""
        first = targets[0].inputs or ()
        alike = all(one is other for target in targets for one, other in zip(target.inputs or (), first, strict=True))
        return cls(runner, names, targets) if alike else None

    def run_of(self, scorer: TokenScorer, target: Target) -> MethodRun | None:
        """The run of a method for this target, where another target's run has given it; only once."""
        if not needs_target(scorer):
            return self._runs.get((scorer.name, None))
        return self._runs.pop((scorer.name, id(target)), None)

    def targets_of(self, scorer: TokenScorer, target: Target) -> list[Target]:
        """This target, and those that the method scores from the same forward pass."""
        if not needs_target(scorer) or not hasattr(scorer, "score_targets"):
            return [target]
        return [target, *(one for one in self.targets if one is not target and one.alone == target.alone)]

    def keep(self, scorer: TokenScorer, targets: Sequence[Target], runs: Sequence[MethodRun]) -> None:
        """Keep the runs for the other targets."""
        if not needs_target(scorer):
            self._runs[scorer.name, None] = runs[0]
        self._runs |= {(scorer.name, id(one)): run for one, run in zip(targets[1:], runs[1:])}


class _Scoring:
    """One method on all inputs, for some targets; `runs` has the scores of each target."""

    def __init__(
        self,
        scorer: TokenScorer,
        runner: EncoderRunner,
        inputs: Sequence[EncodedInput],
        targets: Sequence[Target],
        options: Mapping[str, Any],
        passes: SharedPasses,
    ) -> None:
        self.scorer, self.runner, self.inputs, self.targets = scorer, runner, inputs, list(targets)
        self.options, self.kept, self.warm_up = options, passes.kept, passes.warm_up
        self.runs = [MethodRun.empty(len(inputs)) for _ in targets]

    def run(self, batches: Sequence[list[int]], advance: Callable[[int], Any], *, give_up: bool = False) -> bool:
        """Run the batches; with `give_up` the first failure ends it. Returns whether it was given up."""
        queue = list(batches)
        if len(self.inputs) > 1:
            _try(lambda places: self._score(places, self.warm_up), queue[0][:1])
            self.runs = [MethodRun.empty(len(self.inputs)) for _ in self.targets]
        finished: list[int] = []
        while queue:
            places = queue.pop(0)
            failure = _try(lambda places: self._score(places, self.kept), places)
            if failure is not None and give_up:
                advance(-sum(finished))
                return True
            if failure is not None and len(places) > 1 and not failure.final:
                size = (len(places) + 1) // 2 if failure.memory else 1
                for run in self.runs:
                    run.notes += [MEMORY_NOTE] * (failure.memory and MEMORY_NOTE not in run.notes)
                queue[:0] = [places[start : start + size] for start in range(0, len(places), size)]
                continue
            advance(len(places))
            finished.append(len(places))
            if failure is not None and self._has_failed(places, failure):
                advance(sum(map(len, queue)))
                break
        return False

    def _has_failed(self, places: list[int], failure: _Failure) -> bool:
        """Keep the reason; whether the method is given up for the other inputs, too."""
        for run in self.runs:
            run.reasons |= dict.fromkeys(places, failure.text)
        first = self.runs[0]
        return not first.scored and (failure.final or len(first.reasons) >= MAX_FAILURES)

    def _score(self, places: list[int], kept: KeptPasses) -> None:
        batch, targets = [self.inputs[i] for i in places], [one.select(places) for one in self.targets]
        reader = kept.reader(batch, self.scorer)
        known = reader.shared.begun
        with counted(self.runner.model) as passes:
            check_method(self.runner, self.scorer, self.options)
            results = score_targets(self.runner, batch, self.scorer, targets, self.options, reader=reader)
        own, shared = reader.cost(passes, ran=reader.shared.begun and not known)
        for run, scored in zip(self.runs, results, strict=True):
            # A pass that is shared counts for each method and target: it is what each of them takes.
            run.passes = run.passes.plus(own.divided(len(targets))).plus(shared)
            for i, scores, gap in zip(places, scored.scores, scored.gaps):
                run.scores[i], run.gaps[i] = scores, gap
            run.notes += [note for note in scored.result.notes if note not in run.notes]


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
