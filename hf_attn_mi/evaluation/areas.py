"""Comprehensiveness and sufficiency over bins (ERASER)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from hf_attn_mi.evaluation.probabilities import Probabilities
from hf_attn_mi.evaluation.ranking import ERASER_BINS, bin_counts


@dataclass(frozen=True)
class Area:
    """A metric over bins.

    Attributes:
        mean: over the bins (the area under the curve of bins, AOPC); None where a bin is undefined.
        values: one for each bin.
        bins: shares of the tokens.
    """

    mean: float | None
    values: tuple[float | None, ...]
    bins: tuple[float, ...]


def comprehensiveness(
    found: Probabilities, scores: Tensor, *, bins: Sequence[float] = ERASER_BINS, by: str = "signed"
) -> Area:
    """Return how far the probability falls when the tokens of highest score are removed. Higher is better.

    comp(q) = p(x) - p(x without its top ceil(q n) tokens), in [-1, 1]; `mean` is the mean over the bins as in ERASER's
    code (DeYoung et al. 2020, arXiv 1911.03429, whose text has a further zero term at q = 0 and so numbers smaller by
    |B| / (|B| + 1)). One share alone: bins=(0.2,).

    Args:
        found: probabilities of the input; methods that share it share its predictions.
        scores: (length of the input,).
        bins: shares of the tokens; ERASER_BINS or DECILES.
        by: "signed" or "absolute"; see `ranking`.

    Returns:
        An `Area`; None where the input has no token that may be removed, or would be empty.

    Example:
        >>> import torch
        >>> predict = lambda examples: torch.tensor([int(e["input_ids"].sum()) / 16 for e in examples])
        >>> found = Probabilities(predict, {"input_ids": torch.tensor([1, 2, 3, 4])})
        >>> comprehensiveness(found, torch.tensor([0.1, 0.2, 0.3, 0.4]), bins=(0.25, 0.5)).values
        (0.25, 0.4375)
    """
    return _area(found, top_sets(found, scores, bins, by), bins, keep=False)


def sufficiency(
    found: Probabilities, scores: Tensor, *, bins: Sequence[float] = ERASER_BINS, by: str = "signed"
) -> Area:
    """Return how far the probability falls when only the tokens of highest score are kept. Lower is better.

    suff(q) = p(x) - p(the top ceil(q n) tokens of x alone), in [-1, 1]; below zero where they say more than the whole
    text. Arguments, mean and source: see `comprehensiveness`.

    Example:
        >>> import torch
        >>> predict = lambda examples: torch.tensor([int(e["input_ids"].sum()) / 16 for e in examples])
        >>> found = Probabilities(predict, {"input_ids": torch.tensor([1, 2, 3, 4])})
        >>> sufficiency(found, torch.tensor([0.1, 0.2, 0.3, 0.4]), bins=(0.25,)).mean
        0.375
    """
    return _area(found, top_sets(found, scores, bins, by), bins, keep=True)


def top_sets(found: Probabilities, scores: Tensor, bins: Sequence[float], by: str) -> list[frozenset[int]]:
    """Return the top tokens of each bin; no sets for an input without tokens that may be removed."""
    order = found.ranked(scores, by=by)
    return [frozenset(order[:count]) for count in bin_counts(len(order), bins)] if order else []


def defined(values: Tensor) -> tuple[float | None, ...]:
    """Return plain numbers, None for NaN."""
    return tuple(None if value != value else value for value in values.tolist())


def _area(found: Probabilities, sets: list[frozenset[int]], bins: Sequence[float], *, keep: bool) -> Area:
    if not sets:
        return Area(None, (None,) * len(bins), tuple(bins))
    falls = found.full() - (found.kept(sets) if keep else found.removed(sets))
    return Area(defined(falls.mean()[None])[0], defined(falls), tuple(bins))
