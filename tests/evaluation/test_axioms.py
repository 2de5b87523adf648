"""Infidelity, max-sensitivity and completeness against Captum and by hand."""

import pytest
import torch
from captum import metrics

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation import completeness_gap, infidelity, max_sensitivity, relative_change
from hf_attn_mi.evaluation.fidelity import random_sets
from tests.evaluation.made_model import ODDS, made, padded

IDS = (10, 11, 12, 13, 14)


@pytest.mark.parametrize("scaled", [True, False])
def test_infidelity_equals_captums_on_the_same_sets(scaled):
    odds = torch.tensor([ODDS[i] for i in IDS], dtype=torch.float64)
    sets = random_sets(made(*IDS), samples=40, seed=3)
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
    given = infidelity(made(*IDS), padded(*scores.tolist()), samples=40, seed=3, scaled=scaled)
    assert given == pytest.approx(float(wanted), rel=1e-6)


def test_infidelity_by_hand():
    # Two tokens of odds 9 and 1: p = .9; without the first .5, without the second .9, without both .5.
    # Scores (.4, 0) tell all of it exactly, (0, .4) say 0, .4, .4 where the truth is .4, 0, .4.
    found = made(10, 13)
    assert infidelity(found, padded(0.4, 0.0), scaled=False) == pytest.approx(0)
    assert infidelity(found, padded(7.0, 0.0)) == pytest.approx(0)  # the scale is free
    single = [len(positions) == 1 for positions in random_sets(found)]
    assert infidelity(found, padded(0.0, 0.4), scaled=False) == pytest.approx(0.16 * sum(single) / len(single))
    # No scores at all: what is left is the mean square of the falls, with the same sets for every method.
    falls = [0.4 if 1 in positions else 0.0 for positions in random_sets(found)]
    assert infidelity(found, padded(0.0, 0.0)) == pytest.approx(sum(f * f for f in falls) / len(falls))
    assert infidelity(made(), padded()) is None
    assert infidelity(found, padded(0.1, 0.4), seed=0) != infidelity(found, padded(0.1, 0.4), seed=1)


def test_random_sets_have_every_size_equally_often():
    sets = random_sets(made(*IDS), samples=3000, seed=0)
    for size in range(1, 6):
        assert sum(len(positions) == size for positions in sets) / 3000 == pytest.approx(0.2, abs=0.025)
    assert sum(1 in positions for positions in sets) / 3000 == pytest.approx(0.6, abs=0.03)


def test_max_sensitivity_equals_captums_on_the_same_noise():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    weights = torch.randn(4, generator=generator, dtype=torch.float64)

    def explain(x):  # gradient x input of sum tanh(x w)
        return ((1 - (x @ weights).tanh().square())[..., None] * weights * x).sum(-1)

    noise = (torch.rand(8, 6, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 2 - 1) * 0.1
    wanted = metrics.sensitivity_max(
        lambda x: (explain(x[0]),),
        inputs[None],
        perturb_func=lambda x, radius: (x[0] + noise,),
        n_perturb_samples=8,
        perturb_radius=0.1,
    )
    assert max_sensitivity(explain, inputs, radius=0.1, samples=8, seed=5) == pytest.approx(float(wanted), rel=1e-6)
    assert float(noise.abs().max()) <= 0.1


def test_relative_change_by_hand():
    # ||(3, 4)|| = 5; changes (3, 4) - (3, 4) and (0, 1): 1 / 5
    assert relative_change(torch.tensor([3.0, 4.0]), torch.tensor([[3.0, 4.0], [3.0, 5.0]])) == pytest.approx(0.2)
    assert relative_change(torch.zeros(2), torch.ones(1, 2)) is None
    for scores, moved in ((torch.ones(2), torch.ones(2)), (torch.ones(2), torch.ones(1, 3)), (torch.ones(2), None)):
        moved = torch.full((1, 2), float("nan")) if moved is None else moved
        with pytest.raises(InvalidInputError):
            relative_change(scores, moved)
    with pytest.raises(InvalidInputError, match="radius and samples must be positive"):
        max_sensitivity(lambda x: x, torch.ones(2), radius=0.0)


def test_completeness_gap_by_hand():
    assert completeness_gap(torch.tensor([2.0, -0.5]), 1.0, bias=-0.5) == pytest.approx(0)
    assert completeness_gap(torch.tensor([2.0, -0.5]), 1.0) == pytest.approx(0.5 / 2.5)  # over the sum of |scores|
    assert completeness_gap(torch.tensor([1.0]), -4.0) == pytest.approx(5 / 4)  # over |value|
    assert completeness_gap(torch.zeros(3), 0.0) is None
