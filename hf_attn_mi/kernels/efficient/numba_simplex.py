"""The simplex method of one efficient row, compiled by numba: dual, primal, certificate. See numba.py."""

# mypy: ignore-errors
# The arrays' types are what the caller passes: annotations would say nothing that numba reads.

from __future__ import annotations

import math

import numpy as np
from numba import njit

OPTIONS = {"fastmath": {"contract", "reassoc", "nsz", "arcp"}, "error_model": "numpy", "nogil": True}
_NO_NAN = {**OPTIONS, "fastmath": {"contract", "reassoc", "nsz", "arcp", "nnan"}}  # lets a minimum be vectorized
_PIVOT = 1e-9  # smallest pivot element; tableau entries have no unit
_NEGATIVE = 1e-12  # how far below zero a weight may be; weights sum to one
_PRICE = 1e-12  # how far above zero a reduced cost may be; the largest cost of a row is of the order of one
_PRICE_SINGLE = 1e-5  # the same where it was computed in float32
_FAR = 1e300  # in place of a ratio that does not exist
_DRIFT = 1e-10  # residual of the carried inverse at which it is computed afresh


@njit(**_NO_NAN)
def _price(across, prices, rank, low, high, out):
    """Write each key's point times the prices, for the keys from low to high, to the first places of out."""
    # Slices, because an index that is not seen to start at zero may be negative and is not vectorized.
    count = high - low
    for j in range(count):
        out[j] = 0
    q = 0
    while q + 4 <= rank:
        a, b, c, d = prices[q], prices[q + 1], prices[q + 2], prices[q + 3]
        first, second = across[q, low:high], across[q + 1, low:high]
        third, fourth = across[q + 2, low:high], across[q + 3, low:high]
        for j in range(count):
            out[j] += a * first[j] + b * second[j] + c * third[j] + d * fourth[j]
        q += 4
    while q < rank:
        a, first = prices[q], across[q, low:high]
        for j in range(count):
            out[j] += a * first[j]
        q += 1


@njit(**OPTIONS)
def times(inverse, vector, out):
    """Write inverse @ vector."""
    for i in range(inverse.shape[0]):
        row = inverse[i]
        total = 0.0
        for q in range(inverse.shape[1]):
            total += row[q] * vector[q]
        out[i] = total


@njit(**OPTIONS)
def left(vector, inverse, out):
    """Write vector @ inverse."""
    rank, width = inverse.shape
    for q in range(width):
        out[q] = 0.0
    i = 0
    while i + 4 <= rank:
        a, b, c, d = vector[i], vector[i + 1], vector[i + 2], vector[i + 3]
        first, second, third, fourth = inverse[i], inverse[i + 1], inverse[i + 2], inverse[i + 3]
        for q in range(width):
            out[q] += a * first[q] + b * second[q] + c * third[q] + d * fourth[q]
        i += 4
    while i < rank:
        a, first = vector[i], inverse[i]
        for q in range(width):
            out[q] += a * first[q]
        i += 1


@njit(**OPTIONS)
def exchange(inverse, column, k, pivot_row):
    """Put the entering key at position k of the basis; write the new row k to pivot_row."""
    width = inverse.shape[1]
    factor = 1.0 / column[k]
    for q in range(width):
        pivot_row[q] = inverse[k, q] * factor
    for i in range(inverse.shape[0]):
        factor, row = column[i], inverse[i]
        for q in range(width):
            row[q] -= factor * pivot_row[q]
    for q in range(width):
        inverse[k, q] = pivot_row[q]


@njit(**OPTIONS)
def fresh_inverse(points, keys, inverse):
    """Write the inverse of the basis; False if it is singular."""
    rank = len(keys)
    matrix = np.empty((rank, rank))
    for i in range(rank):
        for q in range(rank):
            matrix[q, i] = points[keys[i], q]
    fresh = np.linalg.inv(matrix)
    for i in range(rank):
        for q in range(rank):
            if not math.isfinite(fresh[i, q]):
                return False
            inverse[i, q] = fresh[i, q]
        for q in range(rank, inverse.shape[1]):
            inverse[i, q] = 0.0
    return True


@njit(**_NO_NAN)
def _most_negative(weights, norms, ratio):
    """Return the basis position that leaves, by steepest edge; -1 if no weight is negative.

    Written without branches, which the processor would predict badly."""
    best = 0.0
    for i in range(len(weights)):
        value = weights[i] * weights[i] / norms[i] if weights[i] < -_NEGATIVE else 0.0
        ratio[i] = value
        best = value if value > best else best
    if best > 0.0:
        for i in range(len(weights)):
            if ratio[i] == best:
                return i
    return -1


@njit(**_NO_NAN)
def _dual_ratio(reduced, alpha, ratio, smallest, count):
    """Return the key that enters and the step of the reduced costs; -1 if none may.

    Many shifted costs are equal: unless the largest pivot among them is chosen, the method cycles.
    """
    zero, far = reduced.dtype.type(0.0), reduced.dtype.type(1e30)
    step = far
    for j in range(count):
        value = reduced[j] / alpha[j] if alpha[j] < smallest else far
        ratio[j] = value
        step = value if value < step else step
    if step >= far:
        return -1, step
    tied = step + reduced.dtype.type(_NEGATIVE)
    low = zero
    for j in range(count):
        value = alpha[j] if ratio[j] <= tied else zero
        low = value if value < low else low
    for j in range(count):
        if alpha[j] == low and ratio[j] <= tied:
            return j, step
    return -1, step


@njit(**_NO_NAN)
def _update_norms(inverse, column, k, norms, products):
    """Write the squared norms of the rows after the exchange: || row i - factor * row k ||^2."""
    times(inverse, inverse[k], products)
    leaving_norm = norms[k]
    for i in range(len(norms)):
        factor = column[i] / column[k]
        value = norms[i] - factor * (2.0 * products[i] - factor * leaving_norm)
        norms[i] = value if value > 1e-3 * norms[i] else 1e-3 * norms[i]
    norms[k] = leaving_norm / (column[k] * column[k])


@njit(**_NO_NAN)
def _shifted_costs(across, cost, inverse, keys, column, prices, price, reduced):
    """Write the reduced costs, positive ones as zero."""
    count, zero = len(cost), reduced.dtype.type(0.0)
    for i in range(len(keys)):
        column[i] = cost[keys[i]]
    left(column, inverse, prices)
    for q in range(len(keys)):
        price[q] = prices[q]
    _price(across, price, len(keys), 0, count, reduced)
    for j in range(count):
        value = reduced.dtype.type(cost[j]) - reduced[j]
        reduced[j] = value if value < zero else zero
    for i in range(len(keys)):
        reduced[keys[i]] = zero


@njit(**_NO_NAN)
def dual(points, across, smallest, cost, target, inverse, keys, weights, column, prices, pivot_row, norms, work):
    """Reach non-negative weights by the dual simplex method, in place. Return the number of pivots.

    It is -1 - pivots if no further pivot is possible.

    Positive reduced costs count as zero, so that any start will do. The dtype of `across` and `work` is that of the
    prices; `smallest` is the largest (negative) pivot element allowed in it.
    """
    count, rank = points.shape[0], len(keys)
    reduced, alpha, ratio, price = work[0], work[1], work[2], work[3]
    zero = reduced.dtype.type(0.0)
    _shifted_costs(across, cost, inverse, keys, column, prices, price, reduced)
    times(inverse, target, weights)
    for i in range(rank):
        norms[i] = 0.0
        for q in range(rank):
            norms[i] += inverse[i, q] * inverse[i, q]
    for pivots in range(20 * count):
        k = _most_negative(weights, norms, pivot_row)
        if k < 0:
            return pivots
        for q in range(rank):
            price[q] = inverse[k, q]
        _price(across, price, rank, 0, count, alpha)
        for i in range(rank):
            alpha[keys[i]] = zero
        entering, step = _dual_ratio(reduced, alpha, ratio, smallest, count)
        if entering < 0:
            return -1 - pivots
        times(inverse, points[entering], column)
        if not column[k] < -_PIVOT:
            return -1 - pivots
        if step > zero:
            for j in range(count):
                value = reduced[j] - step * alpha[j]
                reduced[j] = value if value < zero else zero
        reduced[entering] = zero
        reduced[keys[k]] = -step
        amount = weights[k] / column[k]
        for i in range(rank):
            weights[i] -= amount * column[i]
        weights[k] = amount
        keys[k] = entering
        _update_norms(inverse, column, k, norms, prices)
        exchange(inverse, column, k, pivot_row)
    return -1 - pivots


@njit(**_NO_NAN)
def _leave(keys, weights, column, entering, bland, ratio):
    """Return the basis position that the entering key takes (-1: none) and its weight; change weights and keys.

    Harris's rule: among the keys that leave before any weight falls below -_NEGATIVE, the largest pivot. A small one
    would magnify what rounding has left of a weight of zero.
    """
    rank = len(keys)
    tied = _FAR
    for i in range(rank):
        large = column[i] > _PIVOT
        over = 1.0 / column[i] if large else 0.0
        ratio[i] = weights[i] * over if large else _FAR
        value = (max(weights[i], 0.0) + _NEGATIVE) * over if large else _FAR
        tied = value if value < tied else tied
    if tied >= _FAR:
        return -1, 0.0
    largest, k = 0.0, -1
    for i in range(rank):
        value = column[i] if ratio[i] <= tied else 0.0
        largest = value if value > largest else largest
    for i in range(rank):
        if bland:
            if ratio[i] <= tied and (k < 0 or keys[i] < keys[k]):
                k = i
        elif column[i] == largest and ratio[i] <= tied:
            k = i
    step = max(ratio[k], 0.0)
    for i in range(rank):
        weights[i] -= step * column[i]
    weights[k] = step
    keys[k] = entering
    return k, step


@njit(**OPTIONS)
def chunk_of(count):
    """Return how many keys `primal` prices at a time."""
    return min(count, max(64, (count // 4 + 31) // 32 * 32))


@njit(**_NO_NAN)
def primal(points, across, cost, inverse, keys, weights, column, prices, pivot_row, work):
    """Go toward the optimum with prices in float32, some keys at a time; `finish` does the rest. Return the pivots."""
    count, rank = points.shape[0], len(keys)
    reduced, single, price = work[0], work[1], work[3]
    chunk = chunk_of(count)
    tolerance = across.dtype.type(_PRICE_SINGLE)
    for j in range(count):
        single[j] = cost[j]
    for i in range(rank):
        column[i] = cost[keys[i]]
    left(column, inverse, prices)
    place, since, stalled, pivots = 0, 0, 0, 0
    for _ in range(20 * count):
        low, high = place, min(count, place + chunk)
        part, size = single[low:high], high - low
        for q in range(rank):
            price[q] = prices[q]
        _price(across, price, rank, low, high, reduced)
        for j in range(size):
            reduced[j] = part[j] - reduced[j]
        for i in range(rank):
            if low <= keys[i] < high:
                reduced[keys[i] - low] = -tolerance
        best = tolerance
        for j in range(size):
            best = reduced[j] if reduced[j] > best else best
        since += size
        place = high if high < count else 0
        if best <= tolerance:
            if since >= count:
                return pivots
            continue
        entering = 0
        while reduced[entering] != best:
            entering += 1
        entering += low
        gain = cost[entering]
        point = points[entering]
        for q in range(rank):
            gain -= point[q] * prices[q]
        if gain < 0.1 * _PRICE_SINGLE:
            return pivots
        since = 0
        times(inverse, point, column)
        k, step = _leave(keys, weights, column, entering, False, pivot_row)
        if k < 0:
            return pivots
        pivots += 1
        exchange(inverse, column, k, pivot_row)
        for q in range(rank):
            prices[q] += gain * pivot_row[q]
        stalled = stalled + 1 if step < _NEGATIVE else 0
        if stalled > 2 * rank:
            return pivots
    return pivots


@njit(**OPTIONS)
def _refine(points, cost, target, inverse, keys, weights, prices, column, rest):
    """Write weights and prices solved with the inverse and corrected once; return the residual before that."""
    rank, width = len(keys), inverse.shape[1]
    times(inverse, target, weights)
    for q in range(width):
        rest[q] = target[q]
    for i in range(rank):
        factor, point = weights[i], points[keys[i]]
        for q in range(width):
            rest[q] -= factor * point[q]
    drift = 0.0
    for q in range(rank):
        drift = max(drift, abs(rest[q]))
    times(inverse, rest, column)
    for i in range(rank):
        weights[i] += column[i]
        column[i] = cost[keys[i]]
    left(column, inverse, prices)
    for i in range(rank):
        point = points[keys[i]]
        value = column[i]
        for q in range(width):
            value -= point[q] * prices[q]
        column[i] = value
        drift = max(drift, abs(value))
    left(column, inverse, rest)
    for q in range(width):
        prices[q] += rest[q]
    return drift


@njit(**OPTIONS)
def finish(points, across, cost, target, inverse, keys, weights, column, prices, pivot_row, reduced):
    """Return the smallest reduced-cost gap of the optimum reached; nan: some weights are negative."""
    count, rank = points.shape[0], len(keys)
    stalled = 0
    for _ in range(20 * count):
        drift = _refine(points, cost, target, inverse, keys, weights, prices, column, pivot_row)
        if not drift < _DRIFT:
            if not fresh_inverse(points, keys, inverse):
                return np.nan
            drift = _refine(points, cost, target, inverse, keys, weights, prices, column, pivot_row)
            if not drift < _DRIFT:
                return np.nan
        for i in range(rank):
            if weights[i] < -10 * _NEGATIVE:
                return np.nan
        _price(across, prices, rank, 0, count, reduced)
        for j in range(count):
            reduced[j] = cost[j] - reduced[j]
        for i in range(rank):
            reduced[keys[i]] = -np.inf
        best = -np.inf
        for j in range(count):
            best = reduced[j] if reduced[j] > best else best
        if best <= _PRICE:
            return -best
        bland = stalled > 2 * rank  # degenerate rows: Bland's rule cannot cycle
        entering = 0
        while reduced[entering] != best and not (bland and reduced[entering] > _PRICE):
            entering += 1
        times(inverse, points[entering], column)
        k, step = _leave(keys, weights, column, entering, bland, pivot_row)
        if k < 0:
            return np.nan
        exchange(inverse, column, k, pivot_row)
        stalled = stalled + 1 if step < _NEGATIVE else 0
    return np.nan
