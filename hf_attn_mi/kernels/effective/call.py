"""Effective attention rows from rows that a model has formed: A P, a head at a time while it is in cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.kernels.checks import check_floats, mean_output_error
from hf_attn_mi.kernels.effective.by_row import Shared, project_rows, read_points
from hf_attn_mi.kernels.effective.gram import WELL_CONDITIONED, ValueBasis, epsilon_of, value_basis

TILE = 1 << 18  # entries of a tile of attention: it and what is made of it stay in the caches
EXACT = 1e-5  # relative error that a difference may have where it is taken from two norms
ROWS = 16  # queries of a chunk where masks differ by row: about as many keys are not common to all of its rows


@dataclass(frozen=True, eq=False)
class EffectiveRows:
    """Effective rows of some heads; rank and n have a queries dimension where the masks differ by row."""

    attention: Tensor | None  # (heads, queries, keys), zero where not allowed; None where it was not to be kept
    rank: Tensor  # (heads,) long: rank of the values, of [V, 1] in the affine form
    n: Tensor  # (heads,) long: number of allowed keys
    difference: Tensor  # (heads,) float64 ||A - A_eff||_F / ||A||_F, exactly 0 where n <= rank


@dataclass(frozen=True, eq=False)
class _Call:
    attention: Tensor  # (heads, queries, keys)
    values: Tensor  # (heads, keys, head_dim) of the computation's dtype
    allowed: Tensor  # (heads, 1 or queries, keys) bool
    queries: Tensor | None  # (heads, queries) bool
    whole: bool  # everything is allowed
    outputs: Tensor | None
    affine: bool
    epsilon: float


@torch.no_grad()
def effective_rows(
    attention: Tensor,
    values: Tensor,
    allowed: Tensor,
    *,
    queries: Tensor | None = None,
    outputs: Tensor | None = None,
    affine: bool = False,
    keep: bool = True,
) -> EffectiveRows:
    """Return A P, P the orthogonal projector on the column space of V, or in the affine form of [V, 1].

    Gram matrices and factors are float64, products of rows float32 (float64 for float64 input, and where masks differ
    by row). Rows with n <= rank come back bit for bit. `reference_effective` is the specification.

    Args:
        attention: (heads, queries, keys), non-negative.
        values: (heads, keys, head_dim).
        allowed: bool (heads, queries, keys) or, where all queries of a head see the same keys, (heads, 1, keys).
        queries: bool (heads, queries), True where the query is real; rows of others are zero and not counted.
        outputs: (heads, queries, head_dim), the rows times the values. They save a product where they are float32 or
            wider, the values well conditioned, and the form is not affine.
        affine: the affine form.
        keep: also return the rows; else only rank, n and difference.

    Raises:
        InvalidInputError: not floating point or empty, attention negative or not finite where allowed, values not finite
            there, outputs that are not rows times values.

    Example:
        >>> allowed = torch.ones(1, 1, 2, dtype=torch.bool)
        >>> found = effective_rows(torch.tensor([[[.75, .25]]]), torch.ones(1, 2, 1), allowed)
        >>> found.attention.round(decimals=4).tolist(), found.rank.tolist(), round(float(found.difference), 4)
        ([[[0.5, 0.5]]], [1], 0.4472)
    """
    check_floats("attention", attention, 3)
    check_floats("values", values, 3)
    wide = attention.dtype == values.dtype == torch.float64
    values = values.to(torch.float64 if wide else torch.float32)
    if queries is not None and bool(queries.all()):
        queries = None
    whole = allowed.shape[1] == 1 and queries is None and bool(allowed.all())
    call = _Call(attention, values, allowed, queries, whole, outputs, affine, epsilon_of(attention, values))
    result = torch.empty(attention.shape, dtype=attention.dtype, device=attention.device) if keep else None
    return _one_space(call, result) if allowed.shape[1] == 1 else _by_row(call, result)


def _one_space(call: _Call, result: Tensor | None) -> EffectiveRows:
    """One basis a head; tiles of its rows."""
    heads, queries, keys = call.attention.shape
    dtype, device = call.values.dtype, call.values.device
    seen_keys = call.allowed[:, 0]
    count = seen_keys.sum(-1)
    values = _values_of(call, slice(0, heads), seen_keys)
    space = value_basis(values, count, call.epsilon, center=seen_keys if call.affine else None)
    rank = space.rank + (count > 0) if call.affine else space.rank
    unchanged = (count <= rank).tolist()
    step = max(1, min(queries, TILE // keys))
    places = [slice(start, min(start + step, queries)) for start in range(0, queries, step)]
    norms = torch.zeros(2, heads, len(places), dtype=dtype, device=device)  # of A and of A - A_eff
    lowest = torch.zeros(heads, len(places), dtype=call.attention.dtype, device=device)
    scratch, change = torch.empty(2, step, keys, dtype=dtype, device=device)
    received = None if call.outputs is None else torch.zeros(heads, keys, dtype=dtype, device=device)
    for head in range(heads):
        for number, rows in enumerate(places):
            size = rows.stop - rows.start
            given = call.attention[head, rows]
            if not call.whole:
                given = torch.where(_flags(call, head, rows), given, 0.0)
            torch.amin(given, dim=(0, 1), out=lowest[head, number])
            weights = given if given.dtype == dtype else change[:size].copy_(given)
            torch.linalg.vector_norm(weights, out=norms[0, head, number])
            if received is not None:
                received[head] += weights.sum(0)
            if unchanged[head]:
                if result is not None:
                    result[head, rows] = given
                continue
            reached = _reached(call, space, weights, (head, rows))
            constant = weights.sum(1, keepdim=True) / count[head] if call.affine else None
            left = _norm_left(norms[0, head, number], reached, constant, count[head], space.condition[head])
            if left is not None:
                norms[1, head, number] = left
            if result is None and left is not None:
                continue
            direct = result is not None and result.dtype == dtype
            seen = result[head, rows] if direct and result is not None else scratch[:size]
            torch.mm(reached, space.basis[head].T, out=seen)
            if constant is not None:
                seen += constant
                if not call.whole:
                    seen *= seen_keys[head]
            if result is not None and not direct:
                result[head, rows] = seen
            if left is None:
                torch.linalg.vector_norm(torch.sub(weights, seen, out=change[:size]), out=norms[1, head, number])
    _check_weights(call, lowest, norms[0])
    if received is not None:
        _check_outputs(call, received[:, None] @ values, values)
    whole, left = norms.double().square().sum(2).sqrt()
    return EffectiveRows(result, rank, count, left / whole.where(whole > 0, 1.0))


def _reached(call: _Call, space: ValueBasis, weights: Tensor, place: tuple[int, slice]) -> Tensor:
    """Rows times basis, (rows, head_dim): from the outputs where these are exact enough."""
    head, rows = place
    given = call.outputs
    exact = given is not None and not call.affine and given.dtype in (torch.float32, torch.float64)
    if given is None or not exact or float(space.condition[head]) > WELL_CONDITIONED:
        return weights @ space.basis[head]
    outputs = given[head, rows].to(weights.dtype)
    if call.queries is not None:
        outputs = torch.where(call.queries[head, rows, None], outputs, 0.0)
    return outputs @ space.whitening[head].to(weights.dtype)


def _norm_left(
    norm: Tensor, reached: Tensor, constant: Tensor | None, count: Tensor, condition: Tensor
) -> float | None:
    """Return ||A - A P|| of a tile from ||A||^2 - ||A P||^2; None where that would cost it digits.

    The columns of the basis are orthonormal up to epsilon times the condition number.
    """
    whole, seen = float(norm * norm), float(torch.linalg.vector_norm(reached).square())
    if constant is not None:
        seen += float(torch.linalg.vector_norm(constant).square() * count)
    error = torch.finfo(reached.dtype).eps * (float(condition) + 32) * whole
    left = whole - seen
    return left**0.5 if error <= 2 * EXACT * left else None


def _flags(call: _Call, head: int, rows: slice) -> Tensor:
    """Which keys some rows of a head may see, (1 or rows, keys)."""
    allowed = call.allowed[head, :1] if call.allowed.shape[1] == 1 else call.allowed[head, rows]
    return allowed if call.queries is None else allowed & call.queries[head, rows, None]


def _by_row(call: _Call, result: Tensor | None) -> EffectiveRows:
    """KernelInputs with the same masks together, a chunk of rows at a time."""
    allowed = call.allowed if call.queries is None else call.allowed & call.queries[:, :, None]
    n = torch.zeros(call.attention.shape[:2], dtype=torch.long, device=call.values.device)
    heads, queries, keys = call.attention.shape
    device = call.values.device
    rank = torch.zeros(heads, queries, dtype=torch.long, device=device)
    squares = torch.zeros(2, heads, dtype=torch.float64, device=device)
    step = max(1, min(ROWS, TILE // keys))
    for block in _same_masks(allowed, max(1, TILE // (step * keys))):
        sets = allowed[block.start]
        keys_seen = sets.any(0)
        n[block] = sets.sum(1)
        points = read_points(_values_of(call, block, keys_seen), keys_seen, call.epsilon, affine=call.affine)
        shared: Shared | None = None
        for start in range(0, queries, step):
            rows = slice(start, min(start + step, queries))
            given = torch.where(sets[rows], call.attention[block, rows], 0.0)
            exact = given.double()
            norms = torch.linalg.vector_norm(exact, dim=(1, 2))
            _check_weights(call, given.amin(), norms)
            seen, rank[block, rows], shared = project_rows(exact[:, None], sets[rows], points, shared)
            if result is not None:
                result[block, rows] = seen[:, 0].to(result.dtype)
            squares[0, block] += norms.square()
            squares[1, block] += torch.linalg.vector_norm(exact - seen[:, 0], dim=(1, 2)).square()
    whole, left = squares.sqrt()
    return EffectiveRows(result, rank, n, left / whole.where(whole > 0, 1.0))


def _values_of(call: _Call, heads: slice, keys: Tensor) -> Tensor:
    """Checked values of some heads, zero at keys that no query may see; keys: ([heads,] keys)."""
    values = call.values[heads]
    if not bool(keys.all()):
        values = torch.where(keys[..., None], values, 0.0)
    low, high = torch.aminmax(values)
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        raise InvalidInputError("values has NaN or infinite entries at real keys: mask these keys or mend the values")
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


def _check_weights(call: _Call, lowest: Tensor, norms: Tensor) -> None:
    """Raise InvalidInputError for weights below zero, NaN or infinite; the norms tell the latter, unless they overflow."""
    negative = not bool((lowest >= 0).all())
    if negative or not bool(torch.isfinite(norms).all() or _finite(call)):
        raise InvalidInputError(
            "attention has negative, NaN or infinite weights at real keys: pass rows after the softmax"
        )


def _check_outputs(call: _Call, expected: Tensor, values: Tensor) -> None:
    """Raise InvalidInputError where outputs, summed over queries, are not what rows times values gives: `expected`."""
    assert call.outputs is not None
    outputs = call.outputs.to(values.dtype)
    if call.queries is not None:
        outputs = torch.where(call.queries[:, :, None], outputs, 0.0)
    queries = call.attention.shape[1]
    given = outputs.sum(1, keepdim=True)
    wrong = mean_output_error(given, expected, values, queries, call.outputs.dtype)
    if wrong is not None:
        raise InvalidInputError(
            f"outputs are not rows times values: their mean is off by {wrong:.3g}. Pass the "
            "outputs of this attention, or None."
        )


def _finite(call: _Call) -> bool:
    places = slice(0, call.attention.shape[1])
    return all(
        bool(torch.isfinite(torch.where(_flags(call, head, places), rows, 0.0)).all())
        for head, rows in enumerate(call.attention)
    )
