"""Discrete coordinates taken one by one, against exact information, chance, and scipy's test of independence."""

import pytest
import torch
from scipy.stats import chi2_contingency

from hf_attn_mi.mi import SiteData, mutual_information
from hf_attn_mi.mi.coordinates import balance, principal_components
from hf_attn_mi.mi.discrete import CHANCE, _evidence, discrete_information
from hf_attn_mi.mi.folds import draw_folds, jackknife_error

VALUES, CLASSES = 6, 3


def symbols(n, d, strength, *, seed=0):
    """States of six values, two coordinates of which depend on the class; and the exact information."""
    draw = torch.Generator().manual_seed(seed)
    tables = (torch.randn(2, CLASSES, VALUES, generator=draw, dtype=torch.float64) * strength).softmax(-1)
    labels = torch.randint(CLASSES, (n,), generator=draw)
    states = torch.randint(VALUES, (n, d), generator=draw).float()
    for place, table in zip((1, d - 2), tables):
        states[:, place] = torch.multinomial(table[labels], 1, generator=draw)[:, 0].float()
    joint = torch.einsum("ka,kb->kab", *tables).flatten(1) / CLASSES  # (K, cells)
    entropy = [-torch.special.xlogy(p, p).sum() for p in (joint, joint.sum(0), joint.sum(1))]
    return states, labels, float(entropy[1] + entropy[2] - entropy[0])


def site_of(states, labels):
    probabilities = torch.nn.functional.one_hot(labels).double()
    return SiteData(principal_components(balance(states)[0]), probabilities, labels, draw_folds(labels, 10, 0), False)


@pytest.mark.parametrize("strength", [0.5, 1.5, 3.0])
def test_a_few_of_many_coordinates_are_found_and_never_overrated(strength):
    above = []
    for seed in range(4):
        states, labels, truth = symbols(2000, 150, strength, seed=seed)
        found = discrete_information(site_of(states, labels))
        error = float(jackknife_error(found.left_out))
        assert truth - 0.03 - 2.5 * error - found.missing <= found.value <= truth + 2.5 * error
        above.append(found.value - truth)
    assert sum(above) / 4 < 0.01


def test_auto_rests_on_them_and_covers_the_truth():
    states, labels, truth = symbols(2000, 300, 1.5)
    found = mutual_information(states, labels, permutations=9)
    assert found.parts == ("discrete",)
    assert float(found.nats) == pytest.approx(truth, abs=0.05)
    assert float(found.interval[0]) <= truth <= float(found.interval[1])
    assert float(mutual_information(states, labels, estimator="gaussian", permutations=9).nats) < truth - 0.1


def test_nothing_comes_of_unrelated_coordinates():
    values = []
    for seed in range(12):
        draw = torch.Generator().manual_seed(seed)
        states = torch.poisson(torch.full((600, 80), 2.0), generator=draw)
        found = discrete_information(site_of(states, torch.randint(CLASSES, (600,), generator=draw)))
        values.append(0.0 if found is None else found.value)
    assert values.count(0.0) >= 4  # of ten left-out tables none may choose one of 80 coordinates by chance
    assert max(values) < 0.01


def test_only_states_of_few_values_are_looked_at():
    states, labels, _ = symbols(400, 20, 1.5)
    states[:, 7] = torch.randn(400, generator=torch.Generator().manual_seed(0))
    assert discrete_information(site_of(states, labels)) is None


def test_coordinates_are_chosen_by_the_likelihood_ratio_test():
    draw = torch.Generator().manual_seed(0)
    rates = 1 + 0.5 * torch.rand(200, 5, 4, generator=draw)  # from clearly dependent to hardly
    tables = torch.poisson(100 * rates, generator=draw).double()
    chance = [chi2_contingency(t.numpy(), lambda_="log-likelihood", correction=False).pvalue for t in tables]
    _, kept, lost = _evidence(tables)
    level = CHANCE / len(tables)
    sure = {i for i, p in enumerate(chance) if p < 0.9 * level}
    maybe = {i for i, p in enumerate(chance) if p < 1.1 * level}  # Wilson and Hilferty's cube root is not exact
    assert sure <= set(kept.tolist()) <= maybe
    assert 10 < len(sure) < 190
    assert lost == pytest.approx(sum(12 / (2 * float(tables[i].sum())) for i in kept.tolist()))
