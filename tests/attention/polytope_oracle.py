"""The polytope of equivalent rows by SciPy's HiGHS, from its definition: no coordinates, no bases."""

import numpy as np
import torch
from scipy.optimize import linprog, nnls

TIGHT = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


def constraints(row, values):
    """Return M and m with M b = m exactly for the distributions b that have the row's output."""
    matrix = np.vstack([np.asarray(values, dtype=float).T, np.ones(len(values))])
    row = np.asarray(row, dtype=float)
    return matrix, matrix @ (row / row.sum())


def best_row(row, values, cost=None):
    """Return the vertex with the largest cost . b (by default the row's own weights)."""
    cost = np.asarray(row if cost is None else cost, dtype=float)
    matrix, target = constraints(row, values)
    answer = linprog(-cost / abs(cost).max(), A_eq=matrix, b_eq=target, bounds=(0, None), method="highs", options=TIGHT)
    assert answer.status == 0, answer.message
    return torch.tensor(answer.x)


def distance_without(row, values, kept):
    """Return how near distributions on the kept keys come to the row's output."""
    matrix, target = constraints(row, values)
    return nnls(matrix[:, kept], target)[1]


def heads(*shape, keys, head_dim, seed=0, sharpness=2.0, dtype=torch.float64):
    """Return random attention (*shape, keys) and values (*shape[:-1], keys, head_dim)."""
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(*shape, keys, generator=generator, dtype=torch.float64)
    values = torch.randn(*shape[:-1], keys, head_dim, generator=generator, dtype=torch.float64)
    return logits.softmax(-1).to(dtype), values.to(dtype)
