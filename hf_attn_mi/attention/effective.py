"""Effective attention: the part of the attention weights that reaches the head's output; noise that does not."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.attention.inputs import AttentionRows, read_shapes
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.kernels import effective_rows
from hf_attn_mi.kernels.inputs import check_real

_ZERO = 1e-13  # eigenvalues of a Gram matrix below this share of the largest are rounding in float64
_NOTHING = 1e-6  # largest norm that rounding leaves of noise of norm one where the null space is empty
_ROUNDS = 3  # a projection by a Gram matrix is exact to cond^2 * eps; each round squares the rest


@dataclass(frozen=True)
class EffectiveAttention:
    """Effective attention of each head. With a mask that differs by row, rank and n have a queries dimension.

    Attributes:
        attention: (..., queries, keys), zero at padding.
        rank: (...,) long, rank of the values; of [V, 1] in the affine form.
        n: (...,) long, number of real keys.
        null_space_fraction: (...,) ||A - A_eff||_F / ||A||_F, exactly 0 if n <= rank.
    """

    attention: Tensor
    rank: Tensor
    n: Tensor
    null_space_fraction: Tensor


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
    """Return A P, where P is the orthogonal projector on the column space of the values: the same output A V.

    A_eff = O (V^T V)^+ V^T with O = A V, so A_eff V = O. Affine form: [O, s] ([V,1]^T [V,1])^+ [V,1]^T with the row
    sums s of A; it keeps row sums and does not depend on the value bias. Entries of both forms may be negative. Where
    the number of real keys does not exceed the rank, the null space is empty and the rows are returned bit for bit.
    (Brunner et al., arXiv 1908.04211; Sun and Marasovic, arXiv 2105.08855.)

    Args:
        attention: (..., queries, keys), non-negative.
        values: (..., keys, head_dim); leading dimensions broadcast.
        mask: bool, True where the key is real: (..., keys), (batch, keys) or, different for each row, (..., queries,
            keys).
        affine: use the affine form.
        query_mask: bool, True where the query is real; rows of other queries are zero and not counted.
        outputs: (..., queries, head_dim), the product A V if the model has computed it already. It is used where it is
            float32 or wider, the values are well conditioned, the form is not affine and all rows have the same keys.

    Raises:
        InvalidInputError: shapes, dtypes or values that do not fit, or outputs that are not A V.

    Example:
        >>> values = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
        >>> attention = torch.full((1, 9), 1 / 9)
        >>> effective = effective_attention(attention, values)
        >>> bool(torch.allclose(effective.attention @ values, attention @ values, atol=1e-6))
        True
    """
    heads = read_shapes(attention, values, mask, query_mask)
    effective = effective_rows(
        heads.attention,
        heads.values,
        heads.allowed,
        queries=heads.queries,
        affine=affine,
        outputs=_flat_outputs(outputs, heads, values),
    )
    return EffectiveAttention(
        attention=effective.attention.reshape(heads.lead + effective.attention.shape[1:]),
        rank=effective.rank.reshape(heads.lead + effective.rank.shape[1:]),
        n=effective.n.reshape(heads.lead + effective.n.shape[1:]),
        null_space_fraction=effective.null_space_fraction.reshape(heads.lead),
    )


def _flat_outputs(outputs: Tensor | None, heads: AttentionRows, values: Tensor) -> Tensor | None:
    """Return (heads, queries, head_dim), None for None."""
    if outputs is None:
        return None
    check_real("outputs", outputs)
    shape = (*heads.lead, heads.attention.shape[-2], values.shape[-1])
    try:
        return outputs.expand(shape).reshape(-1, *shape[-2:])
    except RuntimeError as error:
        raise InvalidInputError(
            f"outputs has shape {tuple(outputs.shape)}: it must be {shape}, the rows times the values"
        ) from error


@torch.no_grad()
def unit_noise(
    values: Tensor, allowed: Tensor, queries: int, *, generator: torch.Generator, keep_sums: bool = True
) -> tuple[Tensor, Tensor]:
    """Return noise rows in the null space of the values, and noise rows in their column space, all of norm one.

    Both are made from one normal draw z over the allowed keys. With the orthogonal projectors P on the column space of
    V and Q on that of [V, 1] (of V, without `keep_sums`), the first is z - z Q, so that (a + noise) V = a V and the sum
    of the row does not change; the second is z P. Where the values of all keys are independent, the null space is empty
    and the first is a zero row.

    Args:
        values: (heads, keys, head_dim).
        allowed: (heads, queries or 1, keys) bool.
        queries: rows of each head.
        generator: on the CPU, so that every device sees the same noise.
        keep_sums: the noise in the null space also keeps the sum of the row.

    Returns:
        invisible and visible noise, (heads, queries, keys) float64, zero at keys that are not allowed.

    Example:
        >>> values = torch.randn(1, 6, 2, generator=torch.Generator().manual_seed(0)).double()
        >>> allowed = torch.ones(1, 1, 6, dtype=torch.bool)
        >>> invisible, visible = unit_noise(values, allowed, 3, generator=torch.Generator().manual_seed(1))
        >>> bool((invisible @ values).abs().max() < 1e-12), bool((visible @ values).norm(dim=-1).min() > 0.1)
        (True, True)
    """
    heads, keys = values.shape[:2]
    draw = torch.randn(heads, queries, keys, generator=generator, dtype=torch.float64).to(values.device)
    invisible, visible = [], []
    for points, mask, noise in zip(values.double(), allowed, draw):  # one head at a time: a Gram matrix for each row
        noise = noise * mask
        points = points.where(mask.any(0)[:, None], torch.zeros_like(points))
        projected = _project(noise, points, mask, _inverse(points, mask))
        size = points.norm(dim=0).amax().clamp_min(1e-300) / keys**0.5
        wider = torch.cat([points / size, torch.ones_like(points[:, :1])], dim=1) if keep_sums else points
        rest, inverse = noise, _inverse(wider, mask)
        for _ in range(_ROUNDS):
            rest = rest - _project(rest, wider, mask, inverse)
        left = rest.norm(dim=-1, keepdim=True) > _NOTHING * noise.norm(dim=-1, keepdim=True)
        invisible.append(_unit(rest * left))
        visible.append(_unit(projected))
    return torch.stack(invisible), torch.stack(visible)


def _inverse(points: Tensor, mask: Tensor) -> Tensor:
    """Return the pseudo-inverse of the Gram matrix of the points (keys, dim) of each mask, (masks, dim, dim)."""
    keys, dim = points.shape
    if len(mask) == 1:
        allowed_points = points * mask[0][:, None]
        gram = (allowed_points.T @ allowed_points)[None]
    else:
        products = (points[:, :, None] * points[:, None, :]).reshape(keys, dim * dim)
        gram = (mask.to(points.dtype) @ products).view(-1, dim, dim)
    sizes, basis = torch.linalg.eigh(gram)
    real = sizes > _ZERO * sizes[:, -1:].clamp_min(1e-300)
    lengths = torch.where(real, 1 / sizes.where(real, torch.ones_like(sizes)), 0.0)
    inverse: Tensor = (basis * lengths[:, None, :]) @ basis.mT
    return inverse


def _project(noise: Tensor, points: Tensor, mask: Tensor, inverse: Tensor) -> Tensor:
    """Project the noise rows (queries, keys) on the columns of the points (keys, dim) that each row may use."""
    projected: Tensor = ((noise @ points)[:, None, :] @ inverse)[:, 0] @ points.T * mask
    return projected


def _unit(rows: Tensor) -> Tensor:
    length: Tensor = rows.norm(dim=-1, keepdim=True)
    return rows / length.where(length > 0, torch.ones_like(length))
