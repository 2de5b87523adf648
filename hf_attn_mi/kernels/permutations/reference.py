"""The definitions of `permuted_sums` and `agreeing_neighbors`, in float64, one order after the other."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor


def reference_permuted_sums(points: Tensor, members: Tensor, ends: list[int]) -> Tensor:
    """Return (orders, K, d) float64: the sum of the points of each class in each order.

    Args:
        points: (n, d).
        members: (orders, n) indices of examples, class after class.
        ends: (K + 1,) class c has the places from ends[c] to ends[c + 1].
    """
    return torch.stack(
        [
            torch.stack([points[row[first:last].long()].double().sum(0) for first, last in pairwise(ends)])
            for row in members
        ]
    )


def reference_agreeing_neighbors(points: Tensor, labels: Tensor, k: int) -> Tensor:
    """Return (orders,) the number of pairs of a point and one of its k nearest other points that have the same class.

    Args:
        points: (n, d).
        labels: (n, orders) classes.
        k: neighbors.
    """
    exact = points.double()
    total = torch.zeros(labels.shape[1], dtype=torch.long)
    for i, point in enumerate(exact):
        distance = (exact - point).square().sum(1)
        distance[i] = torch.inf
        for j in distance.sort().indices[: min(k, len(points) - 1)].tolist():
            total += labels[i] == labels[j]
    return total
