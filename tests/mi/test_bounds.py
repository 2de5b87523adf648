"""Bounds of mutual information hold on distributions of known information, also where the estimate does not."""

import math
from dataclasses import replace

import pytest
import torch

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.mi import (
    SiteData,
    draw_folds,
    list_predictors,
    mutual_information,
    output_ceiling,
    register_predictor,
    registry,
    unregister_predictor,
)
from hf_attn_mi.mi.bounds import PRIOR_SHARE, site_bounds, upper_bound
from hf_attn_mi.mi.coordinates import balance, site_coordinates
from hf_attn_mi.mi.inputs import entropy, read_classes
from tests.mi.sample_data import shifted_classes, two_classes_information


def annulus(n, d, seed=0):
    """Soft outputs that depend on the distance from the center of two of d directions of equal variance."""
    draw = torch.Generator().manual_seed(seed)
    states = 1.5 * torch.randn(n, d, generator=draw, dtype=torch.float64)
    inside = torch.sigmoid(-6 * (states[:, :2].norm(dim=1) - 1.8))
    return states.float(), torch.stack([inside, 1 - inside], 1)


def site_of(states, outputs, folds=5):
    known = read_classes(outputs, len(states), 0)
    whitened = site_coordinates(balance(states)[0], "components")
    return SiteData(whitened, known.values, known.labels, draw_folds(known.labels, folds, 0), known.soft)


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.5])
def test_the_bounds_hold_on_two_normal_classes(distance):
    truth = two_classes_information(distance)
    for seed in range(3):
        result = mutual_information(*shifted_classes(600, 5, distance, seed=seed), permutations=10)
        assert result.lower_bound <= truth <= result.upper_bound
        assert result.lower_bound <= result.lower_bound_normal <= result.nats + 1e-12
        assert result.lower_bound <= result.nats <= result.ceiling


def test_many_examples_give_a_tight_lower_bound():
    truth = two_classes_information(2.0)
    few, many = (mutual_information(*shifted_classes(n, 4, 2.0), permutations=4).lower_bound for n in (300, 4800))
    assert few < many <= truth
    assert truth - many < 0.06


def test_trees_find_what_linear_scores_and_neighbors_miss():
    states, outputs = annulus(1500, 40)
    truth = output_ceiling(annulus(200_000, 2, seed=1)[1])  # the state determines the output's distribution
    fast, trees = (site_bounds(site_of(states, outputs), effort) for effort in ("fast", "default"))
    assert fast.lower < 0.1
    assert 0.7 * truth < trees.lower <= truth <= upper_bound(outputs)
    assert trees.predictor == "trees"


def test_an_estimate_below_the_lower_bound_is_raised_or_warned_about(monkeypatch):
    """A closed form for Gaussian classes finds nothing in classes that differ in variance only."""
    draw = torch.Generator().manual_seed(0)
    classes = torch.arange(1200) % 2
    states = torch.randn(1200, 2, generator=draw) * (0.2 + 3.0 * classes[:, None])
    gaussian = mutual_information(states, classes, estimator="gaussian", permutations=4)
    assert gaussian.nats < 0.05 < 0.3 < gaussian.lower_bound
    assert "below the lower bound" in gaussian.warnings[-1]
    monkeypatch.setitem(registry._SPECS, "gaussian", replace(registry._SPECS["gaussian"], within_bounds=True))
    raised = mutual_information(states, classes, estimator="gaussian", permutations=4)
    assert raised.parts == ("lower bound",)
    assert raised.nats == raised.lower_bound == gaussian.lower_bound


def test_without_information_nothing_is_proved():
    draw = torch.Generator().manual_seed(0)
    result = mutual_information(torch.randn(500, 10, generator=draw), torch.arange(500) % 3, permutations=4)
    assert result.lower_bound == 0
    assert result.upper_bound == pytest.approx(math.log(3))  # of hard classes, the entropy


def test_the_upper_bound_is_the_formula():
    outputs = torch.rand(400, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    outputs = outputs / outputs.sum(1, keepdim=True)
    others = torch.stack(
        [torch.cat([outputs[:i], outputs[i + 1 :], torch.full((1, 3), 0.5)]).sum(0) for i in range(400)]
    )
    others = others / others.sum(1, keepdim=True)
    divergence = (outputs * (outputs.log() - others.log())).sum(1)
    logarithm, width = math.log(2 / 0.025), -math.log(others.min())
    error = math.sqrt(2 * divergence.var() * logarithm / 400) + 7 * width * logarithm / (3 * 399)
    upper = upper_bound(outputs)
    assert upper == pytest.approx(float(divergence.mean()) + error, rel=1e-12)
    assert upper > float(entropy(outputs.mean(0)) - entropy(outputs).mean())


def test_the_upper_bound_holds_for_many_classes():
    """The entropy of the sample is too small by (K - 1) / 2 n, which Bernstein's inequality alone does not cover."""
    weights = torch.ones(500, dtype=torch.float64)
    weights[:250] = 1.2
    weights = weights / weights.sum()
    for seed in range(5):
        draw = torch.Generator().manual_seed(seed)
        labels = torch.multinomial(weights, 10_000, replacement=True, generator=draw)
        outputs = torch.nn.functional.one_hot(labels, 500).double()
        assert output_ceiling(outputs) < float(entropy(weights)) <= upper_bound(outputs)


def test_outputs_that_are_all_the_same_do_not_prove_that_others_cannot_occur():
    """Outputs (1, 0) in one of 2,000 inputs and (0.5, 0.5) in all others are all the same in most samples of 500."""
    mean = torch.tensor([0.5 + 0.5 / 2000, 0.5 - 0.5 / 2000], dtype=torch.float64)
    truth = float(entropy(mean)) - 1999 / 2000 * math.log(2)
    states = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    result = mutual_information(states, torch.full((500, 2), 0.5), permutations=2)
    assert result.lower_bound == 0 < truth < result.upper_bound < 0.05
    assert "the same for all 500 examples" in result.warnings[0]


def test_a_predictor_from_outside_makes_the_bound_tighter():
    states, outputs = annulus(1200, 30)
    site = site_of(states, outputs)
    before = site_bounds(site, "fast")
    radius = site.whitened.balanced[:, :2].norm(dim=1).double()
    inside = torch.sigmoid(-6 * (states[:, :2].double().norm(dim=1) - 1.8))
    assert torch.corrcoef(torch.stack([radius, inside]))[0, 1] < -0.5  # balanced states are the states, rescaled
    truth = torch.stack([inside, 1 - inside], 1).clamp_min(1e-9).log()
    register_predictor("oracle", lambda site: [truth.log_softmax(1)])
    try:
        assert "oracle" in list_predictors("fast")
        after = site_bounds(site, "fast")
        assert after.predictor == "oracle"
        assert after.lower > before.lower + 0.2
        with pytest.raises(InvalidInputError, match="is a predictor of this name"):
            register_predictor("oracle", lambda site: [truth])
    finally:
        unregister_predictor("oracle")
    with pytest.raises(InvalidInputError, match="'oracle' is not known"):
        unregister_predictor("oracle")


def test_a_predictor_that_returns_no_probabilities_is_refused():
    register_predictor("broken", lambda site: [torch.ones_like(site.outputs)])
    try:
        with pytest.raises(InvalidInputError, match="predictor 'broken' must return"):
            mutual_information(*shifted_classes(100, 3, 1.0), permutations=4)
    finally:
        unregister_predictor("broken")


def test_a_sure_and_wrong_predictor_cannot_ruin_the_bound():
    """The mixture learns on other folds not to use it, and the prior bounds what is left of it."""
    states, labels = shifted_classes(600, 4, 2.0)
    plain = mutual_information(states, labels, permutations=4)
    wrong = torch.nn.functional.one_hot(1 - labels, 2).double().clamp(1e-12, 1 - 1e-12).log()
    register_predictor("wrong", lambda site: [wrong.log_softmax(1)])
    try:
        result = mutual_information(states, labels, permutations=4)
    finally:
        unregister_predictor("wrong")
    assert result.lower_bound == pytest.approx(float(plain.lower_bound), abs=0.02)
    assert PRIOR_SHARE > 0


@pytest.mark.parametrize("effort", ["slow", None, 3])
def test_an_unknown_effort_is_refused(effort):
    with pytest.raises(InvalidInputError, match=r"effort is .*'fast', 'default', 'thorough'"):
        mutual_information(*shifted_classes(100, 3, 1.0), effort=effort)


def test_vector_outputs_have_a_lower_bound_alone():
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(1000, 3, generator=draw)
    result = mutual_information(states, states[:, :1].double(), noise=1.0, permutations=4)
    assert 0 < result.lower_bound <= math.log(2) / 2
    assert result.upper_bound.isnan()
    assert result.predictors[0]
