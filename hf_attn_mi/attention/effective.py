"""Effective attention: the part of the attention weights that the head's output can see."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.attention.gram import ValueSpace, value_space
from hf_attn_mi.attention.inputs import HeadBatch, broadcast_lead, read_heads, read_key_mask, read_query_mask
from hf_attn_mi.errors import InvalidInput


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

    Raises:
        InvalidInput: shapes, dtypes, or values that do not fit.

    Example:
        >>> values = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
        >>> attention = torch.full((1, 9), 1 / 9)
        >>> effective = effective_attention(attention, values)
        >>> bool(torch.allclose(effective.attention @ values, attention @ values, atol=1e-6))
        True
    """
    heads = read_heads(attention, values, mask, query_mask)
    space = value_space(heads.values, heads.allowed, heads.epsilon, affine=affine)
    weights = heads.attention.double()
    seen = _project(weights @ heads.values, weights.sum(-1), heads, space, affine)
    seen = seen.to(attention.dtype)
    unchanged = space.keys <= space.rank  # (heads,) or (heads, queries)
    rows = unchanged[:, None, None] if unchanged.dim() == 1 else unchanged[:, :, None]
    seen = torch.where(rows, heads.attention, seen)
    norm = torch.linalg.matrix_norm(weights)
    difference = torch.linalg.matrix_norm(weights - seen) / norm.where(norm > 0, torch.ones_like(norm))
    return EffectiveAttention(
        attention=seen.reshape(heads.lead + seen.shape[1:]),
        rank=space.rank.reshape(heads.lead + space.rank.shape[1:]),
        n=space.keys.reshape(heads.lead + space.keys.shape[1:]),
        head_dim=values.shape[-1],
        difference=difference.reshape(heads.lead),
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
    """Return rank, n and ||A - A_eff|| / ||A|| without the matrix A_eff.

    P is a projector, so ||A - A P||^2 = ||A||^2 - ||A P||^2, and ||A P|| = ||O W|| with (V^T V)^+ = W W^T. Arguments
    as in `effective_attention` (one set of keys a head). Outputs, (..., queries, head_dim), if given, save the
    product A V; in float32 they limit the difference to about 3e-4.

    Raises:
        InvalidInput: shapes, dtypes, or values that do not fit; a mask that differs by row.

    Example:
        >>> summary = effective_summary(torch.eye(2), torch.eye(2))
        >>> int(summary.rank), int(summary.n), float(summary.difference)
        (2, 2, 0.0)
    """
    heads = read_heads(attention, values, mask, query_mask)
    if heads.allowed.shape[1] != 1:
        raise InvalidInput("mask differs by row: effective_summary needs one set of keys a head")
    space = value_space(heads.values, heads.allowed, heads.epsilon, affine=False)
    if outputs is None:
        reached = heads.attention.double() @ heads.values
    else:
        reached = outputs.expand(*heads.lead, *outputs.shape[-2:]).reshape(-1, *outputs.shape[-2:]).double()
        reached = reached.where(heads.queries[:, :, None], torch.zeros_like(reached))
    norm = torch.linalg.vector_norm(heads.attention, dim=(-2, -1), dtype=torch.float64).square()
    left = (norm - (reached @ space.whitening).square().sum((-2, -1))).clamp_min(0)
    difference = (left / norm.where(norm > 0, torch.ones_like(norm))).sqrt()
    difference = difference.where(space.keys > space.rank, torch.zeros_like(difference))
    rank, keys = space.rank.reshape(heads.lead), space.keys.reshape(heads.lead)
    return EffectiveSummary(rank, keys, difference.reshape(heads.lead))


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
        InvalidInput: shapes or dtypes that do not fit.

    Example:
        >>> received_effective(torch.tensor([[.25, .75]]), torch.eye(2))
        tensor([0.2500, 0.7500])
    """
    if outputs.dim() < 2 or values.dim() < 2 or outputs.shape[-1] != values.shape[-1]:
        raise InvalidInput(
            f"outputs {tuple(outputs.shape)} and values {tuple(values.shape)} "
            "must be (..., queries, head_dim) and (..., keys, head_dim)"
        )
    if not (outputs.is_floating_point() and values.is_floating_point()):
        raise InvalidInput(f"outputs ({outputs.dtype}) and values ({values.dtype}) must be floating point")
    lead = broadcast_lead("outputs", outputs, values)
    queries, keys = outputs.shape[-2], values.shape[-2]
    allowed = read_key_mask(mask, lead, 1, keys, values.device)
    real = read_query_mask(query_mask, lead, queries, values.device)
    wide = values.expand(*lead, *values.shape[-2:]).reshape(-1, *values.shape[-2:]).double()
    wide = wide.where(allowed[:, 0, :, None], torch.zeros_like(wide))
    reached = outputs.expand(*lead, *outputs.shape[-2:]).reshape(-1, *outputs.shape[-2:]).double()
    reached = reached.where(real[:, :, None], torch.zeros_like(reached)).sum(1) / real.sum(1).clamp_min(1)[:, None]
    epsilon = 2.0**-52 if values.dtype == torch.float64 else 2.0**-23
    space = value_space(wide, allowed, epsilon, affine=False)
    coefficients = space.whitening @ (space.whitening.transpose(-1, -2) @ reached[:, :, None])
    return (wide @ coefficients)[:, :, 0].to(values.dtype).reshape(*lead, keys)


def _project(reached: Tensor, sums: Tensor, heads: HeadBatch, space: ValueSpace, affine: bool) -> Tensor:
    """Return A_eff in float64, from the outputs and row sums."""
    if heads.allowed.shape[1] == 1:
        centred = (heads.values - space.mean[:, None, :]) * heads.allowed[:, 0, :, None]
        left = (reached - sums[:, :, None] * space.mean[:, None, :]) @ space.whitening
        seen = left @ (centred @ space.whitening).transpose(-1, -2)
        constant = sums / space.keys.clamp_min(1)[:, None]
    else:
        left = (reached - sums[:, :, None] * space.mean)[:, :, None, :] @ space.whitening
        left = (left @ space.whitening.transpose(-1, -2))[:, :, 0]
        seen = left @ heads.values.transpose(-1, -2) - (left * space.mean).sum(-1, keepdim=True)
        constant = sums / space.keys.clamp_min(1)
    if affine:
        seen = seen + constant[:, :, None]
    return seen * heads.allowed
