"""The tolerance curve: how many keys a head needs to come within 1 %, 5 % or 10 % of its output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.attention.efficient import efficient_attention
from hf_attn_mi.attention.inputs import read_heads
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.kernels.efficient.problems import cut_problems
from hf_attn_mi.kernels.efficient.pursuit import pursue


@dataclass(frozen=True, eq=False)
class ToleranceCurve:
    """Support of each row, and its mean over the rows of each head, for every tolerance.

    Attributes:
        tolerances: the tolerances, smallest first; 0 is the exact row.
        support: (tolerances, ..., queries) long, 0 for pad queries and fully masked rows; never grows along tolerances.
        mean: (tolerances, ...) float64, mean support over the other rows.
    """

    tolerances: tuple[float, ...]
    support: Tensor
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

    The supports are those of `efficient_attention(..., tolerance=t)`: short rows found by pursuit, an upper bound on
    the smallest support. The exact rows are solved once for all tolerances, and the running minimum from the tight end
    is taken, so that the support never grows with the tolerance.

    Args:
        attention, values, mask, query_mask, backend: as in `efficient_attention`.
        tolerances: each 0 or between 0 and 1.

    Raises:
        InvalidInputError: as in `efficient_attention`, or no tolerance, or one that is not a number in [0, 1).

    Example:
        >>> values = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> tolerance_curve(torch.full((1, 4), 0.25), values, tolerances=(0.9, 0.0)).support[:, 0].tolist()
        [2, 2]
    """
    wanted = sorted({_read(item) for item in tolerances})
    if not wanted:
        raise InvalidInputError("tolerances is empty: pass one or more numbers in [0, 1)")
    exact = efficient_attention(attention, values, mask, query_mask=query_mask, backend=backend).support
    heads = read_heads(attention, values, mask, query_mask)
    fewest = exact.reshape(1, -1).repeat(len(wanted), 1)
    for problems in cut_problems(heads.attention, heads.values, heads.allowed, heads.epsilon):
        centered = problems.values - problems.values.mean(1, keepdim=True)
        for number, tolerance in enumerate(wanted):
            if tolerance > 0:
                rows, found = pursue(centered, problems.problem, problems.weights, tolerance)
                size = torch.where(found, (rows > 0).sum(1), fewest[number, problems.place])
                fewest[number, problems.place] = torch.minimum(size, fewest[number, problems.place])
    support = fewest.cummin(0).values.reshape(len(wanted), *exact.shape)
    some = (exact > 0).sum(-1).clamp_min(1)
    return ToleranceCurve(tuple(wanted), support, support.double().sum(-1) / some)


def _read(tolerance: float) -> float:
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance < 1:
        raise InvalidInputError(f"tolerances holds {tolerance!r}: each must be a number from 0 (exact) to below 1")
    return float(tolerance)
