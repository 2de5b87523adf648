"""The definition of `mixture_information`, in float64."""

from __future__ import annotations

import torch
from torch import Tensor


def reference_mixture_information(
    means: Tensor, covariance: Tensor, share: Tensor, states: Tensor, labels: Tensor
) -> Tensor:
    """Return (n,) log p(x | class) - log p(x) of states drawn from the mixture; its mean is the information, nats.

    p(x | k) is the density of N(mu_k, S), p(x) = sum_k p_k p(x | k).

    Args:
        means: (K, d) mu.
        covariance: (d, d) S.
        share: (K,) p.
        states: (n, d) draws from the mixture.
        labels: (n,) the component of each draw.
    """
    root = torch.linalg.cholesky(covariance.double())
    whitened = torch.linalg.solve_triangular(root, torch.cat([states, means]).double().T, upper=False).T
    squared = torch.cdist(whitened[: len(states)], whitened[len(states) :]).square()
    log_posterior = (share.double().log() - squared / 2).log_softmax(1)
    return log_posterior.gather(1, labels[:, None])[:, 0] - share.double().log()[labels]
