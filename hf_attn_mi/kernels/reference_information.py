"""Neighbor counts and class moments by their definitions, in float64 and with everything in memory: the specification.

Slow on purpose. The fast versions are tested against these; nothing else calls them.
"""

from __future__ import annotations

import torch
from torch import Tensor


def reference_neighbor_counts(states: Tensor, labels: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return Ross's m_i, k_i and N_i of each point, by the distances of all pairs.

    Points that are alone in their class do not exist: they get zeros and nobody counts them. For the others N_i is
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


def reference_class_moments(
    states: Tensor, probabilities: Tensor, fold_of: Tensor, folds: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return, per fold, soft class counts, second moments of the outputs, class sums and Gram matrices.

    Args:
        states: (n, d), centered by their mean over all n here.
        probabilities: (n, K).
        fold_of: (n,) the fold of each example.
        folds: how many there are.

    Returns:
        (folds, K), (folds, K, K), (folds, K, d) and (folds, d, d), float64.
    """
    centered = states.double() - states.double().mean(0)
    outputs = probabilities.double()
    parts = [(centered[fold_of == fold], outputs[fold_of == fold]) for fold in range(folds)]
    return (
        torch.stack([p.sum(0) for _, p in parts]),
        torch.stack([p.T @ p for _, p in parts]),
        torch.stack([p.T @ x for x, p in parts]),
        torch.stack([x.T @ x for x, _ in parts]),
    )


def reference_within_covariance(states: Tensor, probabilities: Tensor) -> Tensor:
    """Return (d, d) sum_ic P_ic (x_i - mu_c)(x_i - mu_c)^T / n, by the definition, float64."""
    exact, outputs = states.double(), probabilities.double()
    weights = outputs.sum(0)
    total = torch.zeros(states.shape[1], states.shape[1], dtype=torch.float64)
    for c in torch.nonzero(weights)[:, 0].tolist():
        apart = exact - (outputs[:, c] @ exact) / weights[c]
        total += (apart * outputs[:, c, None]).T @ apart
    return total / len(states)
