"""The definition of `class_moments` and of the within-class covariance, in float64."""

from __future__ import annotations

import torch
from torch import Tensor


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
