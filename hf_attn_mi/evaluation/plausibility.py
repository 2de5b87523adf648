"""Agreement with human rationales as ERASER computes it: token F1, IoU F1, AUPRC and average precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.evaluation.statistics import RESAMPLES, Interval, estimate, percentile_interval, resampled_means

Span = tuple[int, int]  # first token and the one after the last


@dataclass(frozen=True)
class PrecisionRecallF1:
    """Precision, recall and F1; all None if undefined."""

    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class RationaleScores:
    """Agreement of hard rationales (sets of tokens) with human ones.

    Attributes:
        micro: counted over all texts.
        macro: averaged over texts.
        interval: 95 % of the macro F1, bootstrap over texts; None for fewer than two.
        values: F1 of each text, for paired tests; None for a text without a true and without a chosen token.
    """

    micro: PrecisionRecallF1
    macro: PrecisionRecallF1
    interval: Interval | None
    values: tuple[float | None, ...]


UNDEFINED = PrecisionRecallF1(None, None, None)


def token_f1(truths: Sequence[Tensor], predictions: Sequence[Tensor]) -> RationaleScores:
    """Return precision, recall and F1 of the chosen tokens (ERASER's `score_hard_rationale_predictions`).

    Micro: |truth and chosen| over |chosen| and over |truth|, counted over all texts. Macro: the mean over texts of each
    text's precision, recall and F1 (0 if a text has no chosen or no true token); texts without either do not count.
    Higher is better, 0 to 1 (DeYoung et al. 2020, arXiv 1911.03429).

    Args:
        truths: for each text (tokens,) bool: the human rationale.
        predictions: for each text (tokens,) bool: the tokens chosen; see `top_tokens`.

    Returns:
        `RationaleScores`; micro is None if no text has a rationale or none has a token chosen (ERASER's code
        divides by zero there), macro where no text has either.

    Raises:
        InvalidInputError: numbers of texts or of tokens that differ.

    Example:
        >>> result = token_f1([torch.tensor([1, 1, 0, 0])], [torch.tensor([0, 1, 1, 0])])
        >>> result.micro
        PrecisionRecallF1(precision=0.5, recall=0.5, f1=0.5)
    """
    pairs = list(zip(*_paired("predictions", truths, predictions)))
    counts = [(int((t & p).sum()), int(p.sum()), int(t.sum())) for t, p in pairs]
    hits, chosen, true = (sum(column) for column in zip(*counts))
    micro = _scores(hits / chosen, hits / true) if chosen and true else UNDEFINED
    texts = [(_share(h, c), _share(h, t)) for h, c, t in counts if c or t]
    values = _values(counts)
    f1 = estimate(values)
    if not texts:
        return RationaleScores(micro, UNDEFINED, None, values)
    macro = PrecisionRecallF1(sum(p for p, _ in texts) / len(texts), sum(r for _, r in texts) / len(texts), f1.mean)
    return RationaleScores(micro, macro, f1.interval, values)


def iou_f1(
    truths: Sequence[Sequence[Span]], predictions: Sequence[Sequence[Span]], *, threshold: float = 0.5
) -> RationaleScores:
    """Return precision, recall and F1 of the chosen spans (ERASER's `partial_match_score`).

    A chosen span is a hit if its intersection over union with some true span is at least `threshold`. Micro: hits over
    the spans chosen and over the true spans of all texts. Macro: precision averaged over the texts with a span chosen,
    recall over the texts with a true span, and the F1 of these averages. Higher is better, from 0. As in ERASER, recall
    counts chosen spans that are hits, not true spans that are hit: two halves of one true span are two hits, and recall
    may exceed 1.

    Args:
        truths: for each text its true spans (first token, one after the last); see `spans`.
        predictions: for each text the spans chosen.
        threshold: above 0 and up to 1.

    Returns:
        `RationaleScores`; None if no text has a true span, or none has a chosen one (ERASER's code says 0).

    Example:
        >>> iou_f1([[(0, 4)]], [[(1, 4), (6, 8)]]).micro  # 3 of 4 tokens; the second span is no hit
        PrecisionRecallF1(precision=0.5, recall=1.0, f1=0.6666666666666666)
    """
    if len(truths) != len(predictions) or not 0 < threshold <= 1:
        raise InvalidInputError(
            f"truths and predictions hold {len(truths)} and {len(predictions)} texts, threshold is {shown(threshold)}; "
            "the numbers must be equal and the threshold above 0 and up to 1."
        )
    counts = []
    for true, chosen in zip(truths, predictions):
        true_spans, chosen_spans = {(start, end) for start, end in true}, {(start, end) for start, end in chosen}
        hits = sum(max((_iou(span, x) for x in true_spans), default=0.0) >= threshold for span in chosen_spans)
        counts.append((hits, len(chosen_spans), len(true_spans)))
    hits, chosen_count, true_count = (sum(column) for column in zip(*counts)) if counts else (0, 0, 0)
    if not chosen_count or not true_count:
        return RationaleScores(UNDEFINED, UNDEFINED, None, _values(counts))
    # (texts, 2) precision and recall, and whether they are defined for the text
    shares = torch.tensor([(_share(h, c), _share(h, t)) for h, c, t in counts], dtype=torch.float64)
    known = torch.tensor([(c > 0, t > 0) for _, c, t in counts])
    precision, recall = (shares.sum(0) / known.sum(0)).tolist()
    drawn = resampled_means(shares, known, bootstrap=RESAMPLES, seed=0)
    drawn = 2 * drawn.prod(1) / drawn.sum(1).where(drawn.sum(1) != 0, torch.ones(()))
    return RationaleScores(
        micro=_scores(hits / chosen_count, hits / true_count),
        macro=_scores(precision, recall),
        interval=percentile_interval(drawn, int(known.any(1).sum())),
        values=_values(counts),
    )


def spans(mask: Tensor) -> list[Span]:
    """Return the runs of chosen tokens of a (tokens,) bool mask.

    Example:
        >>> spans(torch.tensor([True, True, False, True]))
        [(0, 2), (3, 4)]
    """
    edges = torch.cat([torch.zeros(1), mask.bool().cpu().float(), torch.zeros(1)]).diff()
    return list(zip((edges == 1).nonzero()[:, 0].tolist(), (edges == -1).nonzero()[:, 0].tolist()))


@dataclass(frozen=True)
class SoftScores:
    """Agreement of token scores with human rationales.

    Attributes:
        mean: over the texts where the metric is defined; None if there are none.
        values: the value of each text; None if undefined.
    """

    mean: float | None
    values: tuple[float | None, ...]


def auprc(truths: Sequence[Tensor], scores: Sequence[Tensor]) -> SoftScores:
    """Return the area under the precision-recall curve of each text and its mean. Higher is better, 0 to 1.

    Trapezoids under scikit-learn's `precision_recall_curve` (equal scores share a point), as in ERASER's `_auprc`;
    texts whose tokens are all in the rationale count as 1, as there. For a text without a rationale the metric is
    undefined (ERASER's value depends on the version of scikit-learn), and the text is left out.

    Args:
        truths: for each text (tokens,) bool: the human rationale.
        scores: for each text (tokens,): higher for more important tokens.

    Raises:
        InvalidInputError: numbers of texts or of tokens that differ, or scores that are not finite.

    Example:
        >>> result = auprc([torch.tensor([1, 0, 1])], [torch.tensor([0.9, 0.5, 0.1])])
        >>> round(result.mean, 4)  # (0, 1), (1/2, 1), (1/2, 1/2), (1, 2/3)
        0.7917
    """
    return _over_texts(truths, scores, area=True)


def average_precision(truths: Sequence[Tensor], scores: Sequence[Tensor]) -> SoftScores:
    """Return sum_n (R_n - R_{n-1}) P_n of each text and its mean. Higher is better, 0 to 1.

    scikit-learn's `average_precision_score`; as in ERASER, texts of a single class (no token, or every token in the
    rationale) are left out. Arguments: see `auprc`.

    Example:
        >>> scores = [torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0.5, 0.1])]
        >>> average_precision([torch.tensor([1, 0, 1]), torch.ones(2)], scores).values  # 1/2 * 1 + 1/2 * 2/3
        (0.8333333333333333, None)
    """
    return _over_texts(truths, scores, area=False)


def precision_recall(truth: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return precision and recall at each distinct score as threshold, the highest first, float64.

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
    last = torch.cat([values.diff() != 0, torch.ones(1, dtype=torch.bool)])  # the last of each run of equal scores
    count = torch.arange(1, len(values) + 1, dtype=torch.float64)
    return (hits / count)[last], (hits / hits[-1])[last]


def _over_texts(truths: Sequence[Tensor], scores: Sequence[Tensor], *, area: bool) -> SoftScores:
    values: list[float | None] = []
    for truth, score in zip(*_paired("scores", truths, scores)):
        if not bool(truth.any()) or (not area and bool(truth.all())):
            values.append(None)
            continue
        precision, recall = precision_recall(truth, score.double())
        before = torch.cat([torch.zeros(1, dtype=torch.float64), recall])
        heights = precision if not area else (precision + torch.cat([torch.ones(1), precision[:-1]])) / 2
        values.append(float((before.diff() * heights).sum()))
    known = [value for value in values if value is not None]
    return SoftScores(sum(known) / len(known) if known else None, tuple(values))


def _paired(name: str, truths: Sequence[Tensor], others: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Return both as lists, the truths (and others that are whole numbers) as bool.

    Raises:
        InvalidInputError: no texts, numbers of texts or of tokens that differ, or values that are not finite.
    """
    if len(truths) != len(others) or not len(truths):
        raise InvalidInputError(
            f"truths and {name} hold {len(truths)} and {len(others)} texts; the numbers must be equal and not 0."
        )
    rationales = [torch.as_tensor(x).detach().cpu().bool() for x in truths]
    values = [torch.as_tensor(x).detach().cpu() for x in others]
    values = [x.double() if x.is_floating_point() else x.bool() for x in values]
    for index, (truth, value) in enumerate(zip(rationales, values)):
        if truth.dim() != 1 or truth.shape != value.shape:
            raise InvalidInputError(
                f"truths[{index}] has shape {tuple(truth.shape)} and {name}[{index}] {tuple(value.shape)}; both must "
                "be (tokens,) of the same tokens: bring rationales to the model's tokens, or scores to words."
            )
        if not bool(value.isfinite().all()):
            raise InvalidInputError(f"{name}[{index}] has entries that are NaN or infinite.")
    return rationales, values


def _iou(first: Span, second: Span) -> float:
    common = max(0, min(first[1], second[1]) - max(first[0], second[0]))
    union = (first[1] - first[0]) + (second[1] - second[0]) - common
    return common / union if union else 0.0


def _scores(precision: float, recall: float) -> PrecisionRecallF1:
    return PrecisionRecallF1(precision, recall, _f1(precision, recall))


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision and recall else 0.0


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _values(counts: list[tuple[int, int, int]]) -> tuple[float | None, ...]:
    """F1 of each text from its hits, what was chosen and what is true."""
    return tuple(_f1(_share(h, c), _share(h, t)) if c or t else None for h, c, t in counts)
