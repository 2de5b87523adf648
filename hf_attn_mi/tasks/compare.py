"""`compare`: which explanation to trust on these inputs, and how sure is that?"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from hf_attn_mi._version import library_versions
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation import rank_matrix
from hf_attn_mi.methods.baseline_scores import gap_note
from hf_attn_mi.methods.captum import Options
from hf_attn_mi.models.encode import read_inputs
from hf_attn_mi.models.loading import model_and_tokenizer, name_of, own_tokenizer
from hf_attn_mi.models.removal_predictor import RemovalPredictor
from hf_attn_mi.models.targets import read_targets
from hf_attn_mi.results.comparison import Comparison, MethodCost
from hf_attn_mi.tasks.compare_arguments import check_options, mask_id_of, read_methods, read_scores, unknown_specials
from hf_attn_mi.tasks.compare_metrics import (
    NORMALIZED,
    PLAUSIBILITY,
    Values,
    faithfulness_values,
    fixed_tokens,
    ordinary_scores,
    plausibility_values,
    read_metrics,
    too_long_to_normalize,
)
from hf_attn_mi.tasks.explain import FOLLOWED
from hf_attn_mi.tasks.method_runs import MethodRun, score, settings_of
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
    batch_size: int = 32,
    truncation: bool = False,
    seed: int = 0,
) -> Comparison:
    """Compares methods by how well their token scores say what the model reads.

    Every method scores every input; the metrics take the highest scores out and ask the model again (ids, never
    decoded text; each set of tokens once for all methods). The first metric decides, so choose it beforehand. A method
    that fails is reported, and the others are kept. Formulas: docs/methods/evaluation.md, docs/methods/comparison.md.

    The default methods are what people choose between: the package's own (`relevance`, `attnlrp_iterative`), raw and
    `effective` attention, the two gradient methods most in use, leave-one-out (`feature_ablation`), and `random` as the
    floor that every method has to beat. For an input of n tokens, `integrated_gradients` costs 50 forward and backward
    passes and `feature_ablation` n + 1 forwards; `attnlrp_iterative` up to four of each, the others one of each or fewer.
    LIME and the Shapley methods take a thousand forwards and more: name them where you want them.

    Args:
        model: as for `explain`.
        inputs: a list of texts or pairs, or a BatchEncoding / dict with input_ids.
        methods: names of `METHODS`; () where only scores from outside are judged.
        rationales: what people marked, one for each input: 0 or 1 for each of its tokens (special ones too), character
            spans [(start, end), ...] (`rationale_spans` makes them of words; a third number 1 is the second text of a
            pair), or None. Adds the metrics of plausibility.
        scores: {name: one sequence of scores for each input}, from anywhere, judged beside the methods; special tokens
            have a score, too. None for an input without.
        tokenizer: as for `explain`.
        target: as for `explain`; by default the class that the model predicts for the whole input.
        metrics: names of `evaluation.METRICS`, the deciding one first; "all" for all but max_sensitivity, which runs
            each method eleven times more. AOPC is normalized on inputs of up to 40 tokens.
        removal: "delete", "mask" or "attention_mask"; see docs/methods/evaluation.md.
        by: "signed", or "absolute": the order of removal is that of magnitudes.
        options: {method: its options}, as for `explain`.
        batch_size: inputs, or versions of them, in one forward pass.
        truncation: cut texts that are longer than the model's maximum, with a warning that names the cut.
        seed: of random methods that `options` gives none, of the bootstrap and of infidelity.

    Returns:
        A `Comparison`; print it, or `to_markdown()`, `to_html()`, `save(path)`, `views.plot_comparison(it, path)`.

    Raises:
        InvalidInputError: an argument is wrong, with what is allowed; or no method could be run.

    Example:
        >>> found = compare(model, texts, metrics=["sufficiency", "comprehensiveness"])     # doctest: +SKIP
        >>> print(found.recommendation)                                                     # doctest: +SKIP
    """
    check_options(removal, by, batch_size, truncation, seed)
    names = read_methods(methods, scores)
    chosen = read_metrics(metrics, DEFAULT_METRICS, rationales is not None)
    inner, tokenizer = model_and_tokenizer(model, tokenizer)
    examples, tokenizer, _ = read_inputs(inputs, inner, tokenizer, truncation)
    if tokenizer is None and unknown_specials(examples):
        examples, tokenizer, _ = read_inputs(inputs, inner, own_tokenizer(inner), truncation)
    settings = settings_of(names, options, tokenizer, seed)
    truths = None if rationales is None else rationale_masks(rationales, examples)
    given = read_scores(scores, examples)
    wanted = read_targets(target, inner, len(examples))
    judge = RemovalPredictor(inner, examples, wanted, batch_size, removal, mask_id_of(removal, tokenizer))
    total = len(examples) * (len(names) + 1)
    with tqdm(total=total, desc="compare", unit="step", disable=total < 2 or not sys.stderr.isatty()) as bar:
        found = {}
        for name in names:
            bar.set_postfix_str(name)
            found[name] = score(
                name,
                inner,
                examples,
                judge.classes,
                wanted=wanted,
                options=settings[name],
                batch_size=batch_size,
                mixed=judge.mixed,
                advance=bar.update,
            )
        bar.set_postfix_str("metrics")
        failures = {name: one.failure for name, one in found.items() if one.failure is not None}
        kept = {name: one.scores for name, one in found.items() if one.done} | given
        if not kept:
            raise InvalidInputError(
                f"methods: none of them could be run. {'; '.join(map(': '.join, failures.items()))}"
            )
        values = faithfulness_values(judge, kept, chosen, by=by, seed=seed, advance=bar.update)
    notes = _own(values, chosen, judge, found, settings, seed)
    pooled = _plausible(values, chosen, judge, kept, truths, by)
    info = _provenance(inner, judge) | {
        "removal": removal,
        "by": by,
        "seed": seed,
        "batch_size": batch_size,
        "deciding": chosen[0],
        "options": {name: dict(own) for name, own in (options or {}).items()},
        "outside": list(given),
        "eraser": pooled,
        "warnings": [*judge.notes, *_notes(judge, found, chosen), *notes],
    }
    agreement = rank_matrix(ordinary_scores(kept, fixed_tokens(judge)), seed=seed)
    costs = {name: _cost(one) for name, one in found.items() if one.done}
    return Comparison.from_values(values, chosen, agreement, seed=seed, costs=costs, failures=failures, info=info)


def _own(
    values: Values,
    metrics: Sequence[str],
    judge: RemovalPredictor,
    found: Mapping[str, MethodRun],
    settings: Mapping[str, Options],
    seed: int,
) -> list[str]:
    """Put the metrics into `values` that are of a method and not of its scores; notes on them."""
    notes = []
    for name, row in values.items():
        if "completeness_gap" in metrics:
            row["completeness_gap"] = found[name].gaps if name in found else [None] * len(judge.examples)
        if "max_sensitivity" in metrics and name not in found:
            row["max_sensitivity"] = [None] * len(judge.examples)
        elif "max_sensitivity" in metrics:
            row["max_sensitivity"], told = sensitivities(
                name,
                judge.model,
                judge.examples,
                judge.classes,
                found[name].scores,
                wanted=judge.wanted,
                options=settings[name],
                batch_size=judge.batch_size,
                seed=seed,
            )
            notes += [f"{name}: {note}" for note in told]
    return notes


def _plausible(
    values: Values,
    metrics: Sequence[str],
    judge: RemovalPredictor,
    kept: Mapping[str, Sequence[Tensor | None]],
    truths: Sequence[Tensor | None] | None,
    by: str,
) -> dict[str, Any]:
    """Put the metrics of plausibility into `values`; ERASER's own averages of token and IoU F1."""
    pooled = {}
    if truths is not None and set(PLAUSIBILITY) & set(metrics):
        for name, column in kept.items():
            plausible = plausibility_values(column, truths, fixed_tokens(judge), by=by)
            values[name] |= plausible.values
            pooled[name] = plausible.pooled
    return pooled


def _cost(found: MethodRun) -> MethodCost:
    passes = found.passes
    return MethodCost(passes.seconds / found.done, passes.forwards / found.done, passes.backwards / found.done)


def _notes(judge: RemovalPredictor, found: Mapping[str, MethodRun], metrics: Sequence[str]) -> list[str]:
    """What the reader should know about the inputs and the methods."""
    notes, count = [], len(judge.examples)
    cut = sum(bool(example.warnings) for example in judge.examples)
    if cut:
        notes.append(f"{cut} of {count} inputs were cut to what the model takes.")
    if any(name in NORMALIZED for name in metrics) and (long := too_long_to_normalize(judge)):
        notes.append(f"{long} of {count} inputs are too long for the limits of AOPC and have no normalized one.")
    for name, one in found.items():
        notes += [f"{name}: {note}" for note in one.notes]
        gaps = [gap for gap in one.gaps if gap is not None]
        if gaps and not sum(gaps) / len(gaps) <= FOLLOWED:
            notes.append(f"{name}: {gap_note(name, sum(gaps) / len(gaps))}")
    return notes


def _provenance(model: nn.Module, judge: RemovalPredictor) -> dict[str, Any]:
    config = getattr(model, "config", None)
    lengths = [int(example.length or 0) for example in judge.examples]
    return {
        "model": name_of(model),
        "model_type": getattr(config, "model_type", type(model).__name__),
        "dtype": str(next((p.dtype for p in model.parameters()), torch.float32)).removeprefix("torch."),
        "device": str(next((p.device for p in model.parameters()), torch.device("cpu"))),
        "tokens": sum(lengths) / len(lengths),
        "sequences": judge.sequences,
        "versions": library_versions(),
    }
