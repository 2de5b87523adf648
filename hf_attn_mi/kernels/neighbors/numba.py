"""Neighbor counts in numba (extra `fast`): a row of distances that stays in the core's cache is written and read once.

In up to four dimensions distances are computed in float64 from differences, as the definition says. In more dimensions
a tile of float32 products is scanned, and what its error bound cannot decide is decided in float64, as in PyTorch.
"""

# mypy: ignore-errors
# The arrays' types are what the caller passes: annotations would say nothing that numba reads.

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from numba import njit
from torch import Tensor

from hf_attn_mi.kernels.neighbors import torch as torch_backend
from hf_attn_mi.kernels.neighbors.torch import (
    DEDUPLICATE_FROM,
    Points,
    Writer,
    count_sites,
    rounding_bound,
    tile_counter,
)

OPTIONS = {"error_model": "numpy", "nogil": True}  # no fast math: equal differences must give equal distances
DIRECT = 4  # dimensions up to which distances are computed one by one: in more, a matrix product is faster


def _compiled(function):
    """Return the function compiled, and kept on disk from one process to the next where a folder can be written."""
    try:
        return njit(cache=True, **OPTIONS)(function)
    except RuntimeError:
        return njit(**OPTIONS)(function)


def count_numba(states: Tensor, codes: Tensor, ranks: Tensor) -> Tensor:
    """Return (sites, n) counts m_i, of tensors on the CPU.

    Args:
        states: (sites, n, d).
        codes: (n,) classes 0 ... K - 1.
        ranks: (K,) k_i of each class; 0: the class does not exist.
    """
    return count_sites(states, codes, ranks, _direct_counter if states.shape[2] <= DIRECT else _tile_counter)


def _direct_counter(points: Points, ends: list[int], ranks: list[int], tile_rows: int) -> Writer:
    """Return a function that writes the counts of some rows, from distances. See `count_sites`."""
    n, d = points.states.shape
    across = np.zeros((DIRECT, n))
    across[:d] = (points.states.double() * points.scale).T.numpy()
    limits, wanted = np.array(ends), np.array(ranks)

    def write(start: int, stop: int, counts: Tensor) -> None:
        _count_direct(across, limits, wanted, start, stop, counts.numpy())

    return write


def _tile_counter(points: Points, ends: list[int], ranks: list[int], tile_rows: int) -> Writer:
    """Return a function that writes the counts of some rows, from a tile of products. See `count_sites`."""
    memory, exact = points.tile_memory(tile_rows), points.states.double() * points.scale
    limits, wanted = np.array(ends), np.array(ranks)
    squares, norms = points.squares.numpy(), points.norms.numpy()

    def write(start: int, stop: int, counts: Tensor) -> None:
        tile = points.products(start, stop, memory).numpy()
        most = DEDUPLICATE_FROM * len(exact)
        arrays = (tile, squares, norms, exact.numpy(), start, limits, wanted)
        if not _count_tile(*arrays, points.rounding, most, counts.numpy()):
            tile_counter(points, ends, ranks, tile_rows)(start, stop, counts)

    return write


@_compiled
def _count_direct(across, ends, ranks, start, stop, counts):
    """Write the counts of the points from start to stop.

    Args:
        across: (DIRECT, n) float64.
        ends: (K + 1,) class c has the points from ends[c] to ends[c + 1].
        ranks: (K,) neighbors.
        start, stop: the points.
        counts: (n,) int64, out.
    """
    n = across.shape[1]
    squared, nearest = np.empty(n), np.empty(ranks.max())
    first, second, third, fourth = across[0], across[1], across[2], across[3]
    for c in range(len(ranks)):
        low, high, rank = ends[c], ends[c + 1], ranks[c]
        for i in range(max(low, start), min(high, stop)):
            w, x, y, z = first[i], second[i], third[i], fourth[i]
            for j in range(n):
                p, q, r, s = first[j] - w, second[j] - x, third[j] - y, fourth[j] - z
                squared[j] = (p * p + q * q) + (r * r + s * s)
            squared[i] = np.inf
            nearest[:rank] = np.inf
            radius = np.inf
            for distance in squared[low:high]:
                if distance < radius:
                    place = rank - 1
                    while place > 0 and nearest[place - 1] > distance:
                        nearest[place] = nearest[place - 1]
                        place -= 1
                    nearest[place] = distance
                    radius = nearest[rank - 1]
            inside = 1
            if radius > 0:
                for j in range(n):
                    inside += squared[j] < radius
            else:
                for j in range(n):
                    inside += squared[j] == 0
            counts[i] = inside


def _compile_tile(stamp: int):
    """Return the compiled count of a tile.

    Numba's cache knows a function by its own file and its closure, not by the other files it calls: `stamp` stands for
    these.
    """
    bound = njit(**OPTIONS)(rounding_bound)

    def count_tile(tile, squares, norms, exact, start, ends, ranks, rounding, most, counts):
        """Write the counts of the points of a tile; return False where too much is undecided: they are not to be used.

        What lies more than twice the error bound inside or outside of the radius is decided. Where anything else but
        the k-th neighbor lies between, or the radius may be zero, distances between are computed from differences.

        Args:
            tile: (rows, n) products of points, written to.
            squares: (n,) squared norms, of the type of the tile.
            norms: (n,) float64.
            exact: (n, d) the points, float64.
            start: the point of the first row.
            ends: (K + 1,) class c has the points from ends[c] to ends[c + 1].
            ranks: (K,) neighbors.
            rounding: see `Points.rounding`.
            most: pairs of points that are undecided, at most.
            counts: (points,) int64, out.
        """
        n, pairs = tile.shape[1], stamp * 0  # a name that is used here is part of the cache's key
        nearest, near = np.empty(ranks.max(), tile.dtype), np.empty(ranks.max())
        distances, slack, epsilon, floor = np.empty(n), rounding[0], rounding[1], rounding[2]
        for c in range(len(ranks)):
            low, high, rank = ends[c], ends[c + 1], ranks[c]
            for i in range(max(low, start), min(high, start + len(tile))):
                values = tile[i - start]
                for j in range(n):
                    values[j] = values[j] + values[j] - squares[j]  # |x_i|^2 - |x_i - x_j|^2
                values[i] = -np.inf
                nearest[:rank] = -np.inf
                kth = nearest[rank - 1]
                for value in values[low:high]:
                    if value > kth:
                        place = rank - 1
                        while place > 0 and nearest[place - 1] < value:
                            nearest[place] = nearest[place - 1]
                            place -= 1
                        nearest[place] = value
                        kth = nearest[rank - 1]
                radius = np.float64(kth)
                error = bound(norms[i], radius, slack, epsilon, floor)
                inner, outer = tile.dtype.type(radius + 2 * error), tile.dtype.type(radius - 2 * error)
                certain = reached = np.int32(0)
                for j in range(n):
                    certain += values[j] > inner
                    reached += values[j] >= outer
                inside = 1 + certain
                if reached - certain > 1 or norms[i] * norms[i] - radius <= error:
                    pairs += reached - certain
                    if pairs > most:
                        return False
                    # At most k - 1 of the class are certainly inside: the k-th is one of those between.
                    place = rank
                    for value in values[low:high]:
                        place -= value > inner
                    near[:place] = np.inf
                    found = 0
                    for j in range(n):
                        if outer <= values[j] <= inner:
                            total = 0.0
                            for q in range(exact.shape[1]):
                                apart = exact[i, q] - exact[j, q]
                                total += apart * apart
                            distances[found] = total
                            found += 1
                            if low <= j < high and total < near[place - 1]:
                                at = place - 1
                                while at > 0 and near[at - 1] > total:
                                    near[at] = near[at - 1]
                                    at -= 1
                                near[at] = total
                    for distance in distances[:found]:
                        inside += distance < near[place - 1] or distance == 0
                counts[i] = inside
        return True

    return _compiled(count_tile)


_count_tile = _compile_tile(zlib.crc32(Path(torch_backend.__file__).read_bytes()))
