"""Effective attention rows, and the effective attention that keys receive, in PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.kernels.effective.row_projectors import SharedKeys, project_rows, read_points
from hf_attn_mi.kernels.effective.value_basis import (
    WELL_CONDITIONED,
    ValueBasis,
    epsilon_of,
    inverse_factor,
    rank_cut,
    value_basis,
)
from hf_attn_mi.kernels.inputs import check_outputs

TILE = 1 << 18  # entries of a tile of attention: the tile and its results fit into the caches
EXACT = 1e-5  # relative error that a difference may have where it is taken from two norms
ROWS = 16  # queries of a chunk where queries see different keys: about as many keys are not common to all of its rows
SUMMED = 256  # keys whose products float32 sums at a time: |error of a Gram matrix| <= SUMMED / 2 * epsilon * trace
SETTLED = 3e-4  # largest share that the first correction may have: the second is below its square, 1e-7


@dataclass(frozen=True, eq=False)
class EffectiveRows:
    """Effective rows of some heads; rank and n have a queries dimension where queries see different keys."""

    attention: Tensor  # (heads, queries, keys), zero where not allowed
    rank: Tensor  # (heads,) long: rank of the values, of [V, 1] in the affine form
    n: Tensor  # (heads,) long: number of allowed keys
    null_space_fraction: Tensor  # (heads,) float64 ||A - A_eff||_F / ||A||_F, exactly 0 if n <= rank


@dataclass(frozen=True, eq=False)
class RowInputs:
    """The checked arguments of `effective_rows`."""

    attention: Tensor  # (heads, queries, keys)
    values: Tensor  # (heads, keys, head_dim) of the computation's dtype
    allowed: Tensor  # (heads, 1 or queries, keys) bool
    queries: Tensor | None  # (heads, queries) bool
    all_allowed: bool
    outputs: Tensor | None
    affine: bool
    epsilon: float


def rows_shared(inputs: RowInputs, result: Tensor) -> EffectiveRows:
    """Return the rows of heads whose queries see the same keys: one basis a head, tiles of its rows."""
    heads, queries, keys = inputs.attention.shape
    dtype, device = inputs.values.dtype, inputs.values.device
    visible = inputs.allowed[:, 0]
    count = visible.sum(-1)
    values = _values_of(inputs, slice(0, heads), visible)
    space = value_basis(values, count, inputs.epsilon, center=visible if inputs.affine else None)
    rank = space.rank + (count > 0) if inputs.affine else space.rank
    unchanged = (count <= rank).tolist()
    step = max(1, min(queries, TILE // keys))
    places = [slice(start, min(start + step, queries)) for start in range(0, queries, step)]
    norms = torch.zeros(2, heads, len(places), dtype=dtype, device=device)  # norms of A and of A - A_eff
    lowest = torch.zeros(heads, len(places), dtype=inputs.attention.dtype, device=device)
    scratch, change = torch.empty(2, step, keys, dtype=dtype, device=device)
    received = None if inputs.outputs is None else torch.zeros(heads, keys, dtype=dtype, device=device)
    for head in range(heads):
        for number, rows in enumerate(places):
            size = rows.stop - rows.start
            tile = inputs.attention[head, rows]
            if not inputs.all_allowed:
                tile = torch.where(_flags(inputs, head, rows), tile, 0.0)
            torch.amin(tile, dim=(0, 1), out=lowest[head, number])
            weights = tile if tile.dtype == dtype else change[:size].copy_(tile)
            torch.linalg.vector_norm(weights, out=norms[0, head, number])
            if received is not None:
                received[head] += weights.sum(0)
            if unchanged[head]:
                result[head, rows] = tile
                continue
            reached = _reached(inputs, space, weights, (head, rows))
            constant = weights.sum(1, keepdim=True) / count[head] if inputs.affine else None
            left = _norm_left(norms[0, head, number], reached, constant, count[head], space.condition[head])
            if left is not None:
                norms[1, head, number] = left
            direct = result.dtype == dtype
            projected = result[head, rows] if direct else scratch[:size]
            torch.mm(reached, space.basis[head].T, out=projected)
            if constant is not None:
                projected += constant
                if not inputs.all_allowed:
                    projected *= visible[head]
            if not direct:
                result[head, rows] = projected
            if left is None:
                torch.linalg.vector_norm(torch.sub(weights, projected, out=change[:size]), out=norms[1, head, number])
    _check_weights(inputs, lowest, norms[0])
    if received is not None:
        _check_outputs(inputs, received[:, None] @ values, values)
    whole, left = norms.double().square().sum(2).sqrt()
    return EffectiveRows(result, rank, count, left / whole.where(whole > 0, 1.0))


def _reached(inputs: RowInputs, space: ValueBasis, weights: Tensor, place: tuple[int, slice]) -> Tensor:
    """Rows times basis, (rows, head_dim): from the outputs where these are exact enough."""
    head, rows = place
    outputs = inputs.outputs
    exact = outputs is not None and not inputs.affine and outputs.dtype in (torch.float32, torch.float64)
    if outputs is None or not exact or float(space.condition[head]) > WELL_CONDITIONED:
        return weights @ space.basis[head]
    outputs = outputs[head, rows].to(weights.dtype)
    if inputs.queries is not None:
        outputs = torch.where(inputs.queries[head, rows, None], outputs, 0.0)
    return outputs @ space.whitening[head].to(weights.dtype)


def _norm_left(
    norm: Tensor, reached: Tensor, constant: Tensor | None, count: Tensor, condition: Tensor
) -> float | None:
    """Return ||A - A P|| of a tile from ||A||^2 - ||A P||^2; None if that would lose precision.

    The columns of the basis are orthonormal up to epsilon times the condition number.
    """
    whole, projected = float(norm * norm), float(torch.linalg.vector_norm(reached).square())
    if constant is not None:
        projected += float(torch.linalg.vector_norm(constant).square() * count)
    error = torch.finfo(reached.dtype).eps * (float(condition) + 32) * whole
    left = whole - projected
    return left**0.5 if error <= 2 * EXACT * left else None


def _flags(inputs: RowInputs, head: int, rows: slice) -> Tensor:
    """Which keys some rows of a head may see, (1 or rows, keys)."""
    allowed = inputs.allowed[head, :1] if inputs.allowed.shape[1] == 1 else inputs.allowed[head, rows]
    return allowed if inputs.queries is None else allowed & inputs.queries[head, rows, None]


def rows_per_query(inputs: RowInputs, result: Tensor) -> EffectiveRows:
    """Return the rows where queries see different keys: heads with the same masks together, in chunks of rows."""
    allowed = inputs.allowed if inputs.queries is None else inputs.allowed & inputs.queries[:, :, None]
    n = torch.zeros(inputs.attention.shape[:2], dtype=torch.long, device=inputs.values.device)
    heads, queries, keys = inputs.attention.shape
    device = inputs.values.device
    rank = torch.zeros(heads, queries, dtype=torch.long, device=device)
    squares = torch.zeros(2, heads, dtype=torch.float64, device=device)
    step = max(1, min(ROWS, TILE // keys))
    for block in _same_masks(allowed, max(1, TILE // (step * keys))):
        sets = allowed[block.start]
        visible = sets.any(0)
        n[block] = sets.sum(1)
        points = read_points(_values_of(inputs, block, visible), visible, inputs.epsilon, affine=inputs.affine)
        shared: SharedKeys | None = None
        for start in range(0, queries, step):
            rows = slice(start, min(start + step, queries))
            tile = torch.where(sets[rows], inputs.attention[block, rows], 0.0)
            exact = tile.double()
            norms = torch.linalg.vector_norm(exact, dim=(1, 2))
            _check_weights(inputs, tile.amin(), norms)
            projected, rank[block, rows], shared = project_rows(exact[:, None], sets[rows], points, shared)
            result[block, rows] = projected[:, 0].to(result.dtype)
            squares[0, block] += norms.square()
            squares[1, block] += torch.linalg.vector_norm(exact - projected[:, 0], dim=(1, 2)).square()
    whole, left = squares.sqrt()
    return EffectiveRows(result, rank, n, left / whole.where(whole > 0, 1.0))


def _values_of(inputs: RowInputs, heads: slice, keys: Tensor) -> Tensor:
    """Checked values of some heads, zero at keys that no query may see; keys: ([heads,] keys)."""
    values = inputs.values[heads]
    if not bool(keys.all()):
        values = torch.where(keys[..., None], values, 0.0)
    low, high = torch.aminmax(values)
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        raise InvalidInputError("values has NaN or infinite entries at real keys: mask these keys or correct them")
    return values


def _same_masks(allowed: Tensor, most: int) -> list[slice]:
    """Runs of heads, at most so many, with the same masks."""
    runs, first = [], 0
    expanded = allowed.stride(0) == 0
    for head in range(1, allowed.shape[0] + 1):
        ends = head == allowed.shape[0] or head - first == most
        if ends or not (expanded or torch.equal(allowed[head], allowed[first])):
            runs.append(slice(first, head))
            first = head
    return runs


def _check_weights(inputs: RowInputs, lowest: Tensor, norms: Tensor) -> None:
    """Raise InvalidInputError for negative, NaN or infinite weights; finite norms rule out the last two."""
    negative = not bool((lowest >= 0).all())
    if negative or not bool(torch.isfinite(norms).all() or _finite(inputs)):
        raise InvalidInputError(
            "attention has negative, NaN or infinite weights at real keys: pass rows after the softmax"
        )


def _check_outputs(inputs: RowInputs, expected: Tensor, values: Tensor) -> None:
    """Raise InvalidInputError where outputs, summed over queries, are not what rows times values gives: `expected`."""
    assert inputs.outputs is not None
    outputs = inputs.outputs.to(values.dtype)
    if inputs.queries is not None:
        outputs = torch.where(inputs.queries[:, :, None], outputs, 0.0)
    queries = inputs.attention.shape[1]
    check_outputs("outputs are", outputs.sum(1, keepdim=True), expected, values, queries, inputs.outputs.dtype)


def _finite(inputs: RowInputs) -> bool:
    places = slice(0, inputs.attention.shape[1])
    return all(
        bool(torch.isfinite(torch.where(_flags(inputs, head, places), rows, 0.0)).all())
        for head, rows in enumerate(inputs.attention)
    )


@torch.no_grad()
def received_weights(outputs: Tensor, values: Tensor, keys: Tensor, queries: Tensor) -> Tensor:
    """Return (batch, heads, keys) w_j = < mean_i o_i, (V^T V)^+ v_j >, the mean of the rows of A P, in O(n d^2).

    Gram matrices are summed in float64 or, for well-conditioned values in float32 or half precision, in float32 by
    parts of SUMMED keys: then their error is certainly too small to change the rank, and one correction from the
    residual of the mean output (corrected seminormal equations: Bjorck 1987) brings the weights to the accuracy of
    float32.

    Args:
        outputs: (batch, heads, queries, head_dim), finite.
        values: (batch, kv_heads, keys, head_dim), finite.
        keys: (batch, keys) bool, real keys.
        queries: (batch, queries) bool, real queries.

    Example:
        >>> values = torch.tensor([[[[1., 0.], [0., 2.], [0., 2.]]]])
        >>> flags = torch.ones(1, 3, dtype=torch.bool)
        >>> received_weights(torch.tensor([[[[.5, 1.]]]]), values, flags, flags[:, :1])
        tensor([[[0.5000, 0.2500, 0.2500]]])
    """
    batch, kv_heads, length, dim = values.shape
    dtype = torch.float64 if outputs.dtype == values.dtype == torch.float64 else torch.float32
    base = values.to(dtype)
    if not bool(keys.all()):
        base = torch.where(keys[:, None, :, None], base, 0.0)
    base = base.flatten(0, 1)
    if bool(queries.all()):
        mean = outputs.to(dtype).mean(2)
    else:
        flags = queries[:, None, :, None]
        mean = torch.where(flags, outputs.to(dtype), 0.0).sum(2) / flags.sum(2).clamp_min(1)
    mean = mean.reshape(base.shape[0], -1, dim)  # (kv heads of all examples, groups, head_dim)
    count = keys.sum(1)[:, None].expand(batch, kv_heads).reshape(-1)
    epsilon = epsilon_of(values, outputs)
    weights = _in_float32(base, mean, count, epsilon) if dtype == torch.float32 else None
    if weights is None:
        space = value_basis(base, count, epsilon, columns=False)
        solved = (mean.double() @ space.whitening) @ space.whitening.transpose(1, 2)
        weights = solved.to(dtype) @ base.transpose(1, 2)
    return weights.view(batch, -1, length)


def _in_float32(values: Tensor, mean: Tensor, count: Tensor, epsilon: float) -> Tensor | None:
    """Weights by way of a float32 Gram matrix; None if that is not certainly enough.

    Args:
        values: (kv heads, keys, head_dim) float32.
        mean: (kv heads, groups, head_dim) mean outputs.
        count: (kv heads,) number of real keys.
        epsilon: see `epsilon_of`.
    """
    dim = values.shape[2]
    if int(count.min()) < dim or torch.get_float32_matmul_precision() != "highest":
        return None
    gram = torch.zeros(values.shape[0], dim, dim, dtype=torch.float64, device=values.device)
    for start in range(0, values.shape[1], SUMMED):
        part = values[:, start : start + SUMMED]
        gram += part.transpose(1, 2) @ part
    trace = gram.diagonal(dim1=1, dim2=2).sum(1)
    error = SUMMED / 2 * epsilon * trace
    normal = torch.finfo(torch.float32).tiny / epsilon**2  # products of smaller values would underflow
    if not bool(((trace > normal) & (trace < torch.inf)).all()):
        return None
    inverse, smallest = inverse_factor(gram)
    if not bool((smallest > 2 * error + 2 * rank_cut(count, dim, epsilon) * trace).all()):
        return None
    first = mean.double() @ inverse.transpose(1, 2)  # L^-1 of the mean output: its size is that of the weights
    weights = (first @ inverse).float() @ values.transpose(1, 2)
    second = (mean - weights @ values).double() @ inverse.transpose(1, 2)
    if not bool((second.norm(dim=2) <= SETTLED * first.norm(dim=2)).all()):
        return None
    return weights + (second @ inverse).float() @ values.transpose(1, 2)
