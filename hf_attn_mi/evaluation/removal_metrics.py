"""Faithfulness by removal of tokens: comprehensiveness, sufficiency, deletion, insertion, monotonicity and others.

Each function takes the `Probabilities` of one input and the scores of one method. The functions that end in `_sets`
return the sets of tokens whose removal a metric needs, so that several metrics can be predicted in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.evaluation.probabilities import Probabilities
from hf_attn_mi.evaluation.rank_correlation import rank_correlations
from hf_attn_mi.evaluation.ranking import ERASER_BINS, bin_counts
from hf_attn_mi.evaluation.statistics import none_for_nan

STEPS = 100  # steps of the deletion and insertion curves
SAMPLES = 64  # random sets for infidelity
Sets = list[frozenset[int]]  # token positions


@dataclass(frozen=True)
class RemovalCurve:
    """The fall of the probability for each bin of tokens.

    Attributes:
        mean: over the bins, the area over the perturbation curve; None if a bin is undefined.
        values: one for each bin; None if undefined.
        bins: shares of the tokens.
    """

    mean: float | None
    values: tuple[float | None, ...]
    bins: tuple[float, ...]


def comprehensiveness(
    probabilities: Probabilities, scores: Tensor, *, bins: Sequence[float] = ERASER_BINS, by: str = "signed"
) -> RemovalCurve:
    """Return how far the probability falls when the tokens of highest score are removed. Higher is better.

    comp(q) = p(x) - p(x without its top ceil(q n) tokens), in [-1, 1]; `mean` is the mean over the bins as in ERASER's
    code (DeYoung et al. 2020, arXiv 1911.03429, whose text has a further zero term at q = 0 and so numbers smaller by
    |B| / (|B| + 1)). For a single share pass bins=(0.2,).

    Args:
        probabilities: the probabilities of the input; methods that share the object share its predictions.
        scores: (length of the input,).
        bins: shares of the tokens; ERASER_BINS or DECILES.
        by: "signed" or "absolute"; see `ranking`.

    Returns:
        A `RemovalCurve`, None in it where the input has no token that may be removed, or would be empty.

    Example:
        >>> predict = lambda examples: torch.tensor([int(e["input_ids"].sum()) / 16 for e in examples])
        >>> probabilities = Probabilities(predict, {"input_ids": torch.tensor([1, 2, 3, 4])})
        >>> comprehensiveness(probabilities, torch.tensor([0.1, 0.2, 0.3, 0.4]), bins=(0.25, 0.5)).values
        (0.25, 0.4375)
    """
    return _removal_curve(probabilities, top_sets(probabilities, scores, bins, by), bins, keep=False)


def sufficiency(
    probabilities: Probabilities, scores: Tensor, *, bins: Sequence[float] = ERASER_BINS, by: str = "signed"
) -> RemovalCurve:
    """Return how far the probability falls when only the tokens of highest score are kept. Lower is better.

    suff(q) = p(x) - p(the top ceil(q n) tokens of x alone), in [-1, 1]; below zero where they are more convincing than
    the whole text. Arguments, mean and source: see `comprehensiveness`.

    Example:
        >>> predict = lambda examples: torch.tensor([int(e["input_ids"].sum()) / 16 for e in examples])
        >>> probabilities = Probabilities(predict, {"input_ids": torch.tensor([1, 2, 3, 4])})
        >>> sufficiency(probabilities, torch.tensor([0.1, 0.2, 0.3, 0.4]), bins=(0.25,)).mean
        0.375
    """
    return _removal_curve(probabilities, top_sets(probabilities, scores, bins, by), bins, keep=True)


def deletion_area(
    probabilities: Probabilities, scores: Tensor, *, by: str = "signed", steps: int = STEPS
) -> float | None:
    """Return the area under p as the tokens are removed, the highest score first. Lower is better.

    Trapezoids over the share of tokens removed, 0 to 1; in [0, 1] (Petsiuk et al. 2018, arXiv 1806.07421). The tokens
    of longer inputs are removed in `steps` groups of nearly equal size.

    Returns:
        None if no token may be removed, or where the input would be empty in the end.

    Example:
        >>> predict = lambda examples: torch.stack([e["input_ids"].sum() / 10 for e in examples])
        >>> special = torch.tensor([True, False, False])
        >>> probabilities = Probabilities(predict, {"input_ids": torch.tensor([0, 6, 4])}, special)
        >>> round(deletion_area(probabilities, torch.tensor([0.0, 2.0, 1.0])), 6)  # (1 + .4) / 2 / 2 + (.4 + 0) / 2 / 2
        0.45
    """
    return _area_under_curve(probabilities, curve_sets(probabilities, scores, by, steps))


def insertion_area(
    probabilities: Probabilities, scores: Tensor, *, by: str = "signed", steps: int = STEPS
) -> float | None:
    """Return the area under p as tokens are added to the emptied input, the highest score first. Higher is better.

    Definition, options and source: see `deletion_area`.

    Example:
        >>> predict = lambda examples: torch.stack([e["input_ids"].sum() / 10 for e in examples])
        >>> special = torch.tensor([True, False, False])
        >>> probabilities = Probabilities(predict, {"input_ids": torch.tensor([0, 6, 4])}, special)
        >>> area = insertion_area(probabilities, torch.tensor([0.0, 2.0, 1.0]))
        >>> round(area, 6)  # (0 + .6) / 2 / 2 + (.6 + 1) / 2 / 2
        0.55
    """
    sets = complements(probabilities, curve_sets(probabilities, scores, by, steps))
    return _area_under_curve(probabilities, sets)


def monotonicity(probabilities: Probabilities, scores: Tensor) -> float | None:
    """Return the share of removals after which p changes in the direction of the score. Higher is better, in [0, 1].

    Tokens are removed one at a time, the highest score first; where the token's score is positive p must not rise,
    where it is negative p must not fall; tokens of score zero do not count. For positive scores the yes-or-no metric
    of Arya et al. 2019 (arXiv 1909.03012; Luss et al. 2019) is yes exactly where this is 1. It needs one prediction a
    token; up to 100 tokens these are the predictions of `deletion_area`.

    Returns:
        None if all scores are zero, or the input would be empty in the end.

    Example:
        >>> predict = lambda examples: torch.stack([e["input_ids"].sum() / 10 for e in examples])
        >>> special = torch.tensor([True, False, False])
        >>> probabilities = Probabilities(predict, {"input_ids": torch.tensor([0, 6, 4])}, special)
        >>> monotonicity(probabilities, torch.tensor([0.0, 2.0, -1.0]))  # p falls twice; the second score is negative
        0.5
    """
    order = probabilities.ranked(scores)
    signs = probabilities.values(scores, order).sign()
    if not bool(signs.any()):
        return None
    changes = probabilities.removed(curve_sets(probabilities, scores, "signed", len(order))).diff()
    agrees = (changes * signs <= 0).double().where(~changes.isnan(), changes)
    return none_for_nan(agrees[signs != 0].mean()[None])[0]


def leave_one_out_correlation(probabilities: Probabilities, scores: Tensor, *, by: str = "signed") -> float | None:
    """Return Kendall's tau-b of the scores with the fall of p when each token alone is removed. Higher is better.

    tau-b(scores_i, p(x) - p(x without i)), in [-1, 1]; ties count as tau-b counts them (Jain and Wallace 2019,
    arXiv 1902.10186). It measures agreement with another method, leave-one-out, and not with a ground truth.

    Args:
        probabilities: the probabilities of the input.
        scores: (length of the input,).
        by: "absolute" compares the magnitudes of both.

    Returns:
        None for fewer than two tokens, or where all scores or all falls are equal.

    Example:
        >>> predict = lambda examples: torch.stack([e["input_ids"].sum() / 10 for e in examples])
        >>> probabilities = Probabilities(predict, {"input_ids": torch.tensor([1, 2, 3, 4])})
        >>> round(leave_one_out_correlation(probabilities, torch.tensor([0.1, 0.3, 0.2, 0.4])), 4)
        0.6667
    """
    values = probabilities.values(scores, by=by)
    falls = probabilities.full() - probabilities.removed(single_sets(probabilities))
    if bool(falls.isnan().any()):
        return None
    # Fewer than two tokens have no pairs, and their tau-b is NaN like that of constant vectors.
    tau, _ = rank_correlations(values, falls.abs() if by == "absolute" else falls)
    return none_for_nan(tau[None])[0]


def infidelity(
    probabilities: Probabilities, scores: Tensor, *, samples: int = SAMPLES, seed: int = 0, scaled: bool = True
) -> float | None:
    """Return the mean squared error of scores as a linear prediction of removals. Lower is better, 0 and above.

    mean over random sets S of (beta sum_{i in S} score_i - (p(x) - p(x without S)))^2 (Yeh et al. 2019, arXiv
    1901.09392, with removal of tokens as the perturbation). beta is the least-squares factor <a, b> / <a, a> of
    the sums a and the falls b (Captum's `normalize`; the result is then at most the mean of b^2), because the scores of
    most methods are not in units of probability; scaled=False uses beta = 1. The size of S is drawn uniformly from 1 to
    n and its tokens uniformly; the same seed draws the same sets for every method.

    Returns:
        None if no token may be removed, or a drawn set leaves nothing of the input.

    Example:
        >>> predict = lambda examples: torch.stack([e["input_ids"].sum() / 10 for e in examples])
        >>> special = torch.tensor([True, False, False])
        >>> probabilities = Probabilities(predict, {"input_ids": torch.tensor([0, 6, 4])}, special)
        >>> round(infidelity(probabilities, torch.tensor([0.0, 3.0, 2.0])), 6)  # proportional to the falls of p
        0.0
    """
    values = probabilities.values(scores)
    if len(values) == 0:
        return None
    sets = random_sets(probabilities, samples=samples, seed=seed)
    place = {token: index for index, token in enumerate(probabilities.tokens)}
    sums = torch.stack([values[[place[token] for token in sorted(positions)]].sum() for positions in sets])
    falls = probabilities.full() - probabilities.removed(sets)
    squares = float(sums.square().sum())
    beta = float((sums * falls).sum()) / squares if scaled and squares > 0 else 1.0
    return none_for_nan((beta * sums - falls).square().mean()[None])[0]


def top_sets(probabilities: Probabilities, scores: Tensor, bins: Sequence[float], by: str) -> Sets:
    """Return the top tokens of each bin; [] for an input without tokens that may be removed."""
    order = probabilities.ranked(scores, by=by)
    return [frozenset(order[:count]) for count in bin_counts(len(order), bins)] if order else []


def curve_sets(probabilities: Probabilities, scores: Tensor, by: str, steps: int) -> Sets:
    """Return what is removed after each step, from no token to all; [] where no token may be removed."""
    order = probabilities.ranked(scores, by=by)
    used = min(len(order), max(1, steps))
    counts = [len(order) * step // used for step in range(used + 1)] if order else []
    return [frozenset(order[:count]) for count in counts]


def single_sets(probabilities: Probabilities) -> Sets:
    """Return the sets of one token each."""
    return [frozenset([token]) for token in probabilities.tokens]


def random_sets(probabilities: Probabilities, *, samples: int = SAMPLES, seed: int = 0) -> Sets:
    """Return random sets of tokens, none of them empty; [] where no token may be removed."""
    generator, tokens = torch.Generator().manual_seed(seed), probabilities.tokens
    sets = []
    for _ in range(samples if tokens else 0):
        size = int(torch.randint(1, len(tokens) + 1, (1,), generator=generator))
        drawn = torch.randperm(len(tokens), generator=generator)[:size].tolist()
        sets.append(frozenset(tokens[index] for index in drawn))
    return sets


def complements(probabilities: Probabilities, sets: Sequence[frozenset[int]]) -> Sets:
    """Return what has to be removed so that only these sets (and the special tokens) are kept."""
    return [frozenset(probabilities.tokens) - positions for positions in sets]


def _removal_curve(probabilities: Probabilities, sets: Sets, bins: Sequence[float], *, keep: bool) -> RemovalCurve:
    if not sets:
        return RemovalCurve(None, (None,) * len(bins), tuple(bins))
    falls = probabilities.full() - probabilities.removed(complements(probabilities, sets) if keep else sets)
    return RemovalCurve(none_for_nan(falls.mean()[None])[0], none_for_nan(falls), tuple(bins))


def _area_under_curve(probabilities: Probabilities, sets: Sets) -> float | None:
    if not sets:
        return None
    shares = torch.tensor([len(positions) for positions in sets], dtype=torch.float64) / len(probabilities.tokens)
    return none_for_nan(torch.trapezoid(probabilities.removed(sets), shares).abs()[None])[0]
