"""Hard rationales against human ones: token F1 and IoU F1, as ERASER computes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation.statistics import RESAMPLES, estimate
from hf_attn_mi.mi.bootstrap import percentile_interval, resampled_means

Span = tuple[int, int]  # first token and the one after the last


@dataclass(frozen=True)
class Score:
    """Precision, recall and F1; all None where undefined."""

    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class RationaleScores:
    """Scores of hard rationales.

    Attributes:
        micro: counted over all texts.
        macro: averaged over texts.
        interval: 95 % of the macro F1, bootstrap over texts; None for fewer than two.
        values: F1 of each text alone, for paired tests; None for a text with neither a true nor a chosen token.
    """

    micro: Score
    macro: Score
    interval: tuple[float, float] | None
    values: tuple[float | None, ...]


NONE = Score(None, None, None)


def token_f1(truths: Sequence[Tensor], predictions: Sequence[Tensor]) -> RationaleScores:
    """Return precision, recall and F1 of the chosen tokens (ERASER's `score_hard_rationale_predictions`).

    Micro: |truth and chosen| over |chosen| and over |truth|, counted over all texts. Macro: the mean over texts of each
    text's precision, recall and F1 (0 where a text has none chosen, or none true); texts with neither do not count.
    Higher is better, 0 to 1 (DeYoung et al. 2020, arXiv 1911.03429).

    Args:
        truths: for each text (tokens,) bool: the human rationale.
        predictions: for each text (tokens,) bool: the tokens chosen; see `top_tokens`.

    Returns:
        `RationaleScores`; micro is None where no text has a rationale or none has a token chosen (ERASER's code
        divides by zero there), macro where no text has either.

    Raises:
        InvalidInputError: numbers of texts or of tokens that differ.

    Example:
        >>> found = token_f1([torch.tensor([1, 1, 0, 0])], [torch.tensor([0, 1, 1, 0])])
        >>> found.micro
        Score(precision=0.5, recall=0.5, f1=0.5)
    """
    pairs = list(zip(*paired("predictions", truths, predictions)))
    counts = [(int((t & p).sum()), int(p.sum()), int(t.sum())) for t, p in pairs]
    hits, chosen, true = (sum(column) for column in zip(*counts))
    micro = _score(hits / chosen, hits / true) if chosen and true else NONE
    texts = [(_share(h, c), _share(h, t)) for h, c, t in counts if c or t]
    values = _values(counts)
    found = estimate(values)
    if not texts:
        return RationaleScores(micro, NONE, None, values)
    macro = Score(sum(p for p, _ in texts) / len(texts), sum(r for _, r in texts) / len(texts), found.mean)
    return RationaleScores(micro, macro, found.interval, values)


def iou_f1(
    truths: Sequence[Sequence[Span]], predictions: Sequence[Sequence[Span]], *, threshold: float = 0.5
) -> RationaleScores:
    """Return precision, recall and F1 of the chosen spans (ERASER's `partial_match_score`).

    A chosen span is a hit if its intersection over union with some true span is at least `threshold`. Micro: hits over
    the spans chosen and over the true spans of all texts. Macro: precision averaged over the texts with a span chosen,
    recall over the texts with a true span, and the F1 of these averages. Higher is better, from 0. As in ERASER, hits
    are counted on the side of what was chosen for recall too: two halves of one true span are two hits, and recall may
    exceed 1.

    Args:
        truths: for each text its true spans (first token, one after the last); `spans` makes them of masks.
        predictions: for each text the spans chosen.
        threshold: above 0 and up to 1.

    Returns:
        `RationaleScores`; None where no text has a true span, or none has a chosen one (ERASER's code says 0).

    Example:
        >>> iou_f1([[(0, 4)]], [[(1, 4), (6, 8)]]).micro  # 3 of 4 tokens; the second span meets nothing
        Score(precision=0.5, recall=1.0, f1=0.6666666666666666)
    """
    if len(truths) != len(predictions) or not 0 < threshold <= 1:
        raise InvalidInputError(
            f"truths and predictions hold {len(truths)} and {len(predictions)} texts, threshold is {threshold!r}; as "
            "many texts and a threshold above 0 and up to 1 are wanted."
        )
    counts = []
    for true, chosen in zip(truths, predictions):
        wanted, found = {(start, end) for start, end in true}, {(start, end) for start, end in chosen}
        hits = sum(max((_iou(span, other) for other in wanted), default=0.0) >= threshold for span in found)
        counts.append((hits, len(found), len(wanted)))
    total, found_spans, true_spans = (sum(column) for column in zip(*counts)) if counts else (0, 0, 0)
    if not found_spans or not true_spans:
        return RationaleScores(NONE, NONE, None, _values(counts))
    # (texts, 2) precision and recall, and whether the text has one
    shares = torch.tensor([(_share(h, c), _share(h, t)) for h, c, t in counts], dtype=torch.float64)
    known = torch.tensor([(c > 0, t > 0) for _, c, t in counts])
    precision, recall = (shares.sum(0) / known.sum(0)).tolist()
    drawn = resampled_means(shares, known, bootstrap=RESAMPLES, seed=0)
    drawn = 2 * drawn.prod(1) / drawn.sum(1).where(drawn.sum(1) != 0, torch.ones(()))
    return RationaleScores(
        micro=_score(total / found_spans, total / true_spans),
        macro=_score(precision, recall),
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


def paired(name: str, truths: Sequence[Tensor], others: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Return both as lists, the truths (and others that are whole numbers) as bool.

    Raises:
        InvalidInputError: no texts, numbers of texts or of tokens that differ, or values that are not finite.
    """
    if len(truths) != len(others) or not len(truths):
        raise InvalidInputError(
            f"truths and {name} hold {len(truths)} and {len(others)} texts; as many are wanted, not 0."
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


def _score(precision: float, recall: float) -> Score:
    return Score(precision, recall, _f1(precision, recall))


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision and recall else 0.0


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _values(counts: list[tuple[int, int, int]]) -> tuple[float | None, ...]:
    """F1 of each text from its hits, what was chosen and what is true."""
    return tuple(_f1(_share(h, c), _share(h, t)) if c or t else None for h, c, t in counts)
