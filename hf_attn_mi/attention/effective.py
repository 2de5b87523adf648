"""Effective attention: the part of the attention weights that the head's output can see."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.attention.inputs import AttentionRows, broadcast_lead, read_key_mask, read_query_mask, read_shapes
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.kernels import effective_rows, received_weights


@dataclass(frozen=True)
class EffectiveAttention:
    """Effective attention of each head. With a mask that differs by row, rank and n have a queries dimension."""

    attention: Tensor  # (..., queries, keys), zero at pads
    rank: Tensor  # (...,) long: rank of the values, of [V, 1] in the affine form
    n: Tensor  # (...,) long: number of real keys
    head_dim: int
    difference: Tensor  # (...,) ||A - A_eff||_F / ||A||_F, exactly 0 where n <= rank


@dataclass(frozen=True)
class EffectiveSummary:
    """What effective attention would change, without the matrix."""

    rank: Tensor  # (...,) long
    n: Tensor  # (...,) long
    difference: Tensor  # (...,) ||A - A_eff||_F / ||A||_F


@torch.no_grad()
def effective_attention(
    attention: Tensor,
    values: Tensor,
    mask: Tensor | None = None,
    *,
    affine: bool = False,
    query_mask: Tensor | None = None,
    outputs: Tensor | None = None,
) -> EffectiveAttention:
    """Return A P, P the orthogonal projector on the column space of the values: the same output, no invisible part.

    A_eff = O (V^T V)^+ V^T with O = A V, so A_eff V = O. Affine form: [O, s] ([V,1]^T [V,1])^+ [V,1]^T with the row
    sums s of A; it keeps row sums and does not depend on the value bias. Neither form is non-negative. A head (or
    row) whose number of real keys does not exceed the rank has no invisible part: it comes back bit for bit. (Brunner
    et al., arXiv 1908.04211; Sun and Marasovic, arXiv 2105.08855.)

    Args:
        attention: (..., queries, keys), non-negative.
        values: (..., keys, head_dim); leading dimensions broadcast.
        mask: bool, True where the key is real: (..., keys), (batch, keys) or, different for each row, (..., queries,
            keys).
        affine: the affine form.
        query_mask: bool, True where the query is real; rows of other queries are zero and not counted.
        outputs: (..., queries, head_dim), the product A V where the model has computed it: saves it where it is
            float32 or wider, the values are well conditioned, the form is not affine and the mask has one set of keys.

    Raises:
        InvalidInputError: shapes, dtypes, or values that do not fit, or outputs that are not A V.

    Example:
        >>> values = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
        >>> attention = torch.full((1, 9), 1 / 9)
        >>> effective = effective_attention(attention, values)
        >>> bool(torch.allclose(effective.attention @ values, attention @ values, atol=1e-6))
        True
    """
    heads = read_shapes(attention, values, mask, query_mask)
    found = effective_rows(
        heads.attention,
        heads.values,
        heads.allowed,
        queries=heads.queries,
        affine=affine,
        outputs=_flat_outputs(outputs, heads, values),
    )
    assert found.attention is not None
    return EffectiveAttention(
        attention=found.attention.reshape(heads.lead + found.attention.shape[1:]),
        rank=found.rank.reshape(heads.lead + found.rank.shape[1:]),
        n=found.n.reshape(heads.lead + found.n.shape[1:]),
        head_dim=values.shape[-1],
        difference=found.difference.reshape(heads.lead),
    )


@torch.no_grad()
def effective_summary(
    attention: Tensor,
    values: Tensor,
    mask: Tensor | None = None,
    query_mask: Tensor | None = None,
    *,
    outputs: Tensor | None = None,
) -> EffectiveSummary:
    """Return rank, n and ||A - A_eff|| / ||A||, as `effective_attention` has them, without keeping the matrix A_eff.

    Arguments as in `effective_attention` (one set of keys a head). Outputs, (..., queries, head_dim), if given, save
    the product A V where they are float32 or wider and the values are well conditioned.

    Raises:
        InvalidInputError: shapes, dtypes, or values that do not fit; a mask that differs by row.

    Example:
        >>> summary = effective_summary(torch.eye(2), torch.eye(2))
        >>> int(summary.rank), int(summary.n), float(summary.difference)
        (2, 2, 0.0)
    """
    heads = read_shapes(attention, values, mask, query_mask)
    if heads.allowed.shape[1] != 1:
        raise InvalidInputError("mask differs by row: effective_summary needs one set of keys a head")
    outputs = _flat_outputs(outputs, heads, values)
    found = effective_rows(
        heads.attention, heads.values, heads.allowed, queries=heads.queries, outputs=outputs, keep=False
    )
    return EffectiveSummary(*(x.reshape(heads.lead) for x in (found.rank, found.n, found.difference)))


@torch.no_grad()
def received_effective(
    outputs: Tensor, values: Tensor, mask: Tensor | None = None, query_mask: Tensor | None = None
) -> Tensor:  # (..., keys)
    """Return the effective attention each key receives, mean over real queries, without any matrix of queries by keys.

    w_j = < mean_i o_i, (V^T V)^+ v_j >, O(n d^2). Where n <= rank it equals the raw received weight up to rounding.

    Args:
        outputs: (..., queries, head_dim), the head outputs A V.
        values: (..., keys, head_dim).
        mask: bool (..., keys) or (batch, keys), True where the key is real.
        query_mask: the same for queries.

    Raises:
        InvalidInputError: shapes or dtypes that do not fit.

    Example:
        >>> received_effective(torch.tensor([[.25, .75]]), torch.eye(2))
        tensor([0.2500, 0.7500])
    """
    if outputs.dim() < 2 or values.dim() < 2 or outputs.shape[-1] != values.shape[-1]:
        raise InvalidInputError(
            f"outputs {tuple(outputs.shape)} and values {tuple(values.shape)} "
            "must be (..., queries, head_dim) and (..., keys, head_dim)"
        )
    if not (outputs.is_floating_point() and values.is_floating_point()):
        raise InvalidInputError(f"outputs ({outputs.dtype}) and values ({values.dtype}) must be floating point")
    lead = broadcast_lead("outputs", outputs, values)
    queries, keys = outputs.shape[-2], values.shape[-2]
    allowed = read_key_mask(mask, lead, 1, keys, values.device)
    real = read_query_mask(query_mask, lead, queries, values.device)
    found = received_weights(
        outputs.expand(*lead, *outputs.shape[-2:]).reshape(-1, 1, *outputs.shape[-2:]),
        values.expand(*lead, *values.shape[-2:]).reshape(-1, 1, *values.shape[-2:]),
        allowed[:, 0],
        real,
    )
    return found.weights.to(values.dtype).reshape(*lead, keys)


def _flat_outputs(outputs: Tensor | None, heads: AttentionRows, values: Tensor) -> Tensor | None:
    """Return (heads, queries, head_dim), None for None."""
    if outputs is None:
        return None
    shape = (*heads.lead, heads.attention.shape[-2], values.shape[-1])
    try:
        return outputs.expand(shape).reshape(-1, *shape[-2:])
    except RuntimeError as error:
        raise InvalidInputError(
            f"outputs has shape {tuple(outputs.shape)}: it must be {shape}, the rows times the values"
        ) from error
