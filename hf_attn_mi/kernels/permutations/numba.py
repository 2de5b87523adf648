"""Statistics of permuted classes in numba (extra `fast`): sums of rows in place of products with zeros and ones."""

# mypy: ignore-errors
# The arrays' types are what the caller passes: annotations would say nothing that numba reads.

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from hf_attn_mi.kernels.permutations.torch import tiles

OPTIONS = {"error_model": "numpy", "nogil": True}
ELEMENTS = 2**17  # of a block of points: 512 KB, which stays in the second cache


def sum_numba(points: Tensor, members: Tensor, ends: list[int]) -> Tensor:
    """Return (orders, K, d) sums, of tensors on the CPU: those of the largest class are what the others leave."""
    limits, rows = np.array(ends), np.ascontiguousarray(points.numpy())
    sums = torch.zeros(len(members), len(ends) - 1, points.shape[1])
    largest = int(np.diff(limits).argmax())
    step = max(8, ELEMENTS // points.shape[1])
    _add_rows(rows, members.numpy().view(np.uint32), limits, largest, step, np.empty(sums.shape[:2], int), sums.numpy())
    sums[:, largest] = points.sum(0) - sums.sum(1)
    return sums


def agree_numba(points: Tensor, labels: Tensor, k: int) -> Tensor:
    """Return (orders,) numbers of pairs, of tensors on the CPU."""
    total = torch.zeros(labels.shape[1], dtype=torch.long)
    count = min(k, len(points) - 1)
    values, indices = np.empty(count, np.float32), np.empty(count, np.int64)
    halves = points.square().sum(1).div_(2).numpy()
    for start, tile in tiles(points):
        _count_agreeing(tile.numpy(), halves, start, labels.numpy(), values, indices, total.numpy())
    return total


def _compiled(function):
    """Return the function compiled, and kept on disk from one process to the next where a folder can be written."""
    try:
        return njit(cache=True, **OPTIONS)(function)
    except RuntimeError:
        return njit(**OPTIONS)(function)


@_compiled
def _add_rows(points, members, ends, largest, step, places, sums):
    """Add the points of each class to its sum in each order, but for the largest class.

    Args:
        points: (n, d) float32.
        members: (orders, n) uint32, ascending within a class: an index that may be negative costs a comparison.
        ends: (K + 1,) class c has the places from ends[c] to ends[c + 1].
        largest: the class that is left out.
        step: points that are added at a time, in all orders.
        places: (orders, K) int64, written to.
        sums: (orders, K, d) float32, out.
    """
    orders, n = members.shape
    classes = len(ends) - 1
    for b in range(orders):
        for c in range(classes):
            places[b, c] = ends[c]
    for last in range(step, n + step, step):
        for b in range(orders):
            row = members[b]
            for c in range(classes):
                if c == largest:
                    continue
                place, stop, total = places[b, c], ends[c + 1], sums[b, c]
                while place + 7 < stop and row[place + 7] < last:
                    p0, p1 = points[row[place]], points[row[place + 1]]
                    p2, p3 = points[row[place + 2]], points[row[place + 3]]
                    p4, p5 = points[row[place + 4]], points[row[place + 5]]
                    p6, p7 = points[row[place + 6]], points[row[place + 7]]
                    for q in range(len(total)):
                        total[q] += ((p0[q] + p1[q]) + (p2[q] + p3[q])) + ((p4[q] + p5[q]) + (p6[q] + p7[q]))
                    place += 8
                while place < stop and row[place] < last:
                    first = points[row[place]]
                    for q in range(len(total)):
                        total[q] += first[q]
                    place += 1
                places[b, c] = place


@_compiled
def _count_agreeing(tile, halves, start, labels, values, indices, total):
    """Add to the total of each order the pairs of a row and one of its nearest columns that have the same class.

    Args:
        tile: (rows, n) products of points, written to.
        halves: (n,) half of their squared norms.
        start: the point of the first row.
        labels: (n, orders).
        values, indices: (k,) float32 and int64, written to.
        total: (orders,) int64, out.
    """
    count, orders = len(values), labels.shape[1]
    same = np.zeros(orders, np.int32)
    for i in range(len(tile)):
        values[:] = -np.inf
        least = values[count - 1]
        row = tile[i]
        for j in range(len(row)):
            row[j] -= halves[j]  # larger is nearer
        row[start + i] = -np.inf
        for j in range(len(row)):
            if row[j] > least:
                place = count - 1
                while place > 0 and values[place - 1] < row[j]:
                    values[place], indices[place] = values[place - 1], indices[place - 1]
                    place -= 1
                values[place], indices[place] = row[j], j
                least = values[count - 1]
        own = labels[start + i]
        for place in range(count):
            other = labels[indices[place]]
            for b in range(orders):
                same[b] += own[b] == other[b]
    for b in range(orders):
        total[b] += same[b]
