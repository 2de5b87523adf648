"""A projector for each attention row where queries see different keys, from the keys that neighboring rows share.

The rows of a chunk share most of their keys. Those have one Gram matrix G = L L^T; row i adds the keys E_i that only
some rows see, B_i = V[E_i] L^-T, and (Woodbury)

    (G + V[E_i]^T V[E_i])^-1 = L^-T (1 - B_i^T (1 + B_i B_i^T)^-1 B_i) L^-1,

which takes one small factor a row, of the size of E_i, instead of a factor of head_dim x head_dim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.kernels.effective.value_basis import inverse_factor, rank_cut, whiten

TRUSTED = 1e-8  # smallest over sum of the eigenvalues of a shared Gram matrix, so that float64 leaves eight digits
MASKED = 1 << 20  # entries of values masked for each row, held at a time
Solve = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Points:
    """Values in float64 on whose column space rows are projected: V, or in the affine form [V - m, s], as [V, 1]."""

    points: Tensor  # (heads, keys, dim)
    lengths: Tensor  # (heads, keys) ||v_j||^2
    center: Tensor | None  # (heads, 1, head_dim) m
    unit: Tensor | None  # (heads,) s, of the size of the values
    epsilon: float


@dataclass(frozen=True, eq=False)
class SharedKeys:
    """Keys that all rows of a chunk see, and their Gram matrix."""

    keys: Tensor  # (keys,) bool
    gram: Tensor  # (heads, dim, dim)


def read_points(values: Tensor, keys: Tensor, epsilon: float, *, affine: bool = False) -> Points:
    """Return the points of some heads.

    Args:
        values: (heads, keys, head_dim), zero at keys that no row may see.
        keys: (keys,) bool, keys that some row may see.
        epsilon: see `epsilon_of`.
        affine: read the points of the projector on the column space of [V, 1].

    Example:
        >>> read_points(torch.tensor([[[1.0], [3.0]]]), torch.tensor([True, True]), 2.0**-23, affine=True).points
        tensor([[[-1.,  1.],
                 [ 1.,  1.]]], dtype=torch.float64)
    """
    wide = values.double()
    lengths = torch.linalg.vecdot(wide, wide)
    if not affine:
        return Points(wide, lengths, None, None, epsilon)
    count = keys.sum().clamp_min(1)
    center = wide.sum(1, keepdim=True) / count
    apart = (wide - center) * keys[:, None]
    size = (apart.square().sum((1, 2)) / (count * wide.shape[2])).sqrt()
    unit = size.where(size > 0, 1.0)
    return Points(torch.cat([apart, (unit[:, None] * keys)[..., None]], 2), lengths, center, unit, epsilon)


def project_rows(
    weights: Tensor, allowed: Tensor, points: Points, previous: SharedKeys | None = None
) -> tuple[Tensor, Tensor, SharedKeys]:
    """Return effective rows in float64, the rank of each row, and what the next chunk can start from.

    Args:
        weights: (heads, groups, rows, keys) attention, zero where not allowed.
        allowed: (rows, keys) bool, the same for all heads: rows that see much the same keys.
        points: the points of the heads.
        previous: the third result for the chunk before.

    Example:
        >>> points = read_points(torch.ones(1, 3, 1), torch.ones(3, dtype=torch.bool), 2.0**-23)
        >>> weights, allowed = torch.tensor([[[[1., 0, 0], [.5, .3, .2]]]]), torch.tensor([[1, 0, 0], [1, 1, 1]]).bool()
        >>> projected, rank, _ = project_rows(weights, allowed, points)
        >>> projected.round(decimals=3).tolist(), rank.tolist()
        ([[[[1.0, 0.0, 0.0], [0.333, 0.333, 0.333]]]], [[1, 1]])
    """
    live = allowed.any(1)
    union = allowed.any(0)
    common = (allowed | ~live[:, None]).all(0) & union
    shared = _shared(common, points, previous)
    counts = allowed.sum(1)
    rank = counts.expand(weights.shape[0], -1)
    wide = weights.double()
    dim = points.points.shape[2]
    if not bool(live.any()):
        return wide, rank, shared
    limit = rank_cut(counts.max(), dim, points.epsilon) * (points.lengths @ union.double())
    if int(union.sum()) <= dim and bool(_independent(points, union, limit).all()):
        return wide, rank, shared  # the values are independent, so that every part of a row has an effect on the output
    places = union.nonzero()[[0, -1], 0].tolist()
    span = slice(places[0], places[1] + 1)
    inverse, smallest = inverse_factor(shared.gram)
    sure = (smallest > limit) & (smallest > TRUSTED * shared.gram.diagonal(dim1=1, dim2=2).sum(1))
    extra = (union & ~common).nonzero()[:, 0]
    projected, rank = torch.zeros_like(wide), rank.clone()
    if len(extra) > dim:
        sure = torch.zeros_like(sure)
    for heads, certain in ((sure.nonzero()[:, 0], True), (((~sure).nonzero()[:, 0]), False)):
        if not len(heads):
            continue
        part = slice(None) if len(heads) == len(sure) else heads
        attention, base = wide[part][..., span], points.points[part]
        if certain:
            rank[part] = dim * live
            solve = _with_extra(inverse[part], base[:, extra], allowed[:, extra])
        else:
            factors, rank[part] = _each_row(points, part, shared.gram[part], extra, allowed)
            solve = _with_factors(factors)
        solved = _apply(attention, base[:, span], allowed[:, span], solve, twice=points.epsilon < 1e-12)
        same = (counts <= rank[part])[:, None, :, None]
        projected[part, ..., span] = torch.where(same, attention, solved) if bool(same.any()) else solved
    return projected, rank, shared


def _shared(common: Tensor, points: Points, previous: SharedKeys | None) -> SharedKeys:
    """The Gram matrix of the common keys; if keys were only added since the previous chunk, only these are computed."""
    base: Tensor | float = 0.0
    new = common
    if previous is not None and not bool((previous.keys & ~common).any()):
        base, new = previous.gram, common & ~previous.keys
    part = points.points[:, new]
    return SharedKeys(common, base + part.transpose(1, 2) @ part)


def _independent(points: Points, union: Tensor, limit: Tensor) -> Tensor:
    """Whether the values of these few keys, and so of every subset of them, are certainly independent."""
    few = points.points[:, union]
    _, smallest = inverse_factor(few @ few.transpose(1, 2))
    if points.unit is not None:
        # about the mean of a row's own keys, not m: that moves singular values by a factor of 1 + distance / s at most
        reach = few[..., :-1].square().sum(2).amax(1).sqrt()
        smallest = smallest / (1 + reach / points.unit).square()
    return smallest > limit


def _apply(weights: Tensor, points: Tensor, allowed: Tensor, solve: Solve, *, twice: bool) -> Tensor:
    """Rows with the outputs of `weights`; in float64 the rest of the outputs is solved for again."""
    reached = weights @ points[:, None]
    projected = (solve(reached) @ points[:, None].transpose(2, 3)).mul_(allowed)
    if twice:
        projected += (solve(reached - projected @ points[:, None]) @ points[:, None].transpose(2, 3)).mul_(allowed)
    return projected


def _with_extra(inverse: Tensor, extra: Tensor, allowed: Tensor) -> Solve:
    """Coefficients from outputs (heads, groups, rows, dim) through the shared factor and a small one for each row.

    Args:
        inverse: (heads, dim, dim) L^-1.
        extra: (heads, extra keys, dim) points of the keys that only some rows see.
        allowed: (rows, extra keys) bool.
    """
    base = extra @ inverse.transpose(1, 2)  # B: (heads, extra keys, dim)
    size = extra.shape[1]
    flags = allowed.double()
    if size:
        inner = (base @ base.transpose(1, 2))[:, None] * (flags[:, :, None] * flags[:, None, :])
        inner.diagonal(dim1=2, dim2=3).add_(1.0)
        factor = torch.linalg.cholesky_ex(inner).L

    def solve(outputs: Tensor) -> Tensor:
        left = outputs @ inverse[:, None].transpose(2, 3)
        if size:
            right = (left @ base[:, None].transpose(2, 3)) * flags  # (heads, groups, rows, extra keys)
            taken = torch.cholesky_solve(right.permute(0, 2, 3, 1), factor).permute(0, 3, 1, 2)
            left = left - taken @ base[:, None]
        return left @ inverse[:, None]

    return solve


def _with_factors(factors: Tensor) -> Solve:
    def solve(outputs: Tensor) -> Tensor:
        rows = outputs.transpose(1, 2)  # (heads, rows, groups, dim)
        return ((rows @ factors) @ factors.transpose(2, 3)).transpose(1, 2)

    return solve


def _each_row(
    points: Points, part: slice | Tensor, gram: Tensor, extra: Tensor, allowed: Tensor
) -> tuple[Tensor, Tensor]:
    """Factors W_i, (heads, rows, dim, dim) with W_i W_i^T the pseudo-inverse of row i's Gram matrix, and ranks."""
    added = points.points[part][:, extra]  # (heads, extra keys, dim)
    rows, (heads, _, dim) = allowed.shape[0], added.shape
    flags = allowed[:, extra].double()
    grams = gram[:, None].expand(heads, rows, dim, dim) * allowed.any(1)[:, None, None]
    size = max(1, MASKED // (heads * rows * dim))
    for start in range(0, len(extra), size):
        some = added[:, start : start + size]
        masked = some.transpose(1, 2)[:, None] * flags[:, None, start : start + size]  # (heads, rows, dim, some keys)
        grams += (masked.flatten(1, 2) @ some).view_as(grams)
    counts = allowed.sum(1)
    cut = rank_cut(counts, dim, points.epsilon).expand(heads, -1)
    if points.unit is None or points.center is None:
        return whiten(grams, cut)
    unit, center = points.unit[part][:, None, None], points.center[part]
    count = counts.clamp_min(1)[:, None].double()
    shift = grams[..., -1, :-1] / (unit * count)  # (heads, rows, head_dim) the row's mean less m
    inner = grams[..., :-1, :-1]
    scatter = inner - count[..., None] * shift[..., :, None] * shift[..., None, :]
    mean = shift + center
    raw = scatter + count[..., None] * mean[..., :, None] * mean[..., None, :]
    whitening, rank = whiten((scatter + scatter.transpose(2, 3)) / 2, cut, raw)
    factors = torch.zeros_like(grams)
    factors[..., :-1, :-1] = whitening
    factors[..., -1, :-1] = -(shift[..., None, :] @ whitening)[..., 0, :] / unit
    factors[..., -1, -1] = 1 / (unit[..., 0] * count[:, 0].sqrt())
    return factors, rank + (counts > 0)
