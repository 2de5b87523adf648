"""Inner products of class means in the within-class metric from those in the metric of all states, without bias."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_EXPLAINED = 0.9999  # of a direction's variance by the class: more is rounding, of classes that are wholly apart


def debiased_separation(total: Tensor, second: Tensor, share: Tensor, examples: Tensor, d: int) -> Tensor:
    """Return (fits, K, K) what `kernels.class_separation` returns, from K x K matrices alone.

    Soft outputs P are regressed on: x = sum_k P_ik beta_k + residual. The metric of the residual follows from that of
    all states by Woodbury's identity; inverse Wishart and the noise of the slopes are taken off; then slopes are turned
    to class means and the metric within classes. For hard labels slopes are class means.

    Args:
        total: (fits, K, K) products c_k^T S^-1 c_l, c_k = mean of P_ik (x_i - mean), S the covariance of all states.
        second: (fits, K, K) mean of P_ik P_il.
        share: (fits, K) mean of P_ik.
        examples: (fits,).
        d: features.
    """
    classes = share.shape[1]
    identity = torch.eye(classes, dtype=torch.float64)
    second = second + 1e-9 * identity
    values, vectors = torch.linalg.eigh(second)
    root = (vectors * values.clamp_min(1e-9).sqrt()[:, None]) @ vectors.transpose(1, 2)
    inverse = (vectors / values.clamp_min(1e-9)[:, None]) @ vectors.transpose(1, 2)
    free, n = (examples - classes)[:, None, None], examples[:, None, None]
    unroot = inverse @ root
    explained, axes = torch.linalg.eigh(_symmetric(unroot @ total @ unroot))  # squared canonical correlations
    explained = explained.clamp(0, MOST_EXPLAINED)
    residual = unroot @ (axes * (explained / (1 - explained))[:, None]) @ axes.transpose(1, 2) @ unroot * (free / n)
    residual = residual * ((free - d - 1) / free) - d * inverse / n
    centring = identity - share[:, None, :]
    residual = centring @ residual @ centring.transpose(1, 2)
    there = share > 0
    given = torch.where(there[..., None], second / share[..., None], 0)  # mean outputs given each class
    spread = second - given.transpose(1, 2) @ (share[..., None] * given)
    found = given @ residual @ torch.linalg.inv(identity + spread @ residual) @ given.transpose(1, 2)
    found = centring @ _symmetric(found) @ centring.transpose(1, 2)
    return found * there[..., :, None] * there[..., None, :]


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.transpose(-1, -2)) / 2
