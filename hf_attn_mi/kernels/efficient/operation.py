"""Efficient attention rows: for each row the vertex of its polytope of equivalent rows that keeps most attention."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.kernels.dispatch import choose_backend, implementation
from hf_attn_mi.kernels.efficient.problems import Problems, cut_problems, times_head_matrix
from hf_attn_mi.kernels.efficient.pursuit import pursue
from hf_attn_mi.kernels.efficient.torch import Rows, Vertices
from hf_attn_mi.kernels.inputs import check_attention_weights, check_floats
from hf_attn_mi.kernels.threads import sharing_threads

# Rows of one call from which numba is taken, whatever was called before; loading it takes as long as 600 rows.
NUMBA_ROWS = 128
TRITON_RANK = 129  # largest rank of [V, 1]: the inverse of a larger basis does not fit into a program's registers
RESIDUAL = 1e-6  # an exact row whose residual is larger is not optimal
_MISSED = RESIDUAL / 2  # residual above which a row is solved again with every digit of the values
_ZERO = 1e-12  # weights below this are rounding of a weight of zero
_TIE = 1e-7  # size of the second, lexicographic cost relative to the row's largest cost


@dataclass(frozen=True)
class EfficientRows:
    """Efficient rows with their certificates, one for each row. Rows without attention are zero rows."""

    attention: Tensor  # (heads, queries, keys), dtype of the attention passed
    support: Tensor  # (heads, queries) long: number of keys with weight
    residual: Tensor  # (heads, queries) || sum_j e_j v_j - o || / || o ||, float64, before the cast to the input dtype
    gap: Tensor  # (heads, queries) smallest reduced-cost gap / largest cost; inf: no other row; nan: tolerance > 0
    smallest_weight: Tensor  # (heads, queries) smallest weight of the support
    smallest_singular: Tensor  # (heads, queries) of the kept keys' points; nan: tolerance > 0
    # bool: dual feasible, weights >= 0 and residual <= 1e-6; with a tolerance: the tolerance is met
    optimal: Tensor  # (heads, queries)
    backend: str  # which solver ran: "torch", "numba" or "triton"


@torch.no_grad()
def efficient_rows(
    attention: Tensor,
    values: Tensor,
    allowed: Tensor | None = None,
    *,
    tolerance: float = 0.0,
    objective: str = "own",
    backend: str = "auto",
) -> EfficientRows:
    """Return for each row the vertex of its polytope of equivalent rows that keeps most of the row's own attention.

    For the certificates and the tolerance form see `hf_attn_mi.attention.efficient_attention`. The optimum is unique,
    so every backend returns the same rows.

    Args:
        attention: (heads, queries, keys), non-negative; rows are divided by their sums over allowed keys.
        values: (heads, keys, head_dim).
        allowed: (heads, 1 or queries, keys) bool, True where a row may see the key. Entries of other keys are not read.
        tolerance: 0, or in (0, 1).
        objective: "own" or "head".
        backend: "numba" (extra `fast`, tensors on the CPU), "triton" (extra `gpu`, tensors on CUDA, at most 128
            dimensions or 129 keys), "torch", or "auto": triton on CUDA where it can run; numba on the CPU where it can
            and there are 128 rows or more (its first call ever compiles for half a minute); else torch.

    Raises:
        InvalidInputError: shapes, dtypes, values or options that do not fit.
        BackendUnavailableError: the requested backend is not installed, or cannot do this call.

    Example:
        >>> rows = efficient_rows(torch.full((1, 1, 4), .25), torch.tensor([[[0.], [1.], [2.], [3.]]]))
        >>> int(rows.support), bool(rows.residual < 1e-12)
        (2, True)
    """
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0.0 <= tolerance < 1.0:
        raise InvalidInputError(f"tolerance is {shown(tolerance)}: it must be 0 (exact) or between 0 and 1")
    if objective not in ("own", "head"):
        raise InvalidInputError(f'objective is {shown(objective)}: it must be "own" or "head"')
    rows, wide, allowed = _read(attention, values, allowed)
    chosen = choose_backend(
        "efficient_rows",
        backend,
        values.device,
        refusals={"triton": _triton_refusal(*values.shape[1:])},
        avoid=("numba",) if rows.shape[:2].numel() < NUMBA_ROWS else (),
    )
    result = _nothing(rows)
    recheck = tolerance == 0 and objective == "own"  # the objective "head" is that of all rows of a head together
    epsilon = max(_epsilon(attention.dtype), _epsilon(values.dtype))
    # Compiled rows take a thread for each head; between them are operations too short for several threads to share one.
    with sharing_threads(values.device, len(values) if chosen == "numba" else 1) as threads:
        for problems in _passes(rows, wide, allowed, epsilon, result["residual"] if recheck else None):
            part = _exact(problems, objective, chosen, threads)
            if tolerance > 0:
                part = _shortened(problems, part, tolerance)
            elif problems.points.shape[1] <= problems.points.shape[2]:  # the row itself, not divided by its sum
                unchanged = rows.flatten(0, 1)[problems.place].gather(1, problems.keys)
                part = replace(part, attention=unchanged.double())
            _write(result, part, problems)
    if tolerance == 0:
        result["optimal"] &= result["residual"] <= RESIDUAL
    heads, queries, keys = rows.shape
    shaped = {name: whole.reshape(heads, queries) for name, whole in result.items() if name != "attention"}
    return EfficientRows(attention=result["attention"].reshape(heads, queries, keys), backend=chosen, **shaped)


def _passes(
    rows: Tensor, values: Tensor, allowed: Tensor, epsilon: float, residual: Tensor | None
) -> Iterator[Problems]:
    """All problems, then once more those of rows whose `residual` has become too large, with every digit of the values.

    There a direction in which the values differ by no more than their rounding was ignored, and shows in the output.
    """
    yield from cut_problems(rows, values, allowed, epsilon)
    precise = _epsilon(torch.float64)
    if residual is None or epsilon <= precise:
        return
    missed = (residual > _MISSED).view(*rows.shape[:2], 1)
    if bool(missed.any()):
        yield from cut_problems(rows.where(missed, torch.zeros_like(rows)), values, allowed, precise)


def _triton_refusal(keys: int, dim: int) -> str | None:
    """Why the Triton kernel cannot solve these rows, None if it can."""
    if min(keys, dim + 1) > TRITON_RANK:
        return f"{keys} values of {dim} dimensions: it takes at most {TRITON_RANK - 1} dimensions or {TRITON_RANK} keys"
    return None


def _read(attention: Tensor, values: Tensor, allowed: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return checked attention, values in float64 and allowed keys, with zeros where a key is not allowed."""
    check_floats("attention", attention, 3)
    check_floats("values", values, 3)
    heads, queries, keys = attention.shape
    if values.shape[:2] != (heads, keys):
        raise InvalidInputError(
            f"values has shape {tuple(values.shape)}, attention {tuple(attention.shape)}: they must be "
            "(heads, keys, head_dim) and (heads, queries, keys)"
        )
    if values.device != attention.device:
        raise InvalidInputError(f"values are on {values.device}, attention on {attention.device}: move one of them")
    wide = values.double()
    if allowed is None:
        allowed = torch.ones(1, 1, 1, dtype=torch.bool, device=attention.device).expand(heads, 1, keys)
    else:
        if allowed.dtype != torch.bool or tuple(allowed.shape) not in ((heads, 1, keys), (heads, queries, keys)):
            raise InvalidInputError(
                f"allowed is {allowed.dtype} of shape {tuple(allowed.shape)}: it must be bool of shape "
                f"{(heads, 1, keys)} or {(heads, queries, keys)}"
            )
        attention = attention.where(allowed, torch.zeros_like(attention))
        wide = wide.where(allowed.any(1)[:, :, None], torch.zeros_like(wide))
    check_attention_weights("attention", *torch.aminmax(attention))
    if not bool(torch.isfinite(wide).all()):
        raise InvalidInputError("values has NaN or infinite entries at real keys: mask these keys or correct them")
    return attention, wide, allowed


def _nothing(attention: Tensor) -> dict[str, Tensor]:
    """Return the answer for rows without attention, to be filled in: flat over heads * queries."""
    count = attention.shape[0] * attention.shape[1]
    empty = torch.zeros(count, dtype=torch.float64, device=attention.device)
    return {
        "attention": attention.new_zeros(count, attention.shape[2]),
        "support": empty.long(),
        "residual": empty.clone(),
        "gap": empty + torch.inf,
        "smallest_weight": empty.clone(),
        "smallest_singular": empty + 1,
        "optimal": torch.ones_like(empty, dtype=torch.bool),
    }


def _write(result: dict[str, Tensor], part: EfficientRows, problems: Problems) -> None:
    """Put the rows of one batch of problems in their places."""
    whole, rows = result["attention"], part.attention.to(result["attention"].dtype)
    if problems.keys.shape[1] == whole.shape[1]:
        whole[problems.place] = rows
    else:
        whole[problems.place[:, None], problems.keys] = rows
    for field in fields(part):
        if field.name not in ("attention", "backend"):
            result[field.name][problems.place] = getattr(part, field.name)


def _exact(problems: Problems, objective: str, backend: str, threads: int) -> EfficientRows:
    """Return the vertices of one batch of problems, rows over their own keys."""
    keys, rank = problems.points.shape[1:]
    if keys <= rank:
        firm = torch.ones_like(problems.weights[:, 0])
        return _describe(problems, problems.weights, firm * torch.inf, firm, firm.bool(), backend)
    cost = problems.weights
    if objective == "head":
        heads = len(problems.points)
        total = cost.new_zeros(heads, keys).index_add(0, problems.problem, cost)
        cost = (total / torch.bincount(problems.problem, minlength=heads).clamp_min(1)[:, None])[problems.problem]
    cost = cost / cost.amax(1, keepdim=True) - _TIE * _rising(keys, cost)
    target = times_head_matrix(problems.weights, problems.points, problems.problem)
    vertices = _solve(Rows(problems.points, problems.problem, target, cost, threads), problems.weights, backend)
    weights = vertices.weights.where(vertices.weights > _ZERO, torch.zeros_like(vertices.weights))
    rows = torch.zeros_like(problems.weights).scatter(1, vertices.keys, weights)
    return _describe(problems, rows, vertices.gap.clamp_min(0), vertices.smallest_singular, vertices.optimal, backend)


def _solve(rows: Rows, weights: Tensor, backend: str) -> Vertices:
    """Return the vertices from one backend; rows that it gave up come from PyTorch."""
    vertices: Vertices = implementation("efficient_rows", backend)(rows, weights)
    failed = (~vertices.optimal).nonzero()[:, 0]
    if backend == "torch" or not len(failed):
        return vertices
    retried: Vertices = implementation("efficient_rows", "torch")(rows.take(failed), weights[failed])
    return Vertices(
        *(
            getattr(vertices, field.name).index_copy(0, failed, getattr(retried, field.name))
            for field in fields(Vertices)
        )
    )


def _shortened(problems: Problems, exact: EfficientRows, tolerance: float) -> EfficientRows:
    """Return the pursuit's rows, or the exact ones where these are as short (so that no tolerance lengthens a row)."""
    centered = problems.values - problems.values.mean(1, keepdim=True)
    pursued, reached = pursue(centered, problems.problem, problems.weights, tolerance)
    shorter = reached & ((pursued > 0).sum(1) < exact.support)
    rows = torch.where(shorter[:, None], pursued, exact.attention)
    unknown = torch.full_like(exact.gap, torch.nan)
    return _describe(problems, rows, unknown, unknown, shorter | exact.optimal, exact.backend)


def _describe(
    problems: Problems, rows: Tensor, gap: Tensor, smallest_singular: Tensor, optimal: Tensor, backend: str
) -> EfficientRows:
    """Return the rows with what can be read off them."""
    output = times_head_matrix(problems.weights, problems.values, problems.problem)
    missed = times_head_matrix(rows, problems.values, problems.problem) - output
    length = output.norm(dim=1)
    kept = rows > 0
    return EfficientRows(
        attention=rows,
        support=kept.sum(1),
        residual=missed.norm(dim=1) / length.where(length > 0, torch.ones_like(length)),
        gap=gap,
        smallest_weight=torch.where(kept, rows, torch.inf).amin(1),
        smallest_singular=smallest_singular,
        optimal=optimal,
        backend=backend,
    )


def _rising(keys: int, like: Tensor) -> Tensor:
    """Return numbers that rise from 0 to 1 without a pattern: an arithmetic progression may itself tie (v_j = j)."""
    number = torch.arange(keys, dtype=like.dtype, device=like.device)
    return (number + (number * 0.6180339887498949).frac()) / keys


def _epsilon(dtype: torch.dtype) -> float:
    # Half precision is computed in float32 or float64; its own epsilon times the number of keys would exceed one.
    return float(torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps)
