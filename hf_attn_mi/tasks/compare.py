"""`compare`: which explanation to trust on these inputs, and how sure is that?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation import rank_matrix
from hf_attn_mi.evaluation.ranking import ORDERS
from hf_attn_mi.methods import find_method
from hf_attn_mi.models.removal import WAYS
from hf_attn_mi.models.removal_predictor import RemovalPredictor
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import read_target
from hf_attn_mi.results.comparison import Comparison, MethodCost
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
from hf_attn_mi.tasks.explain import LARGEST_GAP, gap_warning
from hf_attn_mi.tasks.method_runs import MethodRun, read_all_options, run_method
from hf_attn_mi.tasks.rationales import rationale_masks
from hf_attn_mi.tasks.sensitivity import sensitivities

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
    metrics: Sequence[str] | str = DEFAULT_METRICS,
    removal: str = "delete",
    by: str = "signed",
    options: Mapping[str, Mapping[str, Any]] | None = None,
    batch_size: int = 16,
    truncation: bool = False,
    is_split_into_words: bool = False,
    seed: int = 0,
) -> Comparison:
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
        A `Comparison`; print it, or `to_markdown()`, `to_html()`, `save(path)`, `plot()`.

    Raises:
        InvalidInputError: an argument is wrong, with what is allowed; or no method could be run.

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
    names = read_methods(methods, scores)
    chosen = read_metrics(metrics, DEFAULT_METRICS, rationales is not None)
    runner = EncoderRunner.of(model, tokenizer)
    encoded, _ = runner.encode(
        inputs, truncation=truncation, special_known=True, is_split_into_words=is_split_into_words
    )
    explained, encoded = read_target(target, runner, encoded)
    settings = read_all_options(names, options, runner, seed)
    truths = None if rationales is None else rationale_masks(rationales, encoded)
    given_scores = read_scores(scores, encoded)
    refuse_mask_removal(runner, removal)
    predictor = RemovalPredictor(runner, encoded, explained, batch_size)
    metric_inputs = ComparedInputs(predictor, removal, mask_id_of(removal, runner.tokenizer))
    with progress_bar(len(encoded) * (len(names) + 1), "compare", "step") as bar:
        runs = {}
        for name in names:
            bar.set_postfix_str(name)
            runs[name] = run_method(
                find_method(name),
                runner,
                encoded,
                predictor.target,
                options=settings[name],
                batch_size=batch_size,
                mixed=predictor.mixed,
                advance=bar.update,
            )
        bar.set_postfix_str("metrics")
        failures = {name: run.failure for name, run in runs.items() if run.failure is not None}
        all_scores = {name: run.scores for name, run in runs.items() if run.scored} | given_scores
        if not all_scores:
            raise InvalidInputError(
                f"methods: none of them could be run. {'; '.join(map(': '.join, failures.items()))}"
            )
        values = faithfulness_values(metric_inputs, all_scores, chosen, by=by, seed=seed, advance=bar.update)
    notes = _method_metrics(values, chosen, metric_inputs, runs, settings, seed)
    pooled = _plausibility(values, chosen, metric_inputs, all_scores, truths, by)
    info = _provenance(predictor) | {
        "removal": removal,
        "by": by,
        "seed": seed,
        "batch_size": batch_size,
        "deciding": chosen[0],
        "options": {name: dict(chosen_options) for name, chosen_options in (options or {}).items()},
        "outside": list(given_scores),
        "eraser": pooled,
        "warnings": [*predictor.runner.notes, *predictor.notes, *_notes(metric_inputs, runs, chosen), *notes],
    }
    agreement = rank_matrix(ordinary_scores(all_scores, metric_inputs.fixed_tokens()), seed=seed)
    costs = {name: _cost(run) for name, run in runs.items() if run.scored}
    return Comparison.from_values(values, chosen, agreement, seed=seed, costs=costs, failures=failures, info=info)


def _method_metrics(
    values: Values,
    metrics: Sequence[str],
    metric_inputs: ComparedInputs,
    runs: Mapping[str, MethodRun],
    settings: Mapping[str, Mapping[str, Any]],
    seed: int,
) -> list[str]:
    """Add to `values` the metrics that need the method itself and not only its scores; return notes on them."""
    predictor, notes = metric_inputs.predictor, []
    for name, row in values.items():
        if "completeness_gap" in metrics:
            row["completeness_gap"] = runs[name].gaps if name in runs else [None] * len(metric_inputs)
        if "max_sensitivity" in metrics and name not in runs:
            row["max_sensitivity"] = [None] * len(metric_inputs)
        elif "max_sensitivity" in metrics:
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
            notes += [f"{name}: {remark}" for remark in remarks]
    return notes


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
