"""Metrics on removed tokens: by hand, and against scipy and Captum."""

import math

import pytest
import torch
from captum import metrics
from scipy import stats

from hf_attn_mi.evaluation import (
    DECILES,
    ERASER_BINS,
    bin_counts,
    comprehensiveness,
    deletion_area,
    infidelity,
    insertion_area,
    leave_one_out_correlation,
    monotonicity,
    ranking,
    sufficiency,
    top_tokens,
)
from hf_attn_mi.evaluation.removal_metrics import random_sets
from tests.evaluation.sample_predictor import ODDS, padded, removal_probabilities


def test_ranking_and_bins():
    scores = torch.tensor([9.0, 1.0, -3.0, 1.0, 0.0])
    assert ranking(scores, [1, 2, 3, 4]) == [1, 3, 4, 2]  # ties in the order of the text
    assert ranking(scores, [1, 2, 3, 4], by="absolute") == [2, 1, 3, 4]
    assert bin_counts(20, ERASER_BINS) == [1, 1, 2, 4, 10]  # .2 and 1 are one token
    assert bin_counts(7, ERASER_BINS) == [1, 1, 1, 2, 4]
    # 0.07 * 100 and 0.14 * 50 are a little over 7 in floating point: ceil would take a token too many.
    assert (bin_counts(100, [0.07]), bin_counts(50, [0.14]), bin_counts(51, [0.14])) == ([7], [7], [8])
    assert bin_counts(30, DECILES) == [3, 6, 9, 12, 15, 18, 21, 24, 27]
    assert bin_counts(10, DECILES) == list(range(1, 10))
    assert top_tokens(scores, 0.5, tokens=[1, 2, 3, 4]).tolist() == [False, True, False, True, False]


def test_comprehensiveness_and_sufficiency_by_hand():
    # odds 9, 3, 1/3, 1: together 9, p = .9. Bins .25 and .5 take one and two tokens.
    found = removal_probabilities(10, 11, 12, 13)
    best = padded(4.0, 3.0, -1.0, 0.0)
    comp = comprehensiveness(found, best, bins=(0.25, 0.5))
    # without 9: odds 1, p = .5; without 9 and 3: odds 1/3, p = .25
    assert comp.values == (pytest.approx(0.4), pytest.approx(0.65))
    assert comp.mean == pytest.approx(0.525)
    suff = sufficiency(found, best, bins=(0.25, 0.5))
    # 9 alone: p = .9; 9 and 3: odds 27, p = 27/28
    assert suff.values == (pytest.approx(0.0), pytest.approx(0.9 - 27 / 28))
    # By magnitude the token that speaks against the class is first: without it odds 27; with it alone 1/3.
    against = padded(1.0, 2.0, -5.0, 0.0)
    assert comprehensiveness(found, against, bins=(0.25,), by="absolute").mean == pytest.approx(0.9 - 27 / 28)
    assert sufficiency(found, against, bins=(0.25,), by="absolute").mean == pytest.approx(0.9 - 0.25)
    assert comprehensiveness(found, against, bins=(0.25,)).mean == pytest.approx(0.9 - 0.75)


def test_bins_that_take_the_same_tokens_all_count_and_are_predicted_once():
    # Four tokens: ERASER's bins take 1, 1, 1, 1, 2.
    found = removal_probabilities(10, 11, 12, 13)
    comp = comprehensiveness(found, padded(4.0, 3.0, -1.0, 0.0))
    assert comp.mean == pytest.approx((4 * 0.4 + 0.65) / 5)
    assert found.evaluated == 3  # the full text and two sets
    constant = comprehensiveness(found, padded(1.0, 1.0, 1.0, 1.0))  # all ties: the order of the text
    assert constant == comp


def test_deletion_and_insertion_area_by_hand():
    found = removal_probabilities(10, 11, 12)  # odds 9
    scores = padded(2.0, 1.0, -1.0)
    # removed: p = .9, .5 (odds 1), .25 (1/3), .5 (1); trapezoids of width 1/3
    assert deletion_area(found, scores) == pytest.approx((0.9 / 2 + 0.5 + 0.25 + 0.5 / 2) / 3)
    # added: p = .5, .9, 27/28, .9
    assert insertion_area(found, scores) == pytest.approx((0.5 / 2 + 0.9 + 27 / 28 + 0.9 / 2) / 3)
    # two steps of 1 and 2 tokens: .9, .5, .5 at 0, 1/3, 1
    assert deletion_area(found, scores, steps=2) == pytest.approx((0.9 + 0.5) / 2 / 3 + 0.5 * 2 / 3)


def test_monotonicity_by_hand():
    found = removal_probabilities(10, 11, 12, 13)
    assert monotonicity(found, padded(4.0, 3.0, -1.0, 0.0)) == 1  # the token of score 0 does not count
    # 1/3 removed first, said to speak for the class, raises p; 9, 3 and 1 do not.
    assert monotonicity(found, padded(3.0, 2.0, 4.0, 1.0)) == pytest.approx(3 / 4)
    assert monotonicity(found, padded(3.0, 2.0, 4.0, 0.0)) == pytest.approx(2 / 3)
    assert monotonicity(found, padded(-1.0, -2.0, -3.0, -4.0)) == pytest.approx(2 / 4)
    assert monotonicity(found, padded(0.0, 0.0, 0.0, 0.0)) is None


def test_leave_one_out_equals_scipy():
    ids = (10, 11, 12, 13, 14, 11)
    generator = torch.Generator().manual_seed(0)
    product = math.prod(ODDS[i] for i in ids)
    falls = [product / (1 + product) - product / ODDS[i] / (1 + product / ODDS[i]) for i in ids]
    for _ in range(5):
        scores = torch.randint(-2, 3, (6,), generator=generator).float()  # with ties; one tie in the falls
        found = removal_probabilities(*ids)
        wanted = stats.kendalltau(scores, falls).statistic
        assert leave_one_out_correlation(found, padded(*scores.tolist())) == pytest.approx(wanted)
        wanted = stats.kendalltau(scores.abs(), [abs(fall) for fall in falls]).statistic
        assert leave_one_out_correlation(found, padded(*scores.tolist()), by="absolute") == pytest.approx(wanted)
    assert leave_one_out_correlation(found, padded(*[0.5] * 6)) is None  # no order
    assert leave_one_out_correlation(removal_probabilities(11, 11, 11), padded(1.0, 2.0, 3.0)) is None


IDS = (10, 11, 12, 13, 14)


@pytest.mark.parametrize("scaled", [True, False])
def test_infidelity_equals_captums_on_the_same_sets(scaled):
    odds = torch.tensor([ODDS[i] for i in IDS], dtype=torch.float64)
    sets = random_sets(removal_probabilities(*IDS), samples=40, seed=3)
    removed = torch.tensor([[float(i + 1 in positions) for i in range(5)] for positions in sets], dtype=torch.float64)
    scores = torch.tensor([0.3, 0.1, -0.2, 0.05, 0.0], dtype=torch.float64)

    def forward(present):  # (sets, 5) of ones and zeros
        logit = (present * odds.log()).sum(1)
        return logit.sigmoid()

    wanted = metrics.infidelity(
        forward,
        lambda present: (removed, present - removed),
        torch.ones(1, 5, dtype=torch.float64),
        scores[None],
        n_perturb_samples=40,
        normalize=scaled,
    )
    given = infidelity(removal_probabilities(*IDS), padded(*scores.tolist()), samples=40, seed=3, scaled=scaled)
    assert given == pytest.approx(float(wanted), rel=1e-6)


def test_infidelity_by_hand():
    # Two tokens of odds 9 and 1: p = .9; without the first .5, without the second .9, without both .5.
    # Scores (.4, 0) tell all of it exactly, (0, .4) say 0, .4, .4 where the truth is .4, 0, .4.
    found = removal_probabilities(10, 13)
    assert infidelity(found, padded(0.4, 0.0), scaled=False) == pytest.approx(0)
    assert infidelity(found, padded(7.0, 0.0)) == pytest.approx(0)  # the scale is free
    single = [len(positions) == 1 for positions in random_sets(found)]
    assert infidelity(found, padded(0.0, 0.4), scaled=False) == pytest.approx(0.16 * sum(single) / len(single))
    # No scores at all: what is left is the mean square of the falls, with the same sets for every method.
    falls = [0.4 if 1 in positions else 0.0 for positions in random_sets(found)]
    assert infidelity(found, padded(0.0, 0.0)) == pytest.approx(sum(f * f for f in falls) / len(falls))
    assert infidelity(removal_probabilities(), padded()) is None
    assert infidelity(found, padded(0.1, 0.4), seed=0) != infidelity(found, padded(0.1, 0.4), seed=1)


def test_random_sets_have_every_size_equally_often():
    sets = random_sets(removal_probabilities(*IDS), samples=3000, seed=0)
    for size in range(1, 6):
        assert sum(len(positions) == size for positions in sets) / 3000 == pytest.approx(0.2, abs=0.025)
    assert sum(1 in positions for positions in sets) / 3000 == pytest.approx(0.6, abs=0.03)
