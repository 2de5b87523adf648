"""The calibrated probe against the true posterior of new states."""

import pytest
import torch

from hf_attn_mi.mi import fit_probe

from .sample_data import shifted_classes


@pytest.mark.parametrize("soft", [False, True])
def test_probe_knows_the_posterior_of_new_states(soft):
    draw = torch.Generator().manual_seed(0)
    means = torch.randn(3, 10, generator=draw)

    def sample(n):
        labels = torch.randint(3, (n,), generator=draw)
        states = means[labels] + torch.randn(n, 10, generator=draw)
        return states, labels, (states @ means.T - means.square().sum(1) / 2).softmax(1)

    states, labels, posterior = sample(4000)
    probe = fit_probe(torch.stack([states, states * 3 + 1]), posterior if soft else labels)
    fresh, _, true = sample(1000)
    found = probe.log_posterior(torch.stack([fresh, fresh * 3 + 1]))
    divergence = (true * (true.log() - found)).sum(-1).mean(-1)
    assert float(divergence.max()) < (0.002 if soft else 0.01)
    torch.testing.assert_close(found[0], found[1], atol=1e-3, rtol=1e-3)
    assert probe.prior.tolist() == pytest.approx(
        (posterior if soft else torch.nn.functional.one_hot(labels)).double().mean(0).tolist()
    )


def test_probe_keeps_the_places_of_classes_that_never_came():
    states, labels = shifted_classes(200, 4, 2.0)
    probe = fit_probe(states, labels * 2)
    assert probe.directions.shape == (3, 4)
    assert probe.log_posterior(states)[:, 1].max() == -torch.inf
    constant = fit_probe(torch.ones(200, 4), labels)
    torch.testing.assert_close(
        constant.log_posterior(torch.zeros(1, 4))[0].double(), constant.prior.log(), atol=1e-6, rtol=0
    )
