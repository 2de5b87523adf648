"""Soft scores against human rationales: AUPRC and average precision, as ERASER computes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.evaluation.rationales import paired


@dataclass(frozen=True)
class SoftScores:
    """A metric of scores against rationales.

    Attributes:
        mean: over the texts where it is defined; None where there is none.
        values: of each text, None where undefined.
    """

    mean: float | None
    values: tuple[float | None, ...]


def auprc(truths: Sequence[Tensor], scores: Sequence[Tensor]) -> SoftScores:
    """Return the area under the precision-recall curve of each text and its mean. Higher is better, 0 to 1.

    Trapezoids under scikit-learn's `precision_recall_curve` (equal scores come together), as ERASER's `_auprc`; texts
    whose every token is in the rationale count with 1, as there. ERASER's value for a text without a rationale depends
    on the version of scikit-learn; it is undefined, and left out here.

    Args:
        truths: for each text (tokens,) bool: the human rationale.
        scores: for each text (tokens,): higher for tokens said to matter.

    Raises:
        InvalidInputError: numbers of texts or of tokens that differ, or scores that are not finite.

    Example:
        >>> found = auprc([torch.tensor([1, 0, 1])], [torch.tensor([0.9, 0.5, 0.1])])
        >>> round(found.mean, 4)  # (0, 1), (1/2, 1), (1/2, 1/2), (1, 2/3)
        0.7917
    """
    return _over_texts(truths, scores, area=True)


def average_precision(truths: Sequence[Tensor], scores: Sequence[Tensor]) -> SoftScores:
    """Return sum_n (R_n - R_{n-1}) P_n of each text and its mean. Higher is better, 0 to 1.

    scikit-learn's `average_precision_score`; as in ERASER, texts of a single class (no token, or every token in the
    rationale) are left out. Arguments: see `auprc`.

    Example:
        >>> found = average_precision([torch.tensor([1, 0, 1]), torch.ones(2)], [torch.tensor([0.9, 0.5, 0.1])] * 1
        ...     + [torch.tensor([0.5, 0.1])])
        >>> found.values  # 1/2 * 1 + 1/2 * 2/3
        (0.8333333333333333, None)
    """
    return _over_texts(truths, scores, area=False)


def precision_recall(truth: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return precision and recall as the threshold falls through the distinct scores, highest first, float64.

    Args:
        truth: (tokens,) bool, at least one True.
        scores: (tokens,).

    Returns:
        Precision and recall, (distinct scores,) each; without the point (recall 0, precision 1) before them.

    Example:
        >>> precision_recall(torch.tensor([True, False, True]), torch.tensor([0.5, 0.5, 0.1]))[0].tolist()
        [0.5, 0.6666666666666666]
    """
    values, order = scores.sort(descending=True, stable=True)
    hits = truth[order].double().cumsum(0)
    last = torch.cat([values.diff() != 0, torch.ones(1, dtype=torch.bool)])  # of each group of equal scores
    taken = torch.arange(1, len(values) + 1, dtype=torch.float64)
    return (hits / taken)[last], (hits / hits[-1])[last]


def _over_texts(truths: Sequence[Tensor], scores: Sequence[Tensor], *, area: bool) -> SoftScores:
    values: list[float | None] = []
    for truth, score in zip(*paired("scores", truths, scores)):
        if not bool(truth.any()) or (not area and bool(truth.all())):
            values.append(None)
            continue
        precision, recall = precision_recall(truth, score.double())
        before = torch.cat([torch.zeros(1, dtype=torch.float64), recall])
        heights = precision if not area else (precision + torch.cat([torch.ones(1), precision[:-1]])) / 2
        values.append(float((before.diff() * heights).sum()))
    known = [value for value in values if value is not None]
    return SoftScores(sum(known) / len(known) if known else None, tuple(values))
