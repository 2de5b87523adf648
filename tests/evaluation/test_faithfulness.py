"""Faithfulness metrics on a model whose probabilities are worked out by hand."""

import itertools
import math

import pytest
import torch
from scipy import stats

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation import (
    DECILES,
    ERASER_BINS,
    METRICS,
    AopcLimits,
    aopc,
    aopc_limits,
    bin_counts,
    comprehensiveness,
    deletion_area,
    faithfulness,
    insertion_area,
    leave_one_out_correlation,
    monotonicity,
    normalized_aopc,
    ranking,
    sufficiency,
    top_tokens,
)
from tests.evaluation.made_model import ODDS, made, padded


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
    found = made(10, 11, 12, 13)
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
    found = made(10, 11, 12, 13)
    comp = comprehensiveness(found, padded(4.0, 3.0, -1.0, 0.0))
    assert comp.mean == pytest.approx((4 * 0.4 + 0.65) / 5)
    assert found.evaluated == 3  # the full text and two sets
    constant = comprehensiveness(found, padded(1.0, 1.0, 1.0, 1.0))  # all ties: the order of the text
    assert constant == comp


def test_only_what_the_metrics_need_is_predicted():
    scores = padded(4.0, 3.0, -1.0, 0.0)
    for metrics, sets in (
        (["comprehensiveness"], 3),  # the full text, the top token, the top two
        (["comprehensiveness", "sufficiency"], 5),
        (["leave_one_out"], 5),  # the full text and four tokens
        (["monotonicity", "deletion_area"], 5),
    ):
        found = made(10, 11, 12, 13)
        values = faithfulness(found, scores, metrics=metrics)
        assert found.evaluated == sets
        assert found.predict.calls == 1
        everything = faithfulness(made(10, 11, 12, 13), scores)
        assert values == {name: everything[name] for name in metrics}
    with pytest.raises(InvalidInputError, match=r"\['auprc'\] are not known; allowed are comprehensiveness"):
        faithfulness(made(10, 11), padded(1.0, 2.0), metrics=["auprc"])


def test_one_token_and_none():
    one = made(10)
    assert comprehensiveness(one, padded(-1.0)).values == (pytest.approx(0.4),) * 5
    assert sufficiency(one, padded(-1.0)).mean == pytest.approx(0)
    assert leave_one_out_correlation(one, padded(-1.0)) is None
    assert normalized_aopc(aopc(one, padded(1.0)), aopc_limits(one)) is None  # only one order
    values = faithfulness(made(), padded(), limits=AopcLimits(0, 1, True, 1))
    assert set(values.values()) == {None}
    # Without special tokens nothing would be left to run.
    alone = faithfulness(made(10, specials=False), torch.ones(1))
    assert {name for name, value in alone.items() if value is not None} == {"sufficiency", "sufficiency_deciles"}
    assert aopc_limits(made(10, 11, specials=False)) is None


def test_deletion_and_insertion_area_by_hand():
    found = made(10, 11, 12)  # odds 9
    scores = padded(2.0, 1.0, -1.0)
    # removed: p = .9, .5 (odds 1), .25 (1/3), .5 (1); trapezoids of width 1/3
    assert deletion_area(found, scores) == pytest.approx((0.9 / 2 + 0.5 + 0.25 + 0.5 / 2) / 3)
    # added: p = .5, .9, 27/28, .9
    assert insertion_area(found, scores) == pytest.approx((0.5 / 2 + 0.9 + 27 / 28 + 0.9 / 2) / 3)
    # two steps of 1 and 2 tokens: .9, .5, .5 at 0, 1/3, 1
    assert deletion_area(found, scores, steps=2) == pytest.approx((0.9 + 0.5) / 2 / 3 + 0.5 * 2 / 3)


def test_monotonicity_by_hand():
    found = made(10, 11, 12, 13)
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
        found = made(*ids)
        wanted = stats.kendalltau(scores, falls).statistic
        assert leave_one_out_correlation(found, padded(*scores.tolist())) == pytest.approx(wanted)
        wanted = stats.kendalltau(scores.abs(), [abs(fall) for fall in falls]).statistic
        assert leave_one_out_correlation(found, padded(*scores.tolist()), by="absolute") == pytest.approx(wanted)
    assert leave_one_out_correlation(found, padded(*[0.5] * 6)) is None  # no order
    assert leave_one_out_correlation(made(11, 11, 11), padded(1.0, 2.0, 3.0)) is None  # the model has none


def all_areas(found):
    """AOPC of every order, from the definition."""
    n = len(found.tokens)
    return [
        found.full() - float(found.removed([order[: k + 1] for k in range(n)]).mean())
        for order in itertools.permutations(found.tokens)
    ]


@pytest.mark.parametrize("removal", ["delete", "mask", "attention_mask"])
def test_limits_are_those_of_all_orders(removal):
    found = made(10, 12, 11, 14, 13, removal=removal)
    areas = all_areas(found)
    limits = aopc_limits(found)
    assert (limits.lower, limits.upper, limits.exact) == (pytest.approx(min(areas)), pytest.approx(max(areas)), True)
    # By hand: odds 9, 1/3, 3, 2, 1, together 18; best order 9, 3, 2, 1, 1/3 leaves odds 2, 2/3, 1/3, 1/3, 1.
    best = 18 / 19 - (2 / 3 + 2 / 5 + 1 / 4 + 1 / 4 + 1 / 2) / 5
    assert limits.upper == pytest.approx(best)
    scores = padded(9.0, 1 / 3, 3.0, 2.0, 1.0)
    assert normalized_aopc(aopc(found, scores), limits) == pytest.approx(1)
    assert normalized_aopc(aopc(found, scores, ascending=True), limits) == pytest.approx(0)
    middle = aopc(found, padded(1.0, 2.0, 3.0, 4.0, 5.0))
    wanted = (middle - min(areas)) / (max(areas) - min(areas))
    assert normalized_aopc(middle, limits) == pytest.approx(wanted)
    assert 0 < wanted < 1


class Interacting:
    """Probabilities without structure: each set of present tokens has its own, so that greedy choices fail."""

    def __call__(self, examples):
        keys = [sum(1 << int(i) for i in e["input_ids"]) for e in examples]
        return torch.stack([torch.rand((), generator=torch.Generator().manual_seed(key)) for key in keys]).double()


def test_beam_search_lies_within_the_exact_limits_and_reaches_them_when_wide():
    from hf_attn_mi.evaluation import Probabilities

    example, special = {"input_ids": torch.arange(7)}, torch.arange(7) == 0
    exact = aopc_limits(Probabilities(Interacting(), example, special))
    areas = all_areas(Probabilities(Interacting(), example, special))
    assert (exact.lower, exact.upper) == (pytest.approx(min(areas)), pytest.approx(max(areas)))
    widths = []
    for beam in (1, 3, 20):  # 20 subsets of three of six: all
        found = Probabilities(Interacting(), example, special)
        limits = aopc_limits(found, exact=0, beam=beam)
        assert not limits.exact
        assert exact.lower - 1e-12 <= limits.lower < limits.upper <= exact.upper + 1e-12
        assert found.evaluated <= beam * 6 * 6 + 2
        widths.append(limits.upper - limits.lower)
    assert widths[0] < widths[1] <= widths[2] == pytest.approx(exact.upper - exact.lower)
    assert limits.widened([2.0, None, -2.0]) == AopcLimits(-2.0, 2.0, False, 6)


def test_faithfulness_is_the_single_metrics_from_one_call():
    scores = padded(4.0, -3.0, 2.0, 1.0)
    found = made(10, 11, 12, 14)
    limits = aopc_limits(found)
    calls = found.predict.calls
    values = faithfulness(found, scores, limits=limits)
    assert found.predict.calls == calls  # all 16 subsets are known from the limits
    alone = made(10, 11, 12, 14)
    without = faithfulness(alone, scores)
    assert alone.predict.calls == 1
    assert values["comprehensiveness"] == without["comprehensiveness"] == comprehensiveness(found, scores).mean
    assert values["sufficiency_deciles"] == sufficiency(found, scores, bins=DECILES).mean
    assert values["normalized_aopc_ascending"] == normalized_aopc(aopc(found, scores, ascending=True), limits)
    assert without["normalized_aopc"] is None
    assert faithfulness(alone, scores, samples=0)["infidelity"] is None
    assert set(values) <= set(METRICS)
    for name, value in values.items():
        assert value >= METRICS[name].lowest, name
        assert METRICS[name].highest is None or value <= METRICS[name].highest, name


def test_a_long_text_is_predicted_in_one_call_too():
    ids = [10 + i % 5 for i in range(130)]
    found = made(*ids)
    faithfulness(found, padded(*torch.rand(130).tolist()), limits=AopcLimits(0, 1, False, 130))
    assert found.predict.calls == 1


def test_bad_scores():
    found = made(10, 11)
    for scores, message in (
        (torch.ones(3), r"shape \(3,\), the example has 4 tokens"),
        (torch.ones(5), r"shape \(5,\), the example has 4 tokens"),
        (padded(1.0, math.nan), "NaN or infinite"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            faithfulness(found, scores)
    faithfulness(found, torch.tensor([math.nan, 1.0, 2.0, math.nan]))  # of special tokens: not looked at
    with pytest.raises(InvalidInputError, match="by must be 'signed' or 'absolute', not 'size'"):
        comprehensiveness(found, padded(1.0, 2.0), by="size")
    for bins in ((), (0.0,), (1.1,)):
        with pytest.raises(InvalidInputError, match="bins must be shares"):
            comprehensiveness(found, padded(1.0, 2.0), bins=bins)
    for arguments in ({"exact": 30}, {"beam": 0}):
        with pytest.raises(InvalidInputError, match="exact must be"):
            aopc_limits(found, **arguments)
