"""Efficient rows in numba (extra `fast`): row after row, each from the basis of its nearest neighbor.

The keys of a basis and the inverse of the matrix of their points are carried from row to row. Candidates are priced in
float32 (any path leads to the same optimum), inverse and weights are float64, and the answer is refined against the
points themselves and priced in float64: that is the certificate. An inverse whose residual grows is computed afresh.
"""

# mypy: ignore-errors

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np
import torch
from numba import njit
from torch import Tensor

from hf_attn_mi.kernels.efficient.numba_simplex import (
    OPTIONS,
    chunk_of,
    dual,
    exchange,
    finish,
    fresh_inverse,
    left,
    primal,
    times,
)
from hf_attn_mi.kernels.efficient.torch import Rows, Vertices
from hf_attn_mi.kernels.threads import across_threads

_PIVOT = -1e-9  # pivots of the dual method are negative: the largest allowed, without a unit
_PIVOT_SINGLE = np.float32(-1e-5)  # the same where it was computed in float32
_ROUNDS = 4  # from dual to certificate, before a row is given up
_OVERLAP = 0.42  # share of keys in common with its neighbor from which on a row starts warm without a trial
_TRIAL = 8  # rows after which the overlap is judged, and rows that then start cold to compare the work
_MEMORY = 1 << 25  # bytes of inverses that are kept at a time: rows are solved in blocks


def solve_numba(rows: Rows, weights: Tensor) -> Vertices:
    """Return the optimal vertex of each row, heads side by side in as many threads as the rows allow.

    Rows that are given up come back with optimal False.

    Args:
        rows: the programs, on the CPU.
        weights: (rows, keys) the attention by which similar rows are found.
    """
    rank = rows.points.shape[2]
    width = -(-rank // 8) * 8
    count = len(rows.head)
    targets = np.zeros((count, width))
    targets[:, :rank] = rows.target.numpy()
    costs = np.ascontiguousarray(rows.cost.numpy())
    directions = (weights / weights.norm(dim=1, keepdim=True)).float()
    keys = np.zeros((count, rank), np.int64)
    solved = np.zeros((count, rank))
    gaps, smallest = np.full(count, np.nan), np.zeros(count)
    limit = max(1, _MEMORY // (8 * rank * width))

    def solve(job: tuple[int, int, int]) -> None:
        head, first, last = job
        points = rows.points[head].numpy()
        wide = np.zeros((len(points), width))
        wide[:, :rank] = points
        across = np.ascontiguousarray(points.T)
        single = across.astype(np.float32)
        for start in range(first, last, limit):
            block = slice(start, min(last, start + limit))
            alike = (directions[block] @ directions[block].T).numpy()
            _solve_block(
                wide,
                across,
                single,
                targets[block],
                costs[block],
                alike,
                keys[block],
                solved[block],
                gaps[block],
                smallest[block],
            )

    ends = torch.bincount(rows.head, minlength=len(rows.points)).cumsum(0).tolist()
    jobs = [(head, first, last) for head, (first, last) in enumerate(zip([0, *ends], ends)) if last > first]
    across_threads(solve, jobs, rows.threads)
    gap = torch.from_numpy(gaps)
    return Vertices(torch.from_numpy(keys), torch.from_numpy(solved), gap, torch.from_numpy(smallest), ~gap.isnan())


@njit(**OPTIONS)
def _start_keys(points, rank, keys):
    """Write keys whose points are independent: QR with column pivoting, the farthest point first."""
    rest = points.copy()
    count, width = points.shape
    direction = np.empty(width)
    for i in range(rank):
        best, key = -1.0, 0
        for j in range(count):
            size = 0.0
            row = rest[j]
            for q in range(width):
                size += row[q] * row[q]
            if size > best:
                best, key = size, j
        keys[i] = key
        scale = 1.0 / math.sqrt(best)
        for q in range(width):
            direction[q] = rest[key, q] * scale
        for j in range(count):
            row = rest[j]
            part = 0.0
            for q in range(width):
                part += row[q] * direction[q]
            for q in range(width):
                row[q] -= part * direction[q]


@njit(**OPTIONS)
def _stream(points, cost, most, inverse, keys, weights, column, pivot_row):
    """Bring keys with much attention into the basis, in place: a better start for a row that has no neighbor.

    The basis begins with the attention of its own keys. The attention of the other keys is added, largest first; a key
    whose weight would become negative leaves the basis. No key enters twice. After `most` keys the dual method goes on.
    Returns the number of exchanges.
    """
    rank = len(keys)
    inside = np.zeros(len(cost), np.bool_)
    for i in range(rank):
        inside[keys[i]] = True
        weights[i] = cost[keys[i]]
    coming, pivots = np.argsort(-cost), 0
    for place in range(min(most, len(coming))):
        entering = coming[place]
        amount = cost[entering]
        if inside[entering] or amount <= 0.0:
            continue
        times(inverse, points[entering], column)
        step, k = amount, -1
        for i in range(rank):
            if column[i] < -1e-7 and weights[i] < -column[i] * step:
                step, k = -weights[i] / column[i], i
        step = max(step, 0.0)
        for i in range(rank):
            weights[i] += step * column[i]
        if k >= 0:
            weights[k] = amount - step
            keys[k] = entering
            exchange(inverse, column, k, pivot_row)
            pivots += 1
    return pivots


@njit(**OPTIONS)
def _largest_root(diagonal, beside, size, above):
    """Return the largest eigenvalue of a symmetric tridiagonal matrix by Newton's method from above."""
    value = above
    for _ in range(200):
        pivot, slope, total = 1.0, 0.0, 0.0
        for i in range(size):
            square = beside[i - 1] * beside[i - 1] if i else 0.0
            slope = 1.0 + square * slope / (pivot * pivot) if i else 1.0
            pivot = value - diagonal[i] - (square / pivot if i else 0.0)
            if pivot <= 0.0:
                return value
            total += slope / pivot
        step = 1.0 / total
        value -= step
        if step <= 1e-12 * value:
            break
    return value


@njit(**OPTIONS)
def _smallest_singular(inverse, column, diagonal, beside, vector, before, image):
    """Return one over the largest singular value of the inverse (Lanczos)."""
    rank, width = inverse.shape
    above, best, start = 0.0, -1.0, 0
    for i in range(rank):
        norm = 0.0
        for q in range(width):
            norm += inverse[i, q] * inverse[i, q]
        above += norm
        if norm > best:
            best, start = norm, i
    for q in range(width):
        vector[q] = inverse[start, q] / math.sqrt(best)
        before[q] = 0.0
    limit = len(diagonal)
    value, link, check = 0.0, 0.0, 8
    for size in range(1, limit + 1):
        times(inverse, vector, column)
        left(column, inverse, image)
        square = 0.0
        for i in range(rank):
            square += column[i] * column[i]
        norm = 0.0
        for q in range(width):
            image[q] -= square * vector[q] + link * before[q]
            norm += image[q] * image[q]
        link = math.sqrt(norm)
        diagonal[size - 1], beside[size - 1] = square, link
        ended = link <= 1e-10 * above or size == limit
        if ended or size == check:
            old = value
            value = _largest_root(diagonal, beside, size, above * (1 + 1e-12))
            if ended or abs(value - old) <= 1e-9 * value:
                break
            check += 3
        for q in range(width):
            before[q] = vector[q]
            vector[q] = image[q] / link
    return 1.0 / math.sqrt(value)


@njit(**OPTIONS)
def _nearest_first(alike, order, parent):
    """Write an order in which each row comes after the most similar of the rows before it, its parent (Prim)."""
    count = len(order)
    near = np.full(count, -2.0, alike.dtype)
    done = np.zeros(count, np.bool_)
    who = np.zeros(count, np.int64)
    last = 0
    order[0], parent[0], done[0] = 0, -1, True
    for position in range(1, count):
        row = alike[last]
        best, following = near.dtype.type(-3.0), 0
        for j in range(count):
            if not done[j]:
                if row[j] > near[j]:
                    near[j], who[j] = row[j], last
                if near[j] > best:
                    best, following = near[j], j
        order[position], parent[position], done[following] = following, who[following], True
        last = following


@njit(**OPTIONS)
def _solve_row(points, across, single, target, cost, inverse, keys, weights, corner, first, spaces):
    """Return the smallest reduced-cost gap of the optimal vertex, from the basis in place, and the work of the pivots.

    The gap is nan if the row is given up. Work counts multiplications of float64, two of float32 as one.
    """
    column, norms, prices, pivot_row, work, wide = spaces
    rank, width, count = len(keys), inverse.shape[1], len(cost)
    done = 0
    for attempt in range(_ROUNDS):
        if attempt == 1:
            inverse[:] = corner
            keys[:] = first
        if attempt > 1 and not fresh_inverse(points, keys, inverse):
            return np.nan, done
        if attempt == 0:
            pivots = dual(
                points,
                single,
                _PIVOT_SINGLE,
                cost,
                target,
                inverse,
                keys,
                weights,
                column,
                prices,
                pivot_row,
                norms,
                work,
            )
            if pivots >= 0:
                more = primal(points, single, cost, inverse, keys, weights, column, prices, pivot_row, work)
                done += more * (chunk_of(count) * rank // 2 + 2 * rank * width)
        else:
            pivots = dual(
                points, across, _PIVOT, cost, target, inverse, keys, weights, column, prices, pivot_row, norms, wide
            )
        pricing = count * rank // 2 if attempt == 0 else count * rank
        done += (pivots if pivots >= 0 else -1 - pivots) * (pricing + 3 * rank * width)
        if pivots >= 0:
            gap = finish(points, across, cost, target, inverse, keys, weights, column, prices, pivot_row, wide[0])
            if not math.isnan(gap):
                return gap, done
    return np.nan, done


def _compile_block(stamp: int):
    """Return the compiled solver of a block of rows, kept on disk from one process to the next.

    Numba's cache knows a function by its own file and its closure, not by the other files it calls: `stamp` stands for
    these. Where no folder can be written, nothing is kept.
    """

    def solve_block(points, across, single, targets, costs, alike, keys, weights, gaps, smallest):
        """Write the optimal vertices of rows of one head; the gap of a row that was given up is nan.

        Args:
            points: (keys, width) float64, rank columns and zeros.
            across: (rank, keys) their transpose; `single` is the same in float32.
            targets: (rows, width) float64, zeros beyond the rank.
            costs: (rows, keys) float64, the largest entry of a row of the order of one.
            alike: (rows, rows) float32, how similar two rows are.
            keys, weights: (rows, rank) int64 and float64, out.
            gaps, smallest: (rows,) float64, out: smallest reduced-cost gap, smallest singular value of the basis.
        """
        if stamp < 0:  # never true: a name that is used here is part of the cache's key
            return
        rows, count, width, rank = len(costs), points.shape[0], points.shape[1], keys.shape[1]
        first, corner = np.empty(rank, np.int64), np.empty((rank, width))
        _start_keys(points, rank, first)
        if not fresh_inverse(points, first, corner):
            return
        order, parent = np.empty(rows, np.int64), np.empty(rows, np.int64)
        _nearest_first(alike, order, parent)
        inverses = np.empty((rows, rank, width))
        column, norms, prices, pivot_row = np.empty(rank), np.empty(rank), np.empty(width), np.empty(width)
        size = max(count, width)
        spaces = (column, norms, prices, pivot_row, np.empty((4, size), np.float32), np.empty((4, size)))
        lanczos = (np.empty(4 * rank), np.empty(4 * rank), np.empty(width), np.empty(width))
        shared, warm = 0, True
        work_warm, work_cold = 0, 0
        for position in range(rows):
            i, near = order[position], parent[position]
            inverse, basis = inverses[i], keys[i]
            started_warm = warm and near >= 0
            inverse[:] = inverses[near] if started_warm else corner
            basis[:] = keys[near] if started_warm else first
            done = 0
            if not started_warm:
                done = (
                    2
                    * rank
                    * width
                    * _stream(points, costs[i], 3 * rank // 2, inverse, basis, weights[i], column, pivot_row)
                )
            gaps[i], more = _solve_row(
                points, across, single, targets[i], costs[i], inverse, basis, weights[i], corner, first, spaces
            )
            done += more
            if math.isnan(gaps[i]):
                inverse[:] = corner
                basis[:] = first
            else:
                smallest[i] = _smallest_singular(
                    inverse, column, lanczos[0], lanczos[1], lanczos[2], lanczos[3], pivot_row
                )
            if position == 0 or position > 2 * _TRIAL:
                continue
            # Rows that share few keys with their neighbors may need more pivots from a neighbor's basis than without.
            if position <= _TRIAL:
                work_warm += done
                for a in range(rank):
                    for b in range(rank):
                        shared += basis[a] == keys[near, b]
                warm = position < _TRIAL or shared > _OVERLAP * rank * _TRIAL
            elif not warm:
                work_cold += done
                warm = position == 2 * _TRIAL and work_warm <= work_cold

    try:
        return njit(cache=True, **OPTIONS)(solve_block)
    except RuntimeError:
        return njit(**OPTIONS)(solve_block)


_FILES = ("numba.py", "numba_simplex.py")
_solve_block = _compile_block(zlib.crc32(b"".join(Path(__file__).with_name(name).read_bytes() for name in _FILES)))
