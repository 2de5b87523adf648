"""Kendall's tau-b, Spearman's rho and the rank matrix against scipy."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from hf_attn_mi.evaluation import rank_correlations, rank_matrix


@pytest.mark.parametrize("tokens", [3, 4, 17, 60])
@pytest.mark.parametrize("levels", [2, 5, None])
def test_tau_b_and_rho_equal_scipy(tokens, levels):
    generator = np.random.default_rng(tokens)
    first, second = generator.standard_normal((2, 40, tokens))
    if levels is not None:  # ties in both
        first, second = (np.floor(stats.norm.cdf(x) * levels) for x in (first, second))
    tau, rho = rank_correlations(torch.tensor(first), torch.tensor(second))
    for row in range(len(first)):
        constant = np.ptp(first[row]) == 0 or np.ptp(second[row]) == 0
        assert bool(tau[row].isnan()) == bool(rho[row].isnan()) == constant
        if not constant:
            assert float(tau[row]) == pytest.approx(stats.kendalltau(first[row], second[row]).statistic, abs=1e-12)
            assert float(rho[row]) == pytest.approx(stats.spearmanr(first[row], second[row]).statistic, abs=1e-12)


def test_numbers_that_differ_by_rounding_only_are_still_ordered():
    x = torch.tensor([1.0, 1.0 + 1e-15, 1.0 - 1e-15, 1e-300, 2e-300], dtype=torch.float64)
    tau, _ = rank_correlations(x, torch.tensor([4.0, 5.0, 3.0, 1.0, 2.0]))
    assert float(tau) == 1


def test_the_rank_matrix_equals_scipy():
    generator = np.random.default_rng(2)
    lengths = [5, 9, 2, 1, 14]
    scores = {name: [torch.tensor(np.floor(3 * generator.random(n))) for n in lengths] for name in "abc"}
    scores["b"][1][:] = 1.0  # no order there
    scores["c"][4] = None  # the method failed there
    found = rank_matrix(scores)
    assert found.methods == ("a", "b", "c")
    for (i, first), (j, second) in itertools.product(enumerate("abc"), repeat=2):
        wanted = []
        for x, y in zip(scores[first], scores[second]):
            if x is not None and y is not None and len(x) > 1 and np.ptp(x) > 0 and np.ptp(y) > 0:
                wanted.append(stats.kendalltau(x, y).statistic)
        cell = found.tau[i][j]
        assert cell.inputs == len(wanted)
        assert cell.mean == pytest.approx(np.mean(wanted))
        assert cell == found.tau[j][i]
    assert found.tau[0][0].mean == pytest.approx(1)
    nothing = rank_matrix({"a": [torch.ones(3)], "b": [None]})
    assert [[cell.mean for cell in row] for row in nothing.tau] == [[None, None], [None, None]]
    assert rank_matrix({}).tau == ()
