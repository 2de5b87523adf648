"""Removing or adding tokens one after another: deletion and insertion area, monotonicity."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_attn_mi.evaluation.areas import defined
from hf_attn_mi.evaluation.probabilities import Probabilities

STEPS = 100


def deletion_area(found: Probabilities, scores: Tensor, *, by: str = "signed", steps: int = STEPS) -> float | None:
    """Return the area under p as the tokens are removed, the highest score first. Lower is better.

    Trapezoids over the share of tokens removed, 0 to 1; in [0, 1] (Petsiuk et al. 2018, arXiv 1806.07421). Inputs of
    more tokens than `steps` are removed in `steps` groups of as equal size as possible.

    Returns:
        None where no token may be removed, or where the input would be empty in the end.

    Example:
        >>> predict = lambda examples: torch.stack([e["input_ids"].sum() / 10 for e in examples])
        >>> found = Probabilities(predict, {"input_ids": torch.tensor([0, 6, 4])}, torch.tensor([True, False, False]))
        >>> round(deletion_area(found, torch.tensor([0.0, 2.0, 1.0])), 6)  # (1 + .4) / 2 / 2 + (.4 + 0) / 2 / 2
        0.45
    """
    return _area(found, curve_sets(found, scores, by, steps))


def insertion_area(found: Probabilities, scores: Tensor, *, by: str = "signed", steps: int = STEPS) -> float | None:
    """Return the area under p as tokens are added to the emptied input, the highest score first. Higher is better.

    Otherwise as `deletion_area`.

    Example:
        >>> predict = lambda examples: torch.stack([e["input_ids"].sum() / 10 for e in examples])
        >>> found = Probabilities(predict, {"input_ids": torch.tensor([0, 6, 4])}, torch.tensor([True, False, False]))
        >>> round(insertion_area(found, torch.tensor([0.0, 2.0, 1.0])), 6)  # (0 + .6) / 2 / 2 + (.6 + 1) / 2 / 2
        0.55
    """
    everything = frozenset(found.tokens)
    return _area(found, [everything - positions for positions in curve_sets(found, scores, by, steps)])


def monotonicity(found: Probabilities, scores: Tensor) -> float | None:
    """Return the share of single steps in which p moves as the sign of the score says. Higher is better, in [0, 1].

    Tokens are removed one at a time, the highest score first; where the token's score is positive p must not rise,
    where it is negative p must not fall; tokens of score zero say nothing and do not count. For positive scores this
    is the graded form of the yes-or-no of Arya et al. 2019 (arXiv 1909.03012; Luss et al. 2019), which is yes exactly
    where this is 1. Every token is a step: as many predictions as tokens, those of `deletion_area` up to 100.

    Returns:
        None where all scores are zero, or the input would be empty in the end.

    Example:
        >>> predict = lambda examples: torch.stack([e["input_ids"].sum() / 10 for e in examples])
        >>> found = Probabilities(predict, {"input_ids": torch.tensor([0, 6, 4])}, torch.tensor([True, False, False]))
        >>> monotonicity(found, torch.tensor([0.0, 2.0, -1.0]))  # p falls twice, and the last token spoke against
        0.5
    """
    order = found.ranked(scores)
    signs = found.values(scores, order).sign()
    if not bool(signs.any()):
        return None
    changes = found.removed(curve_sets(found, scores, "signed", len(order))).diff()
    right = (changes * signs <= 0).double().where(~changes.isnan(), changes)
    return defined(right[signs != 0].mean()[None])[0]


def curve_sets(found: Probabilities, scores: Tensor, by: str, steps: int) -> list[frozenset[int]]:
    """Return what is removed after each step, from nothing to all tokens; [] where no token may be removed."""
    order = found.ranked(scores, by=by)
    taken = min(len(order), max(1, steps))
    counts = [len(order) * step // taken for step in range(taken + 1)] if order else []
    return [frozenset(order[:count]) for count in counts]


def _area(found: Probabilities, sets: list[frozenset[int]]) -> float | None:
    if not sets:
        return None
    shares = torch.tensor([len(positions) for positions in sets], dtype=torch.float64) / len(found.tokens)
    return defined(torch.trapezoid(found.removed(sets), shares).abs()[None])[0]
