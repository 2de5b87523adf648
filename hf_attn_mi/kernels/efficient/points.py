"""Coordinates of the values for the linear programs: the affine hull, projected to its rank and whitened."""

from __future__ import annotations

import torch
from torch import Tensor


def value_points(values: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return an orthonormal basis of the column space of [V, 1], with its rank.

    Every distribution b over the keys has sum_j b_j v_j = o exactly when it has P^T b = P^T a, because the columns of P
    span those of [V, 1]. The last column of P is constant: P^T b also fixes the sum of b.

    Args:
        values: (heads, keys, head_dim) float64, real keys only.
        epsilon: machine epsilon of the input; singular values of V - mean up to max(n, d) * epsilon times the size of V
            count as zero.

    Returns:
        points (heads, keys, 1 + min(keys, head_dim)), best direction first, constant last, and rank (heads,): the first
        rank - 1 columns and the last one count, see `leading_columns`.
    """
    heads, keys, dim = values.shape
    mean = values.mean(1, keepdim=True)
    basis, sizes, _ = torch.linalg.svd(values - mean, full_matrices=False)
    scale = torch.maximum(sizes[:, 0], mean.norm(dim=(1, 2)) * keys**0.5)
    kept = sizes > max(keys, dim) * epsilon * scale[:, None]
    if keys <= dim:
        kept[:, keys - 1 :] = False  # n centered points span at most n - 1 directions
    constant = values.new_full((heads, keys, 1), keys**-0.5)
    return torch.cat([basis, constant], dim=2), kept.sum(1) + 1


def leading_columns(points: Tensor, rank: int) -> Tensor:
    """Return the columns that count, for heads of equal rank: (heads, keys, rank)."""
    return torch.cat([points[:, :, : rank - 1], points[:, :, -1:]], dim=2).contiguous()


def start_keys(points: Tensor) -> Tensor:
    """Return (heads, rank) keys whose points are independent: QR with column pivoting, the farthest point first.

    Args:
        points: (heads, keys, rank), of full column rank.
    """
    left = points.clone()
    chosen = []
    for _ in range(points.shape[-1]):
        key = left.square().sum(-1).argmax(1)
        direction = left.gather(1, key[:, None, None].expand(-1, 1, left.shape[-1]))
        direction = direction / direction.norm(dim=-1, keepdim=True)
        left = left - (left @ direction.transpose(1, 2)) * direction
        chosen.append(key)
    return torch.stack(chosen, dim=1)


def times_own(rows: Tensor, matrices: Tensor, head: Tensor) -> Tensor:
    """Return each row times the matrix of its head: (rows, a), (heads, a, b), ascending head (rows,) -> (rows, b)."""
    if len(matrices) == 1:
        return rows @ matrices[0]
    sizes = torch.bincount(head, minlength=len(matrices)).tolist()
    return torch.cat([part @ own for part, own in zip(torch.split(rows, sizes), matrices)])
