"""The definition of `efficient_rows`: the best of all vertices of the polytope, in float64."""

from __future__ import annotations

import torch
from torch import Tensor


def reference_efficient_rows(attention: Tensor, values: Tensor) -> Tensor:
    """Return for each row a the distribution e = argmax c . b over F(a), (heads, queries, keys) float64.

    F(a) = {b >= 0 : sum_j b_j v_j = sum_j a_j v_j, sum_j b_j = 1}, c_j = a_j / max a - 1e-7 t_j with t rising from 0 to
    1 over the keys, so that ties prefer low key numbers. A linear program has its optimum at a vertex: a point of F(a)
    whose keys have affinely independent values. Here every set of r keys is tried, r the rank of [V, 1].

    Args:
        attention: (heads, queries, keys), rows that sum to one; few keys, as there are n over r sets.
        values: (heads, keys, head_dim), the same rank in every head.

    Example:
        >>> rows = reference_efficient_rows(torch.full((1, 1, 4), 0.25), torch.tensor([[[0.0], [1.0], [2.0], [3.0]]]))
        >>> int((rows > 0).sum())
        2
    """
    rows, exact = attention.double(), values.double()
    keys = rows.shape[2]
    points = torch.cat([exact, torch.ones_like(exact[..., :1])], 2)
    sets = torch.combinations(torch.arange(keys), int(torch.linalg.matrix_rank(points[0])))  # (sets, r)
    number = torch.arange(keys, dtype=torch.float64)
    rising = (number + (number * 0.6180339887498949).frac()) / keys
    efficient = torch.zeros_like(rows)
    for h in range(len(rows)):
        basis = points[h, sets].transpose(1, 2)  # (sets, head_dim + 1, r)
        inverse = torch.linalg.pinv(basis)
        independent = torch.linalg.matrix_rank(basis) == sets.shape[1]
        for i, row in enumerate(rows[h]):
            output = row @ points[h]
            weights = (inverse @ output[:, None])[..., 0]
            residual = ((basis @ weights[..., None])[..., 0] - output).norm(dim=1)
            feasible = independent & (weights >= -1e-9).all(1) & (residual <= 1e-9 * output.norm())
            gain = ((row / row.max() - 1e-7 * rising)[sets] * weights).sum(1)
            best = int(gain.masked_fill(~feasible, -torch.inf).argmax())
            efficient[h, i, sets[best]] = weights[best].clamp_min(0)
    return efficient
