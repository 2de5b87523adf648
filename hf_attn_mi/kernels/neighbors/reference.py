"""The definition of `neighbor_counts`: the distances of all pairs, in float64."""

from __future__ import annotations

import torch
from torch import Tensor


def reference_neighbor_counts(states: Tensor, labels: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return Ross's m_i, k_i and N_i of each point.

    Points that are alone in their class are left out: they get zeros and are not counted. For the others N_i is
    the size of the class, k_i = min(k, N_i - 1), r_i the distance to the k_i-th nearest other point of the class, and
    m_i the number of points of any class, i among them, that are closer than r_i or at distance zero.

    Args:
        states: (n, d).
        labels: (n,) integers.
        k: neighbors.
    """
    n = len(labels)
    exact = states.double()
    squared = torch.stack([(exact - row).square().sum(1) for row in exact])  # (n, n)
    same = labels[:, None] == labels[None, :]
    sizes = same.sum(1)
    real = sizes > 1
    within, neighbors = torch.zeros(n, dtype=torch.long), torch.zeros(n, dtype=torch.long)
    for i in torch.nonzero(real)[:, 0].tolist():
        others = same[i].clone()
        others[i] = False
        neighbors[i] = min(k, int(sizes[i]) - 1)
        radius = squared[i][others].sort().values[neighbors[i] - 1]
        inside = (squared[i] < radius) | (squared[i] == 0)
        within[i] = (inside & real).sum()
    return within, neighbors, torch.where(real, sizes, 0)
