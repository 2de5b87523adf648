"""Coordinates of states: whitened components and ranks."""

import torch

from hf_attn_mi.mi.coordinates import balance, principal_components, rank_normal

from .sample_data import shifted_classes


def test_whitened_components_are_uncorrelated_and_drop_what_is_constant():
    states, _ = shifted_classes(500, 20, 1.0)
    states[:, 3] = 7.1
    states[:, 4] = states[:, 5] * 2 + 1
    found = principal_components(balance(states)[0])
    assert found.rank == 18
    torch.testing.assert_close(found.points.T @ found.points / 500, torch.eye(18), atol=1e-3, rtol=0)


def test_rank_normal_shares_ranks_of_ties():
    found = rank_normal(torch.tensor([[1.0], [5.0], [5.0], [9.0]]))
    expected = torch.special.ndtri(torch.tensor([[0.5], [2.0], [2.0], [3.5]]) / 4)
    torch.testing.assert_close(found, expected)
