"""Efficient attention: the distribution over few keys that gives the same head output, none of them dispensable."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from hf_attn_mi.attention.inputs import HeadBatch, read_heads
from hf_attn_mi.attention.neighbours import solve_from_neighbours
from hf_attn_mi.attention.points import times_own
from hf_attn_mi.attention.problems import Problems, cut_problems
from hf_attn_mi.attention.pursuit import pursue
from hf_attn_mi.attention.vertex import Rows, Solution
from hf_attn_mi.errors import InvalidInput

_ZERO = 1e-12  # weights below this are rounding of a weight of zero
_TIE = 1e-7  # size of the second, lexicographic cost relative to the row's largest cost


@dataclass(frozen=True)
class EfficientAttention:
    """Efficient attention with its certificates, one for each row. Pad queries and fully masked rows are zero rows."""

    attention: Tensor  # (..., queries, keys), dtype of the given attention
    support: Tensor  # (..., queries) long: number of keys with weight
    residual: Tensor  # (..., queries) || sum_j e_j v_j - o || / || o ||, float64, before the cast to the input dtype
    gap: Tensor  # (..., queries) smallest reduced-cost gap / largest cost; inf: no other row; nan: tolerance > 0
    smallest_weight: Tensor  # (..., queries) smallest weight of the support
    smallest_singular: Tensor  # (..., queries) see efficient_attention; nan: tolerance > 0
    optimal: Tensor  # (..., queries) bool: dual feasible, weights >= 0; with a tolerance: the tolerance is met


@torch.no_grad()
def efficient_attention(
    attention: Tensor,
    values: Tensor,
    mask: Tensor | None = None,
    *,
    tolerance: float = 0.0,
    objective: str = "own",
    query_mask: Tensor | None = None,
) -> EfficientAttention:
    """Return for each row the vertex of its polytope of equivalent rows that keeps most of the row's own attention.

    e_i = argmax sum_j a_ij b_j over F(a_i) = {b >= 0: sum_j b_j v_j = o_i, sum_j b_j = 1}; among equals, low key
    numbers: the cost is a_ij / max_j a_ij - 1e-7 t_j, t rising from 0 to 1 over the real keys. Our operationalisation
    of the efficient attention of Naim and Asher (arXiv 2410.18541). Sufficient: `residual`. Necessary: the kept keys
    have affinely independent values, so no fewer of them reach o_i; `smallest_weight` and `smallest_singular` say how
    firmly: the smallest singular value of the kept keys' rows in an orthonormal basis of the columns of [V, 1], at
    most 1, the same for affine maps of the values (a lower bound where support < rank). n <= rank([V, 1]): the row
    itself, unchanged.

    Computed in float64; each row is first divided by its sum over real keys, and o_i is defined by the result.
    Directions in which the values differ by less than the precision of the input are ignored and weights below 1e-12
    are zero: the residual grows to that size where they matter (an output that nearly vanishes against the values).

    Args:
        attention: (..., queries, keys), non-negative, rows summing to one.
        values: (..., keys, head_dim); leading dimensions broadcast.
        mask: bool, True where the key is real: (..., keys), (batch, keys) or, by row, (..., queries, keys).
        tolerance: 0, or in (0, 1): the shortest row found by greedy pursuit with || o - sum_j b_j v_j || <= tolerance *
            || o - mean v ||. The support never grows with the tolerance. It is short, not the shortest possible.
        objective: "own", or "head" for the mean attention of the head's rows (with equal allowed keys) as cost: one
            triangulation of the values for all rows, and a row that depends continuously on its output.
        query_mask: bool, True where the query is real.

    Raises:
        InvalidInput: shapes, dtypes, values, tolerance or objective that do not fit.

    Example:
        >>> efficient = efficient_attention(torch.full((1, 4), .25), torch.tensor([[0.], [1.], [2.], [3.]]))
        >>> int(efficient.support), bool(efficient.residual < 1e-12)
        (2, True)
    """
    if not 0.0 <= tolerance < 1.0:
        raise InvalidInput(f"tolerance is {tolerance}: it must be 0 (exact) or between 0 and 1")
    if objective not in ("own", "head"):
        raise InvalidInput(f'objective is {objective!r}: it must be "own" or "head"')
    heads = read_heads(attention, values, mask, query_mask)
    result = _nothing(heads)
    for problems in cut_problems(heads):
        part = _exact(problems, objective)
        if tolerance > 0:
            part = _shortened(problems, part, tolerance)
        elif problems.points.shape[1] <= problems.points.shape[2]:  # the given row, not divided by its sum
            given = heads.attention.flatten(0, 1)[problems.place].gather(1, problems.keys)
            part = replace(part, attention=given.double())
        _write(result, part, problems)
    queries, keys = heads.attention.shape[1:]
    shaped = {name: whole.reshape(*heads.lead, queries) for name, whole in result.items() if name != "attention"}
    rows = result["attention"].to(attention.dtype).reshape(*heads.lead, queries, keys)
    return EfficientAttention(attention=rows, **shaped)


def _nothing(heads: HeadBatch) -> dict[str, Tensor]:
    """Return the answer for rows without attention, to be filled in: flat over heads * queries."""
    count, keys = heads.attention.shape[0] * heads.attention.shape[1], heads.attention.shape[2]
    empty = heads.values.new_zeros(count)
    return {
        "attention": heads.values.new_zeros(count, keys),
        "support": empty.long(),
        "residual": empty.clone(),
        "gap": empty + torch.inf,
        "smallest_weight": empty.clone(),
        "smallest_singular": empty + 1,
        "optimal": torch.ones_like(empty, dtype=torch.bool),
    }


def _write(result: dict[str, Tensor], part: EfficientAttention, problems: Problems) -> None:
    """Put the rows of one batch of problems in their places."""
    result["attention"][problems.place[:, None], problems.keys] = part.attention
    for field in fields(part):
        if field.name != "attention":
            result[field.name][problems.place] = getattr(part, field.name)


def _exact(problems: Problems, objective: str) -> EfficientAttention:
    """Return the vertices of one batch of problems, rows over their own keys."""
    keys, rank = problems.points.shape[1:]
    if keys <= rank:
        firm = torch.ones_like(problems.weights[:, 0])
        return _describe(problems, problems.weights, firm * torch.inf, firm, firm.bool())
    cost = problems.weights
    if objective == "head":
        heads = len(problems.points)
        total = cost.new_zeros(heads, keys).index_add(0, problems.problem, cost)
        cost = (total / torch.bincount(problems.problem, minlength=heads).clamp_min(1)[:, None])[problems.problem]
    cost = cost / cost.amax(1, keepdim=True) - _TIE * _rising(keys, cost)
    target = times_own(problems.weights, problems.points, problems.problem)
    solution = solve_from_neighbours(Rows(problems.points, problems.problem, target, cost), problems.weights)
    weights = solution.weights.where(solution.weights > _ZERO, torch.zeros_like(solution.weights))
    rows = torch.zeros_like(problems.weights).scatter(1, solution.basis.keys, weights)
    return _describe(problems, rows, solution.gap.clamp_min(0), _smallest_singular(solution), solution.optimal)


def _shortened(problems: Problems, exact: EfficientAttention, tolerance: float) -> EfficientAttention:
    """Return the pursuit's rows, or the exact ones where these are as short (so that no tolerance lengthens a row)."""
    centred = problems.values - problems.values.mean(1, keepdim=True)
    found_rows, found = pursue(centred, problems.problem, problems.weights, tolerance)
    shorter = found & ((found_rows > 0).sum(1) < exact.support)
    rows = torch.where(shorter[:, None], found_rows, exact.attention)
    unknown = torch.full_like(exact.gap, torch.nan)
    return _describe(problems, rows, unknown, unknown, shorter | exact.optimal)


def _describe(
    problems: Problems, rows: Tensor, gap: Tensor, smallest_singular: Tensor, optimal: Tensor
) -> EfficientAttention:
    """Return the rows with what can be read off them."""
    wanted = times_own(problems.weights, problems.values, problems.problem)
    missed = times_own(rows, problems.values, problems.problem) - wanted
    length = wanted.norm(dim=1)
    kept = rows > 0
    return EfficientAttention(
        attention=rows,
        support=kept.sum(1),
        residual=missed.norm(dim=1) / length.where(length > 0, torch.ones_like(length)),
        gap=gap,
        smallest_weight=torch.where(kept, rows, torch.inf).amin(1),
        smallest_singular=smallest_singular,
        optimal=optimal,
    )


def _smallest_singular(solution: Solution) -> Tensor:
    """Return the smallest singular value of the basis; for a support smaller than the basis it is a lower bound."""
    inverse = solution.basis.inverse
    largest: Tensor = torch.linalg.eigvalsh(inverse @ inverse.transpose(1, 2))[:, -1]
    return largest.rsqrt()


def _rising(keys: int, like: Tensor) -> Tensor:
    """Return numbers that rise from 0 to 1 without a pattern: an arithmetic progression may itself tie (v_j = j)."""
    number = torch.arange(keys, dtype=like.dtype, device=like.device)
    return (number + (number * 0.6180339887498949).frac()) / keys
