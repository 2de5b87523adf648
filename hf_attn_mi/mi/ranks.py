"""Kendall's tau-b and Spearman's rho of many vectors at once."""

from __future__ import annotations

import torch
from torch import Tensor


def rank_correlations(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return Kendall's tau-b and Spearman's rho along the last dimension, float64.

    With s_ij = sign(x_i - x_j) and t_ij = sign(y_i - y_j): tau-b = sum s t / sqrt(sum s^2 sum t^2), where ties count
    zero (Kendall 1945). sum_j s_ij is twice the average rank of x_i less n + 1, so that rho is the correlation of the
    row sums: both come from the same signs. Quadratic in the number of entries; tokens of a text are few.

    Args:
        first: (..., n) finite numbers; leading dimensions broadcast.
        second: (..., n).

    Returns:
        tau-b and rho of the broadcast leading shape; NaN where a vector is constant.

    Example:
        >>> tau, rho = rank_correlations(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 3.0, 2.0, 4.0]))
        >>> round(float(tau), 4), round(float(rho), 4)
        (0.6667, 0.8)
    """
    signs, others = (torch.sign(x[..., :, None] - x[..., None, :]) for x in (first.double(), second.double()))
    ranks, other_ranks = signs.sum(-1), others.sum(-1)
    tau = (signs * others).sum((-1, -2)) / (_squares(signs, 2) * _squares(others, 2)).sqrt()
    rho = (ranks * other_ranks).sum(-1) / (_squares(ranks, 1) * _squares(other_ranks, 1)).sqrt()
    return tau, rho


def _squares(numbers: Tensor, dimensions: int) -> Tensor:
    return numbers.square().flatten(-dimensions).sum(-1)
