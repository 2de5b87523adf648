"""Noise that a head's output cannot see, and noise that it can: the controls of a certificate."""

from __future__ import annotations

import torch
from torch import Tensor

_ZERO = 1e-13  # eigenvalues of a Gram matrix below this share of the largest are rounding in float64
_NOTHING = 1e-6  # what is left of noise of norm one where no direction is invisible
_ROUNDS = 3  # a projection by a Gram matrix is exact to cond^2 * eps; each round squares what is left


@torch.no_grad()
def unit_noise(
    values: Tensor, allowed: Tensor, queries: int, *, generator: torch.Generator, keep_sums: bool = True
) -> tuple[Tensor, Tensor]:
    """Return noise rows of norm one that the output A V cannot see, and noise rows of norm one that it can.

    Both come from one normal draw z over the allowed keys: with the orthogonal projectors P on the column space of
    V and Q on that of [V, 1] (of V, without `keep_sums`), the first is z - z Q, so that (a + noise) V = a V and the
    row's sum stays, and the second z P. Where as many values as keys are independent, no direction is invisible and the
    first is a zero row.

    Args:
        values: (heads, keys, head_dim).
        allowed: (heads, queries or 1, keys) bool.
        queries: rows of each head.
        generator: on the CPU, so that every device sees the same noise.
        keep_sums: the invisible noise also keeps the sum of the row.

    Returns:
        invisible and visible, (heads, queries, keys) float64, zero at keys that are not allowed.

    Example:
        >>> values = torch.randn(1, 6, 2, generator=torch.Generator().manual_seed(0)).double()
        >>> everything = torch.ones(1, 1, 6, dtype=torch.bool)
        >>> unseen, seen = unit_noise(values, everything, 3, generator=torch.Generator().manual_seed(1))
        >>> bool((unseen @ values).abs().max() < 1e-12), bool((seen @ values).norm(dim=-1).min() > 0.1)
        (True, True)
    """
    heads, keys = values.shape[:2]
    draw = torch.randn(heads, queries, keys, generator=generator, dtype=torch.float64).to(values.device)
    invisible, visible = [], []
    for points, mask, noise in zip(values.double(), allowed, draw):  # one head at a time: a Gram matrix for each row
        noise = noise * mask
        points = points.where(mask.any(0)[:, None], torch.zeros_like(points))
        seen = _project(noise, points, mask, _inverse(points, mask))
        size = points.norm(dim=0).amax().clamp_min(1e-300) / keys**0.5
        wider = torch.cat([points / size, torch.ones_like(points[:, :1])], dim=1) if keep_sums else points
        rest, inverse = noise, _inverse(wider, mask)
        for _ in range(_ROUNDS):
            rest = rest - _project(rest, wider, mask, inverse)
        left = rest.norm(dim=-1, keepdim=True) > _NOTHING * noise.norm(dim=-1, keepdim=True)
        invisible.append(_unit(rest * left))
        visible.append(_unit(seen))
    return torch.stack(invisible), torch.stack(visible)


def _inverse(points: Tensor, mask: Tensor) -> Tensor:
    """Return the pseudo-inverse of the Gram matrix of the points (keys, dim) of each mask, (masks, dim, dim)."""
    keys, dim = points.shape
    if len(mask) == 1:
        own = points * mask[0][:, None]
        gram = (own.T @ own)[None]
    else:
        products = (points[:, :, None] * points[:, None, :]).reshape(keys, dim * dim)
        gram = (mask.to(points.dtype) @ products).view(-1, dim, dim)
    sizes, basis = torch.linalg.eigh(gram)
    real = sizes > _ZERO * sizes[:, -1:].clamp_min(1e-300)
    lengths = torch.where(real, 1 / sizes.where(real, torch.ones_like(sizes)), 0.0)
    inverse: Tensor = (basis * lengths[:, None, :]) @ basis.mT
    return inverse


def _project(noise: Tensor, points: Tensor, mask: Tensor, inverse: Tensor) -> Tensor:
    """Return the noise rows (queries, keys) projected on the columns of the points (keys, dim) of their own keys."""
    found: Tensor = ((noise @ points)[:, None, :] @ inverse)[:, 0] @ points.T * mask
    return found


def _unit(rows: Tensor) -> Tensor:
    length: Tensor = rows.norm(dim=-1, keepdim=True)
    return rows / length.where(length > 0, torch.ones_like(length))
