"""Efficient attention: the distribution over few keys that gives the same head output, none of them dispensable."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.attention.inputs import read_heads
from hf_attn_mi.kernels.efficient.call import efficient_rows


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
    backend: str  # which solver ran: "torch", "numba" or "triton"


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
    """Return for each row the vertex of its polytope of equivalent rows that keeps most of the row's own attention.

    e_i = argmax sum_j a_ij b_j over F(a_i) = {b >= 0: sum_j b_j v_j = o_i, sum_j b_j = 1}; among equals, low key
    numbers: the cost is a_ij / max_j a_ij - 1e-7 t_j, t rising from 0 to 1 over the real keys. Our operationalization
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
        backend: "numba" (extra `fast`, tensors on the CPU), "triton" (extra `gpu`, tensors on CUDA, at most 128
            dimensions or 129 keys), "torch", or "auto": the fastest that can run. All return the same rows.

    Raises:
        InvalidInputError: shapes, dtypes, values, tolerance, objective or backend that do not fit.
        BackendUnavailableError: the backend asked for is not installed, or cannot do this call.

    Example:
        >>> efficient = efficient_attention(torch.full((1, 4), .25), torch.tensor([[0.], [1.], [2.], [3.]]))
        >>> int(efficient.support), bool(efficient.residual < 1e-12)
        (2, True)
    """
    heads = read_heads(attention, values, mask, query_mask)
    rows = efficient_rows(
        heads.attention,
        heads.values.to(values.dtype),  # the precision in which they came decides what counts as zero
        heads.allowed,
        tolerance=tolerance,
        objective=objective,
        backend=backend,
    )
    each = heads.lead + heads.attention.shape[1:2]
    return EfficientAttention(
        attention=rows.attention.reshape(each + heads.attention.shape[2:]),
        support=rows.support.reshape(each),
        residual=rows.residual.reshape(each),
        gap=rows.gap.reshape(each),
        smallest_weight=rows.smallest_weight.reshape(each),
        smallest_singular=rows.smallest_singular.reshape(each),
        optimal=rows.optimal.reshape(each),
        backend=rows.backend,
    )
