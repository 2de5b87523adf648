"""Effective attention rows A P of rows that a model has formed, and what keys receive of them."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.kernels.effective.torch import EffectiveRows, RowInputs, rows_per_query, rows_shared
from hf_attn_mi.kernels.effective.value_basis import epsilon_of
from hf_attn_mi.kernels.inputs import check_floats


@torch.no_grad()
def effective_rows(
    attention: Tensor,
    values: Tensor,
    allowed: Tensor,
    *,
    queries: Tensor | None = None,
    outputs: Tensor | None = None,
    affine: bool = False,
) -> EffectiveRows:
    """Return A P, P the orthogonal projector on the column space of V, or in the affine form of [V, 1].

    Gram matrices and factors are float64, products of rows float32 (float64 for float64 input, and where queries see
    different keys). Rows with n <= rank come back bit for bit. `reference_effective_rows` is the definition.

    Args:
        attention: (heads, queries, keys), non-negative.
        values: (heads, keys, head_dim).
        allowed: bool (heads, queries, keys) or, where all queries of a head see the same keys, (heads, 1, keys).
        queries: bool (heads, queries), True where the query is real; rows of others are zero and not counted.
        outputs: (heads, queries, head_dim), the rows times the values. They save a product where they are float32 or
            wider, the values well conditioned, and the form is not affine.
        affine: the affine form.

    Raises:
        InvalidInputError: not floating point or empty, attention negative or not finite where allowed, values not
            finite there, outputs that are not rows times values.

    Example:
        >>> allowed = torch.ones(1, 1, 2, dtype=torch.bool)
        >>> rows = effective_rows(torch.tensor([[[.75, .25]]]), torch.ones(1, 2, 1), allowed)
        >>> rows.attention.round(decimals=4).tolist(), rows.rank.tolist(), round(float(rows.null_space_fraction), 4)
        ([[[0.5, 0.5]]], [1], 0.4472)
    """
    check_floats("attention", attention, 3)
    check_floats("values", values, 3)
    if not isinstance(affine, bool):
        raise InvalidInputError(f"affine is {shown(affine)}: it must be True or False")
    wide = attention.dtype == values.dtype == torch.float64
    values = values.to(torch.float64 if wide else torch.float32)
    if queries is not None and bool(queries.all()):
        queries = None
    all_allowed = allowed.shape[1] == 1 and queries is None and bool(allowed.all())
    inputs = RowInputs(attention, values, allowed, queries, all_allowed, outputs, affine, epsilon_of(attention, values))
    result = torch.empty(attention.shape, dtype=attention.dtype, device=attention.device)
    return rows_shared(inputs, result) if allowed.shape[1] == 1 else rows_per_query(inputs, result)
