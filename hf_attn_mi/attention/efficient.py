"""Efficient attention: a distribution over few keys with the same head output; how necessary and how many they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.attention.inputs import read_heads
from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.kernels.efficient import efficient_rows
from hf_attn_mi.kernels.efficient.problems import cut_problems
from hf_attn_mi.kernels.efficient.pursuit import pursue

_BATCH = 512  # rows that `necessity_distance` factors together


@dataclass(frozen=True)
class EfficientAttention:
    """Efficient attention with its certificates, one for each row. Rows of padding and fully masked rows are zero.

    Attributes:
        attention: (..., queries, keys), in the dtype of the argument.
        support_size: (..., queries) long, number of keys with weight.
        residual: (..., queries) float64, || sum_j e_j v_j - o || / || o ||, before the cast to the input dtype.
        gap: (..., queries) smallest reduced-cost gap / largest cost; inf: there is no other row; nan: tolerance > 0.
        smallest_weight: (..., queries) smallest weight of the kept keys.
        smallest_singular: (..., queries) see `efficient_attention`; nan: tolerance > 0.
        optimal: (..., queries) bool: dual feasible, weights >= 0 and residual <= 1e-6; with a tolerance: the tolerance
            is met.
        backend: the solver that ran: "torch", "numba" or "triton".
    """

    attention: Tensor
    support_size: Tensor
    residual: Tensor
    gap: Tensor
    smallest_weight: Tensor
    smallest_singular: Tensor
    optimal: Tensor
    backend: str


@torch.no_grad()
def efficient_attention(
    attention: Tensor,
    values: Tensor,
    mask: Tensor | None = None,
    *,
    tolerance: float = 0.0,
    objective: str = "own",
    query_mask: Tensor | None = None,
    backend: str = "auto",
) -> EfficientAttention:
    """Return for each row the vertex of the polytope of equivalent rows that keeps most of the row's attention.

    e_i = argmax sum_j a_ij b_j over F(a_i) = {b >= 0: sum_j b_j v_j = o_i, sum_j b_j = 1}. Ties go to low key numbers:
    the cost is a_ij / max_j a_ij - 1e-7 t_j, where t rises from 0 to 1 over the real keys. This is our
    operationalization of the efficient attention of Naim and Asher (arXiv 2410.18541).

    Sufficient: the kept keys give the output, up to `residual`. Necessary: the values of the kept keys are affinely
    independent, so no proper subset of them gives o_i. How far a kept key is from being dispensable is stated by
    `smallest_weight` and by `smallest_singular`, the smallest singular value of the kept keys' rows in an orthonormal
    basis of the columns of [V, 1]: at most 1, invariant under affine maps of the values, a lower bound where
    support_size < rank. Where n <= rank([V, 1]) the row itself is returned, unchanged.

    Computed in float64; each row is first divided by its sum over real keys, and o_i is defined by the result.
    Directions in which the values differ by less than the precision of the input are ignored, unless that leaves a
    residual above 5e-7: then the row is solved again with every digit of the values. Weights below 1e-12 are zero:
    where they matter (an output much smaller than the values), the residual grows and the row is not optimal.

    Args:
        attention: (..., queries, keys), non-negative, rows summing to one.
        values: (..., keys, head_dim); leading dimensions broadcast.
        mask: bool, True where the key is real: (..., keys), (batch, keys) or, by row, (..., queries, keys).
        tolerance: 0, or in (0, 1): the shortest row found by greedy pursuit with || o - sum_j b_j v_j || <= tolerance *
            || o - mean v ||. The support never grows with the tolerance. It is short, not the shortest possible.
        objective: the cost: "own" for the row's own attention, "head" for the mean attention of the head's rows with
            equal allowed keys. "head" is one triangulation of the values for all rows: each row depends continuously on
            its output.
        query_mask: bool, True where the query is real.
        backend: "numba" (extra `fast`, tensors on the CPU), "triton" (extra `gpu`, tensors on CUDA, at most 128
            dimensions or 129 keys), "torch", or "auto": the fastest that can run. All return the same rows.

    Raises:
        InvalidInputError: shapes, dtypes, values, tolerance, objective or backend that do not fit.
        BackendUnavailableError: the requested backend is not installed or does not support this call.

    Example:
        >>> efficient = efficient_attention(torch.full((1, 4), .25), torch.tensor([[0.], [1.], [2.], [3.]]))
        >>> int(efficient.support_size), bool(efficient.residual < 1e-12)
        (2, True)
    """
    heads = read_heads(attention, values, mask, query_mask)
    rows = efficient_rows(
        heads.attention,
        heads.values.to(values.dtype),  # the precision of the argument decides what counts as zero
        heads.allowed,
        tolerance=tolerance,
        objective=objective,
        backend=backend,
    )
    shape = heads.lead + heads.attention.shape[1:2]
    return EfficientAttention(
        attention=rows.attention.reshape(shape + heads.attention.shape[2:]),
        support_size=rows.support.reshape(shape),
        residual=rows.residual.reshape(shape),
        gap=rows.gap.reshape(shape),
        smallest_weight=rows.smallest_weight.reshape(shape),
        smallest_singular=rows.smallest_singular.reshape(shape),
        optimal=rows.optimal.reshape(shape),
        backend=rows.backend,
    )


@torch.no_grad()
def necessity_distance(attention: Tensor, values: Tensor, rows: Tensor | None = None) -> Tensor:  # (rows, keys)
    """Return for each kept key of a row a lower bound on the error of the row's output without that key.

    A row e keeps the keys J = {j: e_j > 0} and gives o = sum_j e_j v_j. Where the values of J are affinely independent,
    e_j is the barycentric coordinate of o at v_j, an affine function with gradient g_j inside the affine hull of J, so

        distance(o, affine hull of J without j) = e_j / || g_j ||  <=  distance(o, convex hull of J without j).

    The right side is the smallest || o - sum_k b_k v_k || over all distributions b on the other kept keys; it needs a
    quadratic program, the left side one small inverse for each row. Where the values of J are not affinely independent
    the distance is 0: one of the keys is dispensable. For the only key of a row it is inf.

    Args:
        attention: (heads, queries, keys), rows of `efficient_attention`; each is divided by its sum.
        values: (heads, keys, head_dim).
        rows: (rows,) long, numbers of the rows, head * queries + query; None for all, in order.

    Returns:
        (rows, keys) float64 in the unit of the values; nan at keys without weight.

    Raises:
        InvalidInputError: shapes, dtypes, weights or row numbers that do not fit.

    Example:
        >>> values = torch.tensor([[[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [9.0, 9.0]]])
        >>> necessity_distance(torch.tensor([[[0.5, 0.25, 0.25, 0.0]]]), values).round(decimals=4)
        tensor([[1.4142, 1.0000, 1.0000,    nan]], dtype=torch.float64)
    """
    if attention.dim() != 3 or values.dim() != 3:
        raise InvalidInputError(
            f"attention {tuple(attention.shape)} and values {tuple(values.shape)} must be (heads, queries, keys) and "
            "(heads, keys, head_dim)"
        )
    heads = read_heads(attention, values, None)
    count, queries, keys = heads.attention.shape
    which = torch.arange(count * queries, device=attention.device) if rows is None else rows.to(attention.device)
    if which.dim() != 1 or which.dtype != torch.long or bool(((which < 0) | (which >= count * queries)).any()):
        raise InvalidInputError(f"rows must be numbers from 0 to {count * queries - 1}, (rows,) of dtype long")
    selected = heads.attention.reshape(-1, keys)[which].double()
    head = which // queries
    distances = torch.full_like(selected, torch.nan)
    sizes = (selected > 0).sum(1)
    for size in sorted(set(sizes.tolist()) - {0}):
        for part in (sizes == size).nonzero()[:, 0].split(_BATCH):
            kept = (selected[part] > 0).nonzero()[:, 1].view(len(part), size)
            weights = selected[part].gather(1, kept)
            points = heads.values[head[part][:, None], kept]
            distances[part[:, None], kept] = _distances(weights / weights.sum(1, keepdim=True), points)
    return distances


def _distances(weights: Tensor, points: Tensor) -> Tensor:
    """Return weights / gradient norms: (rows, kept) from weights (rows, kept) and points (rows, kept, head_dim)."""
    size, dim = points.shape[1:]
    if size == 1:
        return torch.full_like(weights, torch.inf)
    if size > dim + 1:
        return torch.zeros_like(weights)  # more points than an affinely independent set can have
    edges = points[:, 1:] - points[:, :1]
    left, sizes, right = torch.linalg.svd(edges, full_matrices=False)
    independent = sizes[:, -1] > max(size, dim) * torch.finfo(torch.float64).eps * sizes[:, 0]
    others = right.mT / sizes.where(sizes > 0, torch.ones_like(sizes))[:, None, :] @ left.mT
    gradients = torch.cat([-others.sum(2, keepdim=True), others], dim=2)  # coordinates sum to one, gradients to zero
    return torch.where(independent[:, None], weights / gradients.norm(dim=1), torch.zeros_like(weights))


@dataclass(frozen=True, eq=False)
class ToleranceCurve:
    """Support size of each row, and its mean over the rows of each head, for every tolerance.

    Attributes:
        tolerances: the tolerances, smallest first; 0 is the exact row.
        support_size: (tolerances, ..., queries) long, never growing with the tolerance; 0 for padding and masked rows.
        mean: (tolerances, ...) float64, mean support size over the other rows.
    """

    tolerances: tuple[float, ...]
    support_size: Tensor
    mean: Tensor


@torch.no_grad()
def tolerance_curve(
    attention: Tensor,
    values: Tensor,
    mask: Tensor | None = None,
    *,
    tolerances: Sequence[float] = (0.01, 0.05, 0.1),
    query_mask: Tensor | None = None,
    backend: str = "auto",
) -> ToleranceCurve:
    """Return how many keys each row needs so that || o - sum_j b_j v_j || <= tolerance * || o - mean v ||.

    The support sizes are those of `efficient_attention(..., tolerance=t)`: greedy pursuit, an upper bound on the
    smallest support. The exact rows are solved once for all tolerances, and the running minimum from the smallest
    tolerance on is taken, so that the support never grows with the tolerance.

    Args:
        attention, values, mask, query_mask, backend: as in `efficient_attention`.
        tolerances: each 0 or between 0 and 1.

    Raises:
        InvalidInputError: as in `efficient_attention`, or no tolerance, or one that is not a number in [0, 1).

    Example:
        >>> values = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> tolerance_curve(torch.full((1, 4), 0.25), values, tolerances=(0.9, 0.0)).support_size[:, 0].tolist()
        [2, 2]
    """
    for tolerance in tolerances:
        if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance < 1:
            raise InvalidInputError(
                f"tolerances holds {shown(tolerance)}: each must be a number from 0 (exact) to below 1"
            )
    steps = sorted({float(tolerance) for tolerance in tolerances})
    if not steps:
        raise InvalidInputError("tolerances is empty: pass one or more numbers in [0, 1)")
    exact = efficient_attention(attention, values, mask, query_mask=query_mask, backend=backend).support_size
    heads = read_heads(attention, values, mask, query_mask)
    smallest = exact.reshape(1, -1).repeat(len(steps), 1)
    for problems in cut_problems(heads.attention, heads.values, heads.allowed, heads.epsilon):
        centered = problems.values - problems.values.mean(1, keepdim=True)
        for number, tolerance in enumerate(steps):
            if tolerance > 0:
                rows, reached = pursue(centered, problems.problem, problems.weights, tolerance)
                size = torch.where(reached, (rows > 0).sum(1), smallest[number, problems.place])
                smallest[number, problems.place] = torch.minimum(size, smallest[number, problems.place])
    support_size = smallest.cummin(0).values.reshape(len(steps), *exact.shape)
    rows_with_keys = (exact > 0).sum(-1).clamp_min(1)
    return ToleranceCurve(tuple(steps), support_size, support_size.double().sum(-1) / rows_with_keys)
