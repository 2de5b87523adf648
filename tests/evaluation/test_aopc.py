"""AOPC and its limits against all orders of the tokens."""

import itertools

import pytest
import torch

from hf_attn_mi.evaluation import AopcLimits, Probabilities, aopc, aopc_limits, normalized_aopc
from tests.evaluation.sample_predictor import padded, removal_probabilities


def all_areas(found):
    """AOPC of every order, from the definition."""
    n = len(found.tokens)
    return [
        found.full() - float(found.removed([order[: k + 1] for k in range(n)]).mean())
        for order in itertools.permutations(found.tokens)
    ]


@pytest.mark.parametrize("removal", ["delete", "mask", "attention_mask"])
def test_limits_are_those_of_all_orders(removal):
    found = removal_probabilities(10, 12, 11, 14, 13, removal=removal)
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
