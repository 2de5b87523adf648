"""Efficient rows in Triton: one program a row finds the optimal basis in float32, float64 proves it.

A program keeps the inverse of its basis in registers. The points' last coordinate is constant, here one, so the
weights of any point in a basis sum to one: the last row of the inverse follows from the others, and of its last column
only a vector is left. Rank 65, that of heads of 64 dimensions, so takes a tile of 64 x 64 and not of 128 x 128.

First the row's own keys bring their attention into the start basis of the head, largest first; where a weight would
fall below zero its key leaves (never the same key twice). That is a vertex. The primal simplex method goes on from
there, some keys at a time. Float32 is only trusted to find keys: the answer is solved and priced afresh in float64, and
a row that float32 could not finish is continued from its basis by the solver in PyTorch.
"""

# mypy: ignore-errors

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hf_attn_mi.kernels.efficient.problems import start_keys
from hf_attn_mi.kernels.efficient.torch import Basis, Rows, Vertices, certify, put_solution, solve

_PIVOT = tl.constexpr(1e-5)  # smallest pivot element; tableau entries have no unit
_SLACK = tl.constexpr(1e-8)  # how far a weight may fall below zero for the sake of a larger pivot; weights sum to one
_ROUNDING = tl.constexpr(1.000001)  # the same relative to the weight: above the rounding of a division and a product
_PRICE = tl.constexpr(2e-6)  # how far above zero a reduced cost may be; the largest cost is of the order of one
_FAR = tl.constexpr(1e30)
_SOUND = 1e-6  # residual of the float64 inverse from which a basis counts as singular
_SQUARINGS = 30  # leave at most 1 / (2 e 2^30) of the largest eigenvalue, whatever the others are


@triton.jit
def _leave(weights, last, fall, last_fall, slots, TILE: tl.constexpr):
    """Return how far the weights can fall, the slot that is then empty (TILE: the last) and its pivot.

    Harris's rule: among the keys that leave before any weight falls below -_SLACK, the largest pivot: a small one would
    magnify what rounding has left of a weight of zero. Where no weight falls the distance is _FAR.
    """
    able = fall > _PIVOT
    last_able = last_fall > _PIVOT
    bound = tl.min(tl.where(able, (weights * _ROUNDING + _SLACK) / tl.where(able, fall, 1.0), _FAR), 0)
    last_bound = (last * _ROUNDING + _SLACK) / tl.where(last_able, last_fall, 1.0)
    bound = tl.minimum(bound, tl.where(last_able, last_bound, _FAR))
    tied = able & (weights <= bound * fall)
    pivot = tl.max(tl.where(tied, fall, 0.0), 0)
    slot = tl.min(tl.where(tied & (fall == pivot), slots, TILE), 0)
    left = tl.sum(tl.where(slots == slot, weights, 0.0), 0)
    last_leaves = last_able & (last <= bound * last_fall) & (last_fall > pivot)
    slot = tl.where(last_leaves, TILE, slot)
    pivot = tl.where(last_leaves, last_fall, pivot)
    left = tl.where(last_leaves, last, left)
    way = tl.where(bound < _FAR, tl.maximum(left, 0.0) / tl.maximum(pivot, _PIVOT), _FAR)
    return way, slot, pivot


@triton.jit
def _exchange(inverse, column, direction, slot, pivot, slots, TILE: tl.constexpr):
    """Return inverse and last column after the exchange, and the new row of the slot.

    The last row is the unit vector of the constant minus the sum of the others.
    """
    is_last = slot == TILE
    chosen = tl.where(is_last, -1.0, tl.where(slots == slot, 1.0, 0.0))
    row = tl.sum(chosen[:, None] * inverse, 0) / pivot
    end = (tl.sum(chosen * column, 0) + tl.where(is_last, 1.0, 0.0)) / pivot
    change = tl.where(slots == slot, direction - 1.0, direction)
    return inverse - change[:, None] * row[None, :], column - change * end, row, end


@triton.jit
def _rows_kernel(
    points,
    starts,
    start_columns,
    first,
    head_ids,
    start_weights,
    order,
    masses,
    costs,
    keys_out,
    keys,
    limit,
    RANK: tl.constexpr,
    TILE: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Write the keys of the optimal basis of a row. Slots and coordinates from RANK - 1 to TILE are zero throughout."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.load(head_ids + row).to(tl.int64)
    slots = tl.arange(0, TILE)
    used = slots < RANK - 1
    points += head * keys * TILE
    costs += row * keys
    inverse = tl.load(starts + head * TILE * TILE + slots[:, None] * TILE + slots[None, :])
    column = tl.load(start_columns + head * TILE + slots)
    held = tl.load(first + head * RANK + slots, mask=used, other=-1)
    held_last = tl.load(first + head * RANK + RANK - 1)
    weights = tl.load(start_weights + row * RANK + slots, mask=used, other=0.0)
    last = tl.load(start_weights + row * RANK + RANK - 1)
    for place in range(0, keys - RANK):
        entering = tl.load(order + row * keys + place)
        mass = tl.load(masses + row * keys + place)
        point = tl.load(points + entering * TILE + slots)
        direction = tl.sum(inverse * point[None, :], 1) + column
        last_direction = 1.0 - tl.sum(direction, 0)
        way, slot, pivot = _leave(weights, last, -direction, -last_direction, slots, TILE)
        step = tl.minimum(way, mass)
        weights = tl.maximum(weights + step * direction, 0.0)
        last = tl.maximum(last + step * last_direction, 0.0)
        if way < mass:
            inverse, column, _, _ = _exchange(inverse, column, direction, slot, -pivot, slots, TILE)
            weights = tl.where(slots == slot, mass - way, weights)
            last = tl.where(slot == TILE, mass - way, last)
            held = tl.where(slots == slot, entering, held)
            held_last = tl.where(slot == TILE, entering, held_last)
    last_cost = tl.load(costs + held_last)
    above = tl.load(costs + held, mask=used, other=0.0) - last_cost
    prices = tl.sum(above[:, None] * inverse, 0)
    price = tl.sum(above * column, 0) + last_cost
    chunks = tl.cdiv(keys, CHUNK)
    chunk, without, pivots = 0, 0, 0
    while (without < chunks) & (pivots < limit):
        ids = chunk * CHUNK + tl.arange(0, CHUNK)
        inside = ids < keys
        some = tl.load(points + ids[:, None] * TILE + slots[None, :], mask=inside[:, None], other=0.0)
        reduced = tl.load(costs + ids, mask=inside, other=-_FAR) - (tl.sum(some * prices[None, :], 1) + price)
        gain = tl.max(reduced, 0)
        entering = tl.min(tl.where(reduced == gain, ids, keys), 0)
        chunk = tl.where(chunk + 1 < chunks, chunk + 1, 0)
        without += 1
        # A key of the basis has a reduced cost of zero: above the tolerance it is rounding, which the float64 solution
        # corrects.
        known = tl.max(tl.where(held == entering, 1, 0), 0) + tl.where(held_last == entering, 1, 0)
        if (gain > _PRICE) & (known == 0):
            point = tl.load(points + entering * TILE + slots)
            direction = tl.sum(inverse * point[None, :], 1) + column
            last_direction = 1.0 - tl.sum(direction, 0)
            way, slot, pivot = _leave(weights, last, direction, last_direction, slots, TILE)
            if way < _FAR:
                inverse, column, added, end = _exchange(inverse, column, direction, slot, pivot, slots, TILE)
                prices += gain * added
                price += gain * end
                weights = tl.where(slots == slot, way, tl.maximum(weights - way * direction, 0.0))
                last = tl.where(slot == TILE, way, tl.maximum(last - way * last_direction, 0.0))
                held = tl.where(slots == slot, entering, held)
                held_last = tl.where(slot == TILE, entering, held_last)
                pivots += 1
                without = 0
    tl.store(keys_out + row * RANK + slots, held, mask=used)
    tl.store(keys_out + row * RANK + RANK - 1, held_last)


def solve_triton(rows: Rows, weights: Tensor) -> Vertices:
    """Return the optimal vertex of each row, on CUDA or interpreted.

    Rows whose basis from float32 is singular, and rows that float64 could not finish, come back with optimal False.

    Args:
        rows: the programs, of a rank up to 129.
        weights: (rows, keys) the attention itself, a distribution with the rows' targets.
    """
    kept = find_bases(rows, weights)
    none = rows.points.new_zeros(len(kept), 0, 0)
    solution = certify(rows, Basis(kept, none))
    matrix = rows.points[rows.head[:, None], kept]
    unit = torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
    off = (solution.basis.inverse.transpose(1, 2) @ matrix - unit).abs().amax((1, 2))
    todo = (~solution.optimal & (off < _SOUND)).nonzero()[:, 0]
    if len(todo):
        start = Basis(kept[todo], solution.basis.inverse[todo])
        solution = put_solution(solution, solve(rows.take(todo), start), todo, len(kept))
    singular = largest_singular(solution.basis.inverse).reciprocal()
    return Vertices(solution.basis.keys, solution.weights, solution.gap, singular, solution.optimal)


def find_bases(rows: Rows, weights: Tensor) -> Tensor:
    """Return the keys (rows, rank) of the basis that float32 ends with: mostly the optimal one, never proved.

    Args:
        rows: the programs.
        weights: (rows, keys) the attention itself.
    """
    _, keys, rank = rows.points.shape
    sizes = _tile_sizes(rank)
    tile, count, device = sizes["TILE"], len(rows.head), rows.points.device
    scaled = rows.points / rows.points[:, :1, -1:]  # any scale leaves bases and weights as they are
    first = start_keys(scaled)
    corner = torch.linalg.inv(scaled.gather(1, first[:, :, None].expand(-1, -1, rank))).transpose(1, 2)

    def pad(tensor: Tensor, *shape: int) -> Tensor:
        wide = torch.zeros(len(tensor), *shape, dtype=torch.float32, device=device)
        wide[tuple(slice(0, size) for size in tensor.shape)] = tensor.float()
        return wide

    start = first[rows.head]
    masses, order = weights.scatter(1, start, 0.0).sort(dim=1, descending=True)
    bases = torch.empty(count, rank, dtype=torch.int32, device=device)
    with torch.cuda.device_of(bases):
        _rows_kernel[(count,)](
            pad(scaled[:, :, :-1], keys, tile),
            pad(corner[:, :-1, :-1], tile, tile),
            pad(corner[:, :-1, -1], tile),
            first.int(),
            rows.head.int(),
            weights.gather(1, start).float(),
            order.int(),
            masses.float(),
            rows.cost.float().contiguous(),
            bases,
            keys,
            20 * rank,
            RANK=rank,
            **sizes,
        )
    return bases.long()


def largest_singular(matrices: Tensor) -> Tensor:
    """Return the largest singular value of each matrix (rows, n, n), by products of matrices alone.

    M^T M squared again and again is its leading eigenvector in every column; Rayleigh's quotient tolerates the error.
    On CUDA the eigenvalue solver of PyTorch goes matrix by matrix from 33 columns on (issue 175585 of pytorch/pytorch).
    """
    gram = matrices.transpose(1, 2) @ matrices
    power = gram
    for _ in range(_SQUARINGS):
        power = power / power.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
        power = power @ power
    most = power.diagonal(dim1=1, dim2=2).argmax(1)
    vector = power[torch.arange(len(power), device=power.device), most]
    image = (matrices @ vector[:, :, None])[:, :, 0]
    return image.norm(dim=1) / vector.norm(dim=1)


def _tile_sizes(rank: int) -> dict[str, int]:
    """A tile for all but the last row and column, with so many warps that it takes at most 32 registers a thread."""
    tile = max(16, triton.next_power_of_2(rank - 1))
    return {"TILE": tile, "CHUNK": 128, "num_warps": max(1, tile * tile // 1024)}
