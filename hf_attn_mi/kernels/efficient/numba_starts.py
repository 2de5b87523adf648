"""Where compiled efficient rows start, in which order they come, and how firm their bases are."""

# mypy: ignore-errors

from __future__ import annotations

import math

import numpy as np
from numba import njit

from hf_attn_mi.kernels.efficient.numba_pivots import OPTIONS, exchange, left, times


@njit(**OPTIONS)
def start_keys(points, rank, keys):
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
def stream(points, cost, most, inverse, keys, weights, column, pivot_row):
    """Bring keys with much attention into the basis, in place: a better start for a row that has no neighbor.

    The basis begins with its own attention; the other keys, largest first, bring theirs, and where a weight would fall
    below zero its key leaves. No key comes twice. After `most` keys the dual method takes over.
    """
    rank = len(keys)
    inside = np.zeros(len(cost), np.bool_)
    for i in range(rank):
        inside[keys[i]] = True
        weights[i] = cost[keys[i]]
    coming = np.argsort(-cost)
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
def smallest_singular(inverse, column, diagonal, beside, vector, before, image):
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
        own = 0.0
        for i in range(rank):
            own += column[i] * column[i]
        norm = 0.0
        for q in range(width):
            image[q] -= own * vector[q] + link * before[q]
            norm += image[q] * image[q]
        link = math.sqrt(norm)
        diagonal[size - 1], beside[size - 1] = own, link
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
def nearest_first(alike, order, parent):
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
