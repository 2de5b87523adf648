"""A probe of boosted trees reads what a linear one cannot, and shows where a reliable order is wrong."""

import pytest
import torch

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation import rank_agreement
from hf_attn_mi.mi import fit_boosted_probe, fit_probe

LINEAR, PRODUCT = 1.5, 3.0


def draw(n, rng, *, product=PRODUCT):
    states = torch.randn(n, 6, generator=rng)
    log_odds = LINEAR * states[:, 0] + product * states[:, 1].tanh() * states[:, 2].tanh()
    return states, torch.stack([torch.sigmoid(log_odds), torch.sigmoid(-log_odds)], 1).double()


def divergence(probe, states):
    log_q = probe.log_posterior(states).double()
    return (log_q.exp() * (log_q - probe.prior.log())).sum(-1)


def agreement(product, bootstrap=200):
    """Agreement of the truth, in the place of attention, with a linear and a boosted probe on 40 texts of 20 tokens."""
    rng = torch.Generator().manual_seed(0)
    states, outputs = draw(1200, rng, product=product)
    halves = [fit_probe(states[part], outputs[part]) for part in (slice(0, 600), slice(600, None))]
    linear, boosted = fit_probe(states, outputs), fit_boosted_probe(states, outputs)
    texts = [draw(20, rng, product=product) for _ in range(40)]
    prior = outputs.mean(0)
    return rank_agreement(
        [(p * (p / prior).log()).sum(1) for _, p in texts],
        [divergence(linear, h) for h, _ in texts],
        halves=[torch.stack([divergence(probe, h) for probe in halves]) for h, _ in texts],
        other=[boosted.information(h) for h, _ in texts],
        bootstrap=bootstrap,
    )


def test_a_reliable_order_can_be_wrong_and_the_second_probe_says_so():
    found = agreement(PRODUCT)
    assert found.reliability.index > 0.95
    assert found.overall.rho < 0.6 < found.other.rho
    assert found.probes.rho_interval[1] < found.reliability.full
    assert "is no limit of the agreement with the true information" in found.warnings[-1]
    rows = {row[0]: row[1:] for row in found.table()}
    assert rows["first probe with second"][2].startswith(f"{found.probes.rho:+.3f}")


def test_where_the_linear_probe_is_right_the_reliability_holds():
    found = agreement(0.0)
    assert found.overall.rho > 0.95
    assert found.probes.rho > 0.8


def test_information_is_the_divergence_from_the_prior():
    rng = torch.Generator().manual_seed(1)
    states, outputs = draw(400, rng)
    probe = fit_boosted_probe(states, outputs)
    assert torch.allclose(probe.information(states), divergence(probe, states))
    assert bool((probe.information(states) >= 0).all())
    stacked = probe.log_posterior(states.view(2, 200, 6))
    assert torch.equal(stacked.view(400, 2), probe.log_posterior(states))
    classes = torch.where(outputs[:, 0] > 0.5, 0, 2)  # class 1 does not occur
    assert bool(fit_boosted_probe(states, classes).log_posterior(states)[:, 1].isneginf().all())


def test_unusable_arguments_are_refused():
    states, outputs = draw(100, torch.Generator().manual_seed(1))
    with pytest.raises(InvalidInputError, match="of one site"):
        fit_boosted_probe(states.view(2, 50, 6), outputs[:50])
    with pytest.raises(InvalidInputError, match="NaN"):
        fit_boosted_probe(states / 0, outputs)
    text = torch.arange(5.0)
    with pytest.raises(InvalidInputError, match="other"):
        rank_agreement([text], [text], other=[text, text])
    with pytest.raises(InvalidInputError, match="other"):
        rank_agreement([text], [text], other=[text[:4]])
