"""One-to-one changes of coordinates that bring a site's states closer to what the estimators expect."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_attn_mi.mi.principal import balance

HEAVY = 4.0  # fourth moment of a standardized coordinate: 3 for a normal one, 6 for a Laplacian
FEW_VALUES = 8  # distinct values of every coordinate: discrete states
MOST_OF_N = 0.5  # features for one example


def tame(balanced: Tensor) -> Tensor:
    """Return balanced states (n, d) in other coordinates that carry the same information.

    Coordinates with heavy tails (median fourth moment above 4) are replaced by the normal quantiles of their ranks: a
    discriminant is not robust, and ranks are one to one. Where every coordinate takes few values, squares are added:
    what a class does to the middle one of three values shows in no mean.
    """
    n, d = balanced.shape
    squares = balanced.square()
    if 2 * d <= MOST_OF_N * n and _few_values(balanced):
        return balance(torch.cat([balanced, squares], 1))[0]
    variance = squares.mean(0)
    fourth = squares.square_().mean(0) / variance.square().clamp_min(1e-30)
    if float(fourth[variance > 0].median() if bool((variance > 0).any()) else 0) > HEAVY:
        return rank_normal(balanced) * variance.sqrt()
    return balanced


def rank_normal(states: Tensor) -> Tensor:
    """Return the normal quantile of each entry's rank within its column; equal entries share their mean rank."""
    n = len(states)
    values, order = states.sort(0)
    place = torch.arange(n, dtype=torch.float64)[:, None].expand(values.shape)
    fresh = torch.ones_like(values, dtype=torch.bool)
    fresh[1:] = values[1:] > values[:-1]
    first = torch.where(fresh, place, 0).cummax(0).values
    last = torch.ones_like(fresh)
    last[:-1] = fresh[1:]
    final = torch.where(last, place, n - 1.0).flip(0).cummin(0).values.flip(0)
    mean_rank = torch.empty_like(first).scatter_(0, order, (first + final) / 2)
    quantiles: Tensor = torch.special.ndtri((mean_rank + 0.5) / n)
    return quantiles.to(states.dtype)


def _few_values(states: Tensor) -> bool:
    """Whether every coordinate takes at most eight values, judged by the first rows before all of them."""
    for rows in (states[:50], states):
        changes = rows.sort(0).values.diff(dim=0) != 0
        if int(changes.sum(0).max()) >= FEW_VALUES:
            return False
    return True
