"""`compare`: which explanation to trust on these inputs, and how sure is that?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hf_attn_mi.errors import Interrupted, InvalidInputError
from hf_attn_mi.evaluation import rank_matrix
from hf_attn_mi.evaluation.ranking import ORDERS
from hf_attn_mi.methods import find_method
from hf_attn_mi.models.dual_encoders import tower_of
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.removal import WAYS
from hf_attn_mi.models.removal_predictor import RemovalPredictor
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target, read_target
from hf_attn_mi.results.comparison import Comparison, MethodCost
from hf_attn_mi.results.results import Results
from hf_attn_mi.tasks.arguments import check_choice, check_flag, check_seed, check_whole_number, progress_bar
from hf_attn_mi.tasks.compare_arguments import mask_id_of, read_methods, read_scores
from hf_attn_mi.tasks.compare_metrics import (
    NORMALIZED,
    PLAUSIBILITY,
    ComparedInputs,
    Values,
    faithfulness_values,
    ordinary_scores,
    plausibility_values,
    read_metrics,
    refuse_mask_removal,
    too_long_to_normalize,
)
from hf_attn_mi.tasks.each_input import read_inputs
from hf_attn_mi.tasks.explain import LARGEST_GAP, gap_warning
from hf_attn_mi.tasks.method_runs import MethodRun, SharedPasses, read_all_options, run_method
from hf_attn_mi.tasks.rationales import rationale_masks
from hf_attn_mi.tasks.sensitivity import sensitivities
from hf_attn_mi.tasks.several_targets import PREDICTION, refuse_target_and_targets, targets_of_all_inputs

DEFAULT_METHODS = (
    "relevance",
    "attnlrp_iterative",
    "attention",
    "effective",
    "integrated_gradients",
    "input_x_gradient",
    "feature_ablation",
    "random",
)
DEFAULT_METRICS = ("comprehensiveness", "sufficiency")


def compare(
    model: Any,
    inputs: Any,
    *,
    methods: Sequence[str] = DEFAULT_METHODS,
    rationales: Any = None,
    scores: Mapping[str, Any] | None = None,
    tokenizer: Any = None,
    target: Any = None,
    targets: Any = None,
    metrics: Sequence[str] | str = DEFAULT_METRICS,
    removal: str = "delete",
    by: str = "signed",
    options: Mapping[str, Mapping[str, Any]] | None = None,
    batch_size: int = 16,
    truncation: bool = False,
    is_split_into_words: bool = False,
    seed: int = 0,
) -> Comparison | Results[Comparison]:
    """Compare methods by how well their token scores identify the tokens that the model uses.

    Every method scores every input; the metrics remove the highest-scored tokens and run the model again (ids, never
    decoded text; each set of tokens once for all methods). The first metric decides, so choose it beforehand. A method
    that fails is reported, and the others are kept. Formulas: docs/methods/evaluation.md, docs/methods/comparison.md.

    The default methods are those that people choose between: the package's own (`relevance`, `attnlrp_iterative`), raw
    and `effective` attention, the two gradient methods most in use, leave-one-out (`feature_ablation`), and `random` as
    the baseline that every method has to beat. For an input of n tokens, `integrated_gradients` costs 50 forward and
    backward passes and `feature_ablation` n + 1 forward passes; `attnlrp_iterative` up to four of each, the others at
    most one each. LIME and the Shapley methods take a thousand forward passes and more: they are run only if `methods`
    names them.

    Args:
        model: as in `explain`.
        inputs: a list of texts or pairs, or a BatchEncoding / dict with input_ids.
        methods: names of `list_methods()`; () if only the scores in `scores` are compared.
        rationales: what people marked, one for each input: 0 or 1 for each of its tokens (including special tokens),
            character
            spans [(start, end), ...] (`rationale_spans` makes them of words; a third number 1 is the second text of a
            pair), or None. Adds the metrics of plausibility.
        scores: {name: one sequence of scores for each input}: scores that were computed elsewhere and are compared with
            the methods; special tokens need a score, too. None for an input without scores.
        tokenizer: as for `explain`.
        target: as for `explain`; by default the class that the model predicts for the whole input.
        targets: several targets, instead of `target`: a list, each item for every input, or "all" for every label. Each
            has a comparison of its own, over all inputs, because intervals and tests take inputs as independent.
        metrics: names of `evaluation.METRICS`, the deciding one first; "all" for all but max_sensitivity, which runs
            each method eleven times more. AOPC is normalized on inputs of up to 40 tokens.
        removal: "delete", "mask" or "attention_mask"; see docs/methods/evaluation.md.
        by: "signed", or "absolute": the order of removal is that of magnitudes.
        options: {method: its options}, as for `explain`.
        batch_size: maximum number of inputs, or versions of them, in one forward pass.
        truncation: cut texts that are longer than the model's maximum, with a warning that names the cut.
        is_split_into_words: as for `explain`.
        seed: the random seed for random methods that `options` gives none, of the bootstrap and of infidelity.

    Returns:
        A `Comparison`; print it, or `to_markdown()`, `to_html()`, `save(path)`, `plot()`. With `targets`, `Results` of
        them in the order of the targets; `target_name` says which.

    Raises:
        InvalidInputError: an argument is wrong, with what is allowed; or no method could be run. With targets="all":
            the inputs have targets of their own (entities, choices), so that a comparison over all inputs has none.
        KeyboardInterrupt: Ctrl-C; its `results` compare the inputs that were measured, None if none was, and its
            `scores` are those of the methods that had scored every input. With `targets` they are a list, and the
            last of them is the target that was interrupted.

    Example:
        >>> found = compare(model, texts, metrics=["sufficiency", "comprehensiveness"])     # doctest: +SKIP
        >>> print(found.recommendation)                                                     # doctest: +SKIP
    """
    check_choice("removal", removal, WAYS)
    check_choice("by", by, ORDERS)
    check_whole_number("batch_size", batch_size)
    check_flag("truncation", truncation)
    check_flag("is_split_into_words", is_split_into_words)
    check_seed(seed)
    refuse_target_and_targets(target, targets)
    names = read_methods(methods, scores)
    chosen = read_metrics(metrics, DEFAULT_METRICS, rationales is not None)
    runner = EncoderRunner.of(model, tokenizer)
    runner = tower_of(runner, inputs, target, targets)
    encoded = read_inputs(
        runner,
        inputs,
        errors="raise",
        truncation=truncation,
        is_split_into_words=is_split_into_words,
        special_known=True,
    )
    settings = read_all_options(names, options, runner, seed)
    plan = _Plan(runner, names, chosen, settings, options or {}, rationales, scores, removal, by, batch_size, seed)
    if targets is None:
        bound, run = read_target(target, runner, encoded.inputs)
        return _comparison(plan, plan.settled(bound, run), asked=target)
    several = targets_of_all_inputs(targets, runner, encoded)
    return _comparisons(plan, several)


def _comparisons(plan: _Plan, several: Sequence[tuple[Any, Target]]) -> Results[Comparison]:
    """The comparison of each target.

    Raises:
        Interrupted: Ctrl-C, with the comparisons that were finished.
    """
    finished: list[Comparison] = []
    prepared = [plan.settled(target, list(target.inputs or ())) for _, target in several]
    shared = SharedPasses.of(plan.runner, plan.names, [one.predictor.target for one in prepared])
    for (asked, target), metric_inputs in zip(several, prepared, strict=True):
        try:
            finished.append(_comparison(plan, metric_inputs, shared, asked=asked))
        except KeyboardInterrupt as stop:
            last = getattr(stop, "results", None)
            finished += [] if last is None else [last]
            if not finished:
                raise
            places = getattr(stop, "places", []) or list(range(len(target)))
            raise Interrupted(Results(finished), places, getattr(stop, "scores", None)) from stop
    return Results(finished)


@dataclass(frozen=True)
class _Plan:
    """The arguments of `compare` that do not depend on the target; `settings` are the options with their defaults."""

    runner: EncoderRunner
    names: tuple[str, ...]
    metrics: Sequence[str]
    settings: Mapping[str, Mapping[str, Any]]
    options: Mapping[str, Mapping[str, Any]]
    rationales: Any
    scores: Mapping[str, Any] | None
    removal: str
    by: str
    batch_size: int
    seed: int

    def settled(self, target: Target, encoded: list[EncodedInput]) -> ComparedInputs:
        """The inputs with a target that the model's outputs for them have settled.

        Args:
            target: one entry for each input.
            encoded: the inputs that are run.
        """
        if self.rationales is not None:
            rationale_masks(self.rationales, encoded)  # wrong arguments are refused before anything runs
        read_scores(self.scores, encoded)
        refuse_mask_removal(self.runner, self.removal)
        predictor = RemovalPredictor(self.runner, encoded, target, self.batch_size)
        return ComparedInputs(predictor, self.removal, mask_id_of(self.removal, self.runner.tokenizer))


def _comparison(
    plan: _Plan, metric_inputs: ComparedInputs, shared: SharedPasses | None = None, *, asked: object
) -> Comparison:
    """The comparison of one target.

    Args:
        plan: the other arguments.
        metric_inputs: the inputs with their target.
        shared: what this target shares with others; None for one alone.
        asked: the target as the caller wrote it; None for the prediction.
    """
    chosen, seed, names, predictor = plan.metrics, plan.seed, plan.names, metric_inputs.predictor
    encoded = predictor.inputs
    truths = None if plan.rationales is None else rationale_masks(plan.rationales, encoded)
    given_scores = read_scores(plan.scores, encoded)
    shared = shared or SharedPasses(plan.runner, names, [predictor.target])
    with progress_bar(len(encoded) * (len(names) + 1), "compare", "step") as bar:
        runs = _run_methods(names, predictor, plan.settings, bar, shared)
        bar.set_postfix_str("metrics")
        failures = {name: run.failure for name, run in runs.items() if run.failure is not None}
        all_scores = {name: run.scores for name, run in runs.items() if run.scored} | given_scores
        if not all_scores:
            raise InvalidInputError(
                f"methods: none of them could be run. {'; '.join(map(': '.join, failures.items()))}"
            )
        measured = faithfulness_values(metric_inputs, all_scores, chosen, by=plan.by, seed=seed, advance=bar.update)
    values, stop = measured.values, measured.interrupt
    if stop is not None and not measured.count:
        raise Interrupted(None, [], all_scores) from stop
    notes, stop = _method_metrics(values, chosen, metric_inputs, runs, plan.settings, seed, stop)
    pooled = _plausibility(values, chosen, metric_inputs, all_scores, truths, plan.by)
    info = _provenance(predictor) | {
        "removal": plan.removal,
        "by": plan.by,
        "seed": seed,
        "batch_size": plan.batch_size,
        "deciding": chosen[0],
        "options": {name: dict(chosen_options) for name, chosen_options in plan.options.items()},
        "outside": list(given_scores),
        "eraser": pooled,
        "warnings": [*predictor.runner.notes, *predictor.notes, *_notes(metric_inputs, runs, chosen), *notes],
        **({} if asked is None else {"target": _target_name(predictor.target, asked)}),
    }
    info["warnings"] += [] if stop is None else [_interrupted(measured.count, len(encoded))]
    agreement = rank_matrix(ordinary_scores(all_scores, metric_inputs.fixed_tokens()), seed=seed)
    costs = {name: _cost(run) for name, run in runs.items() if run.scored}
    found = Comparison.from_values(values, chosen, agreement, seed=seed, costs=costs, failures=failures, info=info)
    if stop is not None:
        raise Interrupted(found, list(range(measured.count)), all_scores) from stop
    return found


def _run_methods(
    names: Sequence[str],
    predictor: RemovalPredictor,
    settings: Mapping[str, Mapping[str, Any]],
    bar: Any,
    shared: SharedPasses,
) -> dict[str, MethodRun]:
    """The scores of each method on all inputs.

    Raises:
        Interrupted: Ctrl-C, with the scores of the methods that were finished.
    """
    runs: dict[str, MethodRun] = {}
    try:
        for name in names:
            bar.set_postfix_str(name)
            runs[name] = run_method(
                find_method(name),
                predictor.runner,
                predictor.inputs,
                predictor.target,
                options=settings[name],
                batch_size=predictor.batch_size,
                mixed=predictor.mixed,
                advance=bar.update,
                passes=shared,
            )
    except KeyboardInterrupt as stop:
        finished = {name: run.scores for name, run in runs.items() if run.scored}
        if not finished:
            raise
        raise Interrupted(None, [], finished) from stop
    return runs


def _interrupted(measured: int, count: int) -> str:
    part = f"{measured} of {count} inputs were measured" if measured < count else "not every metric was computed"
    return f"Interrupted: {part}; what is missing counts as undefined."


def _target_name(target: Target, asked: object) -> str:
    """The name of what was explained where it is the same in all inputs, else the target as the caller wrote it."""
    if asked == PREDICTION:
        return PREDICTION
    names = {one.name for one in target.explained or ()}
    calls = {one.call or "" for one in target.bound or ()}
    if same := next((found for found in (names, calls) if len(found) == 1 and "" not in found), None):
        return same.pop()
    return asked if isinstance(asked, str) else "a target for each input" if isinstance(asked, list) else repr(asked)


def _method_metrics(
    values: Values,
    metrics: Sequence[str],
    metric_inputs: ComparedInputs,
    runs: Mapping[str, MethodRun],
    settings: Mapping[str, Mapping[str, Any]],
    seed: int,
    stop: KeyboardInterrupt | None,
) -> tuple[list[str], KeyboardInterrupt | None]:
    """Add to `values` the metrics that need the method itself and not only its scores.

    Returns:
        Notes on them, and Ctrl-C if it came, now or before (`stop`): then no method is run again.
    """
    predictor, notes = metric_inputs.predictor, list[str]()
    for name, row in values.items():
        if "completeness_gap" in metrics:
            row["completeness_gap"] = runs[name].gaps if name in runs else [None] * len(metric_inputs)
        if "max_sensitivity" not in metrics:
            continue
        row["max_sensitivity"] = [None] * len(metric_inputs)
        if name not in runs or stop is not None:
            continue
        try:
            row["max_sensitivity"], remarks = sensitivities(
                find_method(name),
                predictor.runner,
                predictor.inputs,
                predictor.target,
                runs[name].scores,
                options=settings[name],
                batch_size=predictor.batch_size,
                seed=seed,
            )
        except KeyboardInterrupt as error:
            stop = error
        else:
            notes += [f"{name}: {remark}" for remark in remarks]
    return notes, stop


def _plausibility(
    values: Values,
    metrics: Sequence[str],
    metric_inputs: ComparedInputs,
    scores: Mapping[str, Sequence[Tensor | None]],
    truths: Sequence[Tensor | None] | None,
    by: str,
) -> dict[str, Any]:
    """Put the metrics of plausibility into `values`; returns ERASER's own averages of token and IoU F1."""
    pooled = {}
    if truths is not None and set(PLAUSIBILITY) & set(metrics):
        for name, column in scores.items():
            plausible = plausibility_values(column, truths, metric_inputs.fixed_tokens(), by=by)
            values[name] |= plausible.values
            pooled[name] = plausible.pooled
    return pooled


def _cost(run: MethodRun) -> MethodCost:
    passes, count = run.passes, run.scored
    return MethodCost(passes.seconds / count, passes.forwards / count, passes.backwards / count)


def _notes(metric_inputs: ComparedInputs, runs: Mapping[str, MethodRun], metrics: Sequence[str]) -> list[str]:
    """Remarks about the inputs and the methods for the reader."""
    notes, count = [], len(metric_inputs)
    cut = sum(bool(one.warnings) for one in metric_inputs.predictor.inputs)
    if cut:
        notes.append(f"{cut} of {count} inputs were cut to what the model takes.")
    if any(name in NORMALIZED for name in metrics) and (long := too_long_to_normalize(metric_inputs)):
        notes.append(f"{long} of {count} inputs are too long for the limits of AOPC and have no normalized one.")
    for name, run in runs.items():
        notes += [f"{name}: {note}" for note in run.notes]
        gaps = [gap for gap in run.gaps if gap is not None]
        if gaps and not sum(gaps) / len(gaps) <= LARGEST_GAP:
            notes += [f"{name}: {note}" for note in gap_warning(find_method(name), sum(gaps) / len(gaps))]
    return notes


def _provenance(predictor: RemovalPredictor) -> dict[str, Any]:
    lengths = [one.token_count for one in predictor.inputs]
    return {
        **predictor.runner.provenance(),
        "device": str(predictor.runner.device),
        "tokens": sum(lengths) / len(lengths),
        "sequences": predictor.sequences,
    }
