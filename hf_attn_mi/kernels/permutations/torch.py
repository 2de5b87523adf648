"""Statistics of permuted classes in PyTorch: matrix products, and the largest entries of tiles of proximities."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from hf_attn_mi.kernels.products import product

TILE_ELEMENTS = 2**18  # distances held at a time: 1 MB, which fits the cache of a core


def sum_torch(points: Tensor, members: Tensor, ends: list[int]) -> Tensor:
    """Return (orders, K, d) sums: a product with zeros and ones."""
    orders, n = members.shape
    classes = len(ends) - 1
    sizes = torch.tensor(ends, device=points.device).diff()
    code = torch.repeat_interleave(torch.arange(classes, device=points.device), sizes)
    ones = points.new_zeros(orders, classes, n)
    ones[torch.arange(orders, device=points.device)[:, None], code, members.long()] = 1
    return product(ones.flatten(0, 1), points).view(orders, classes, -1)


def agree_torch(points: Tensor, labels: Tensor, k: int) -> Tensor:
    """Return (orders,) numbers of pairs."""
    same = torch.zeros_like(labels)  # at most k for each point
    for neighbor in _nearest(points, k).T:
        same += labels.index_select(0, neighbor) == labels
    return same.sum(0, dtype=torch.long)


def _nearest(points: Tensor, k: int) -> Tensor:
    """Return (n, k) the nearest other points."""
    count, squares, nearest = min(k, len(points) - 1), points.square().sum(1), []
    for start, tile in tiles(points):
        proximity = torch.sub(tile, squares, alpha=0.5, out=tile)
        proximity.diagonal(offset=start).fill_(-torch.inf)
        nearest.append(proximity.topk(count, dim=1, sorted=False).indices)
    return torch.cat(nearest)


def tiles(points: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield the first row of each tile and its (rows, n) products x_i x_j. Every tile has the same memory."""
    step = max(16, TILE_ELEMENTS // len(points))
    memory = points.new_empty(min(step, len(points)), len(points))
    for start in range(0, len(points), step):
        rows = points[start : start + step]
        yield start, torch.mm(rows, points.T, out=memory[: len(rows)])
