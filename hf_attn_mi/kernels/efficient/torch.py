"""Efficient rows in PyTorch: the simplex method on many rows in lockstep, each from the basis of a similar row."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hf_attn_mi.kernels.efficient.problems import start_keys, times_head_matrix

_PIVOT = 1e-9  # smallest pivot element; tableau entries have no unit
_NEGATIVE = 1e-12  # how far below zero a weight may be; weights sum to one
_PRICE = 1e-12  # how far above zero a reduced cost may be, relative to the row's largest cost
_SLACK = 1e-12  # ratios this close count as tied, and the largest pivot wins
_ROUNDS = 4  # fresh factorizations before a row is given up
# Every 16th row starts from the start basis of its head, every 4th from the nearest of these, the rest from the nearest
# of all solved rows.
_STRIDES = (16, 4, 1)


@dataclass(frozen=True)
class Rows:
    """Rows to solve: maximize cost . b subject to points^T b = target, b >= 0."""

    points: Tensor  # (heads, keys, rank) float64, last column constant
    head: Tensor  # (rows,) long, ascending: which points a row uses
    target: Tensor  # (rows, rank)
    cost: Tensor  # (rows, keys), largest entry of a row of the order of one
    threads: int = 1  # heads that may be solved at a time, where a backend solves them one by one

    def take(self, index: Tensor) -> Rows:
        """Return the rows of `index` (ascending)."""
        return replace(self, head=self.head[index], target=self.target[index], cost=self.cost[index])

    def price(self, prices: Tensor) -> Tensor:  # (rows, rank) -> (rows, keys)
        """Return each key's point times the row's prices."""
        return times_head_matrix(prices, self.points.transpose(1, 2), self.head)


@dataclass(frozen=True)
class Basis:
    """The keys that carry weight, with the inverse of the matrix of their points."""

    keys: Tensor  # (rows, rank) long
    inverse: Tensor  # (rows, rank, rank): inverse @ target are the weights


@dataclass(frozen=True)
class Solution:
    """A basic solution of each row, solved afresh from its keys."""

    basis: Basis
    weights: Tensor  # (rows, rank), of basis.keys
    gap: Tensor  # (rows,) smallest reduced-cost gap of the other keys; negative: not optimal
    optimal: Tensor  # (rows,) bool


@dataclass(frozen=True)
class Vertices:
    """The optimal vertex of each row, as every backend returns it."""

    keys: Tensor  # (rows, rank) long
    weights: Tensor  # (rows, rank), of these keys
    gap: Tensor  # (rows,) smallest reduced-cost gap of the other keys
    smallest_singular: Tensor  # (rows,) of the basis; for a support smaller than the basis it is a lower bound
    optimal: Tensor  # (rows,) bool


def solve(rows: Rows, basis: Basis) -> Solution:
    """Return the optimal vertex of each row, from any basis: dual simplex with shifted costs, then primal.

    The answer is solved and priced afresh from its keys; a row that fails is continued from there, and after the last
    round it is returned with optimal False.
    """
    solution = None
    todo = torch.arange(len(rows.head), device=rows.head.device)
    for _ in range(_ROUNDS):
        part = rows.take(todo)
        limit = 20 * rows.points.shape[1]
        moved = _primal(part, _dual(part, basis, limit), limit)
        fresh = certify(part, moved)
        solution = put_solution(solution, fresh, todo, len(rows.head))
        open_rows = ~fresh.optimal
        if not bool(open_rows.any()):
            break
        todo = todo[open_rows]
        basis = Basis(fresh.basis.keys[open_rows], fresh.basis.inverse[open_rows])
    assert solution is not None
    return solution


def certify(rows: Rows, basis: Basis) -> Solution:
    """Return the solution on these keys from a fresh factorization, with one step of refinement."""
    matrix = rows.points[rows.head[:, None], basis.keys]  # a point a row: the transpose of the basis
    inverse, failed = torch.linalg.inv_ex(matrix)
    inverse = inverse.nan_to_num(0.0, 0.0, 0.0).transpose(1, 2).contiguous()
    weights = _times(inverse, rows.target)
    weights = weights + _times(inverse, rows.target - _left(weights, matrix))
    basis_cost = rows.cost.gather(1, basis.keys)
    prices = _left(basis_cost, inverse)
    prices = prices + _left(basis_cost - _times(matrix, prices), inverse)
    reduced = (rows.cost - rows.price(prices)).scatter(1, basis.keys, -torch.inf)
    gap = -reduced.amax(1)
    scale = rows.cost.abs().amax(1)
    optimal = (failed == 0) & (weights.amin(1) >= -10 * _NEGATIVE) & (gap >= -10 * _PRICE * scale)
    return Solution(Basis(basis.keys, inverse), weights, gap, optimal)


def _dual(rows: Rows, basis: Basis, limit: int) -> Basis:
    """Return a basis with non-negative weights. Positive reduced costs become zero, so that any start will do."""
    done = _Store(basis)
    keys, inverse = basis.keys.clone(), basis.inverse.clone()
    live = torch.arange(len(keys), device=keys.device)
    weights = _times(inverse, rows.target)
    reduced = (rows.cost - rows.price(_left(rows.cost.gather(1, keys), inverse))).clamp_max(0)
    for _ in range(limit):
        low, leaving = weights.min(1)
        at = torch.arange(len(keys), device=keys.device)
        pivot_row = inverse[at, leaving]
        alpha = rows.price(pivot_row)
        ratio = torch.where(alpha < -_PIVOT, reduced / alpha, torch.inf)
        step = ratio.amin(1)
        # Many shifted costs are equal: unless the largest pivot among them is chosen, the method cycles.
        entering = torch.where(ratio <= (step + _SLACK)[:, None], alpha, torch.inf).argmin(1)
        active = (low < -_NEGATIVE) & step.isfinite()
        if not bool(active.all()):
            if 8 * int(active.sum()) <= 7 * len(active):
                done.put(live, keys, inverse)
                if not bool(active.any()):
                    return done.basis
                index = active.nonzero()[:, 0]
                rows, live, keys, inverse = rows.take(index), live[index], keys[index], inverse[index]
                weights, reduced, alpha, step = weights[index], reduced[index], alpha[index], step[index]
                leaving, entering, at = leaving[index], entering[index], torch.arange(len(index), device=keys.device)
                active = active[index]
            step = step.where(active, torch.zeros_like(step))
        reduced = (reduced - step[:, None] * alpha).clamp_max(0)
        reduced[at, keys[at, leaving]] = torch.where(active, -step, reduced[at, keys[at, leaving]])
        reduced[at, entering] = reduced[at, entering].where(~active, torch.zeros_like(step))
        direction = _times(inverse, rows.points[rows.head, entering])
        amount = weights[at, leaving] / direction[at, leaving]
        _pivot(keys, inverse, weights, entering, leaving, direction, amount, active)
    done.put(live, keys, inverse)
    return done.basis


def _primal(rows: Rows, basis: Basis, limit: int) -> Basis:
    """Return an optimal basis, from one with non-negative weights."""
    done = _Store(basis)
    keys, inverse = basis.keys.clone(), basis.inverse.clone()
    live = torch.arange(len(keys), device=keys.device)
    weights = _times(inverse, rows.target)
    prices = _left(rows.cost.gather(1, keys), inverse)
    tolerance = _PRICE * rows.cost.abs().amax(1)
    stalled = torch.zeros_like(live)
    patience = 2 * rows.points.shape[2]
    order = torch.arange(rows.points.shape[1], device=keys.device, dtype=rows.cost.dtype)
    for _ in range(limit):
        reduced = (rows.cost - rows.price(prices)).scatter(1, keys, -torch.inf)
        gain, entering = reduced.max(1)
        active = gain > tolerance
        if not bool(active.all()) and 8 * int(active.sum()) <= 7 * len(active):
            done.put(live, keys, inverse)
            if not bool(active.any()):
                return done.basis
            index = active.nonzero()[:, 0]
            rows, live, keys, inverse = rows.take(index), live[index], keys[index], inverse[index]
            weights, prices, tolerance, stalled = weights[index], prices[index], tolerance[index], stalled[index]
            reduced, gain, entering, active = reduced[index], gain[index], entering[index], active[index]
        at = torch.arange(len(keys), device=keys.device)
        bland = stalled > patience  # degenerate rows: Bland's rule cannot cycle
        if bool(bland.any()):
            first = torch.where(reduced > tolerance[:, None], order, torch.inf).argmin(1)
            entering = first.where(bland, entering)
            gain = reduced[at, entering]
        direction = _times(inverse, rows.points[rows.head, entering])
        ratio = torch.where(direction > _PIVOT, weights / direction, torch.inf)
        amount = ratio.amin(1)
        tied = ratio <= (amount + _SLACK)[:, None]
        leaving = torch.where(tied, direction, -torch.inf).argmax(1)
        if bool(bland.any()):
            lowest = torch.where(tied, keys, rows.points.shape[1]).argmin(1)
            leaving = lowest.where(bland, leaving)
        active = active & amount.isfinite()
        stalled = (stalled + 1) * (amount < _SLACK)
        _pivot(keys, inverse, weights, entering, leaving, direction, amount.clamp_min(0), active)
        prices = prices + torch.where(active, gain, 0.0)[:, None] * inverse[at, leaving]
    done.put(live, keys, inverse)
    return done.basis


def _pivot(
    keys: Tensor,
    inverse: Tensor,
    weights: Tensor,
    entering: Tensor,
    leaving: Tensor,
    direction: Tensor,
    amount: Tensor,
    active: Tensor,
) -> None:
    """Exchange a key in the active rows, in place (the caller's working copies)."""
    at = torch.arange(len(keys), device=keys.device)
    amount = amount.where(active, torch.zeros_like(amount))
    pivot = direction[at, leaving]
    pivot = pivot.where(active, torch.ones_like(pivot))
    weights.addcmul_(direction, -amount[:, None])
    weights[at, leaving] = amount.where(active, weights[at, leaving])
    keys[at, leaving] = entering.where(active, keys[at, leaving])
    column = direction * active[:, None]
    column[at, leaving] -= active.to(column.dtype)
    row = inverse[at, leaving] / pivot[:, None]
    inverse.addcmul_(column[:, :, None], row[:, None, :], value=-1)


class _Store:
    """Where finished rows are put while the others go on."""

    def __init__(self, basis: Basis) -> None:
        self.basis = Basis(basis.keys.clone(), basis.inverse.clone())

    def put(self, live: Tensor, keys: Tensor, inverse: Tensor) -> None:
        self.basis.keys[live] = keys
        self.basis.inverse[live] = inverse


def put_solution(old: Solution | None, new: Solution, where: Tensor, count: int) -> Solution:
    """Return the old solution (or an empty one of `count` rows) with the new one at the rows `where`."""

    def put(first: Tensor | None, second: Tensor) -> Tensor:
        base = second.new_zeros(count, *second.shape[1:]) if first is None else first
        return base.index_copy(0, where, second)

    if old is None:
        basis = Basis(put(None, new.basis.keys), put(None, new.basis.inverse))
        return Solution(basis, put(None, new.weights), put(None, new.gap), put(None, new.optimal))
    basis = Basis(put(old.basis.keys, new.basis.keys), put(old.basis.inverse, new.basis.inverse))
    return Solution(basis, put(old.weights, new.weights), put(old.gap, new.gap), put(old.optimal, new.optimal))


def _times(matrix: Tensor, vector: Tensor) -> Tensor:  # (rows, a, b), (rows, b) -> (rows, a)
    return (matrix @ vector[:, :, None])[:, :, 0]


def _left(vector: Tensor, matrix: Tensor) -> Tensor:  # (rows, a), (rows, a, b) -> (rows, b)
    return (vector[:, None, :] @ matrix)[:, 0]


def solve_torch(rows: Rows, weights: Tensor) -> Vertices:
    """Return the optimal vertex of each row.

    The optimum is unique, so the start changes the time, not the answer: neighbors halve the number of pivots. Rows
    that fail from a neighbor are tried once more from the start basis of their head.

    Args:
        rows: the programs.
        weights: (rows, keys) the attention by which similar rows are found.
    """
    first = start_keys(rows.points)
    corner = torch.linalg.inv(rows.points.gather(1, first[:, :, None].expand(-1, -1, rows.points.shape[2])))
    corner = corner.transpose(1, 2).contiguous()

    def cold(index: Tensor) -> Basis:
        head = rows.head[index]
        return Basis(first[head], corner[head])

    sizes = torch.bincount(rows.head, minlength=len(rows.points))
    position = torch.arange(len(rows.head), device=sizes.device) - (sizes.cumsum(0) - sizes)[rows.head]
    directions = weights / weights.norm(dim=1, keepdim=True)
    solution: Solution | None = None
    solved = torch.zeros_like(position, dtype=torch.bool)
    for stride in _STRIDES:
        index = ((position % stride == 0) & ~solved).nonzero()[:, 0]
        if not len(index):
            continue
        if solution is None:
            solution = put_solution(None, solve(rows.take(index), cold(index)), index, len(position))
        else:
            near = _nearest(directions, rows.head, solved.nonzero()[:, 0], index)
            start = Basis(solution.basis.keys[near], solution.basis.inverse[near])
            solution = put_solution(solution, solve(rows.take(index), start), index, len(position))
        solved[index] = True
    assert solution is not None
    failed = (~solution.optimal).nonzero()[:, 0]
    if len(failed):
        solution = put_solution(solution, solve(rows.take(failed), cold(failed)), failed, len(position))
    inverse = solution.basis.inverse
    largest: Tensor = torch.linalg.eigvalsh(inverse @ inverse.transpose(1, 2))[:, -1]
    return Vertices(solution.basis.keys, solution.weights, solution.gap, largest.rsqrt(), solution.optimal)


def _nearest(directions: Tensor, head: Tensor, known: Tensor, asked: Tensor) -> Tensor:
    """Return for each requested row the known row of the same head with the largest cosine."""
    near = []
    for number in sorted(set(head[asked].tolist())):
        rows, candidates = asked[head[asked] == number], known[head[known] == number]
        near.append(candidates[(directions[rows] @ directions[candidates].T).argmax(1)])
    return torch.cat(near)
