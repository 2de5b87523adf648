"""Plausibility as ERASER computes it: by hand, and with scikit-learn, which ERASER calls."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import auc, average_precision_score, precision_recall_curve

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation import PrecisionRecallF1, auprc, average_precision, iou_f1, spans, token_f1


@pytest.mark.parametrize("levels", [2, 5, None])
def test_soft_scores_equal_scikit_learn(levels):
    generator = np.random.default_rng(0)
    truths, scores = [], []
    for _ in range(40):
        n = int(generator.integers(2, 40))
        truth, score = generator.random(n) < 0.4, generator.standard_normal(n)
        truth[0], truth[1] = True, False
        truths.append(truth)
        scores.append(score if levels is None else np.floor(score * levels))
    found = auprc([torch.tensor(x) for x in truths], [torch.tensor(x) for x in scores])
    curves = [precision_recall_curve(truth, score) for truth, score in zip(truths, scores)]
    wanted = [auc(recall, precision) for precision, recall, _ in curves]
    assert found.values == pytest.approx(wanted)
    assert found.mean == pytest.approx(np.average(wanted))
    found = average_precision([torch.tensor(x) for x in truths], [torch.tensor(x) for x in scores])
    wanted = [average_precision_score(truth, score) for truth, score in zip(truths, scores)]
    assert found.values == pytest.approx(wanted)
    assert found.mean == pytest.approx(np.average(wanted))


def test_soft_scores_of_texts_with_one_class():
    scores = [torch.tensor([0.2, 0.1])] * 3
    truths = [torch.tensor([True, True]), torch.tensor([False, False]), torch.tensor([False, True])]
    # All true: precision 1 throughout. None true: undefined. One true, ranked second: (0, 1), (0, 0), (1, 1/2).
    assert auprc(truths, scores).values == (1.0, None, pytest.approx(0.25))
    assert auprc(truths, scores).mean == pytest.approx(0.625)
    assert average_precision(truths, scores).values == (None, None, pytest.approx(0.5))
    assert average_precision(truths[:2], scores[:2]).mean is None
    # Constant scores: one threshold, precision 1/2 at recall 1.
    assert average_precision(truths[2:], [torch.ones(2)]).mean == pytest.approx(0.5)
    assert auprc(truths[2:], [torch.ones(2)]).mean == pytest.approx(0.75)


def masks(*rows):
    return [torch.tensor([c == "x" for c in row]) for row in rows]


def test_token_f1_by_hand():
    truths = masks("xx..", "x...", "....", "....", "x...")
    chosen = masks(".xx.", "x...", "x...", "....", "....")
    # hits 1, 1, 0, 0, 0; chosen 2, 1, 1, 0, 0; true 2, 1, 0, 0, 1. The fourth text has neither and does not count.
    found = token_f1(truths, chosen)
    assert (found.micro.precision, found.micro.recall) == (0.5, 0.5)
    assert found.micro.f1 == pytest.approx(0.5)
    assert found.macro.precision == pytest.approx((1 / 2 + 1 + 0 + 0) / 4)
    assert found.macro.recall == pytest.approx((1 / 2 + 1 + 0 + 0) / 4)
    assert found.macro.f1 == pytest.approx((1 / 2 + 1 + 0 + 0) / 4)
    assert found.values == (0.5, 1.0, 0.0, None, 0.0)
    low, high = found.interval
    assert low < 0.375 < high
    nothing = token_f1(masks("xx"), masks(".."))
    assert nothing.micro == PrecisionRecallF1(None, None, None)  # ERASER divides by zero
    assert nothing.macro == PrecisionRecallF1(0, 0, 0)
    assert token_f1(masks(".."), masks("..")).macro == PrecisionRecallF1(None, None, None)


def test_macro_f1_is_the_mean_of_f1_and_not_the_f1_of_means():
    # precision 1 and 1/3, recall 1/3 and 1: both F1 are 1/2, the means are 2/3.
    found = token_f1(masks("xxx", "x.."), masks("x..", "xxx"))
    assert found.macro.f1 == pytest.approx(0.5)
    assert found.macro.precision == found.macro.recall == pytest.approx(2 / 3)


def test_iou_f1_by_hand():
    truths = [[(0, 4), (6, 8)], [(0, 2)], []]
    chosen = [[(1, 5)], [(0, 1), (1, 2)], [(3, 4)]]
    # (1, 5) meets (0, 4) in 3 of 5 tokens: a hit. The halves of (0, 2) have IoU 1/2 each: two hits, recall 2.
    found = iou_f1(truths, chosen)
    assert found.micro == PrecisionRecallF1(3 / 4, 3 / 3, pytest.approx(6 / 7))
    # precision over the three texts with a chosen span: 1, 1, 0; recall over the two with a true one: 1/2, 2
    assert found.macro.precision == pytest.approx(2 / 3)
    assert found.macro.recall == pytest.approx(5 / 4)
    assert found.macro.f1 == pytest.approx(2 * (2 / 3) * (5 / 4) / (2 / 3 + 5 / 4))
    assert found.values == (pytest.approx(2 / 3), pytest.approx(4 / 3), 0.0)
    assert found.interval[0] < found.macro.f1 < found.interval[1]
    assert iou_f1(truths, chosen, threshold=0.6).micro.precision == pytest.approx(1 / 4)
    assert iou_f1(truths, chosen, threshold=0.61).micro == PrecisionRecallF1(0, 0, 0)
    assert iou_f1([[]], [[(0, 1)]]).macro == PrecisionRecallF1(None, None, None)
    same = [[(0, 2)], [(1, 4)], [(2, 3)]]
    assert (iou_f1(same, same).interval, iou_f1(same, same).macro) == ((1, 1), PrecisionRecallF1(1, 1, 1))


def test_spans():
    assert spans(masks("xx.x..xxx")[0]) == [(0, 2), (3, 4), (6, 9)]
    assert spans(masks("...")[0]) == spans(torch.zeros(0)) == []


def test_bad_input():
    with pytest.raises(InvalidInputError, match=r"truths\[1\] has shape \(3,\) and scores\[1\] \(4,\)"):
        auprc([torch.ones(2), torch.ones(3)], [torch.ones(2), torch.ones(4)])
    with pytest.raises(InvalidInputError, match="truths and predictions hold 1 and 2 texts"):
        token_f1(masks("x"), masks("x", "x"))
    with pytest.raises(InvalidInputError, match="hold 0 and 0 texts"):
        token_f1([], [])
    with pytest.raises(InvalidInputError, match=r"scores\[0\] has entries that are NaN"):
        average_precision(masks("x."), [torch.tensor([math.nan, 1.0])])
    with pytest.raises(InvalidInputError, match="threshold is 0"):
        iou_f1([[]], [[]], threshold=0)
