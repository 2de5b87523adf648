"""The column space of the values through their Gram matrix: one factorisation for every effective form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ValueSpace:
    """Column space of the values of the allowed keys, one a head, or one a row where the masks differ by row."""

    whitening: Tensor  # (..., head_dim, head_dim) W with W W^T = (V^T V)^+, so that V W has orthonormal columns
    mean: Tensor  # (..., head_dim) mean value of the allowed keys in the affine form, else zero
    rank: Tensor  # (...,) long: rank of V, or of [V, 1] in the affine form
    keys: Tensor  # (...,) long: number of allowed keys n


def value_space(values: Tensor, allowed: Tensor, epsilon: float, *, affine: bool) -> ValueSpace:
    """Return the column space of V, or of [V, 1] = span(1) + span(V - mean).

    The Gram matrix is summed in float64. Singular values up to max(n, d) * epsilon times the largest one count as
    zero; a Gram matrix cannot tell those below sqrt(max(n, d) * 2e-16) apart, which only matters for float64 input.

    Args:
        values: (heads, keys, head_dim) float64, zero at keys that no row may see.
        allowed: (heads, 1 or queries, keys) bool. With more than one row all fields get a queries dimension.
        epsilon: machine epsilon of the input.
        affine: include the constant vector.
    """
    if allowed.shape[1] == 1:
        return _from_moments(values.transpose(-1, -2) @ values, values.sum(-2), allowed[:, 0].sum(-1), epsilon, affine)
    grams = []
    for head, sets in zip(values, allowed.double()):
        outer = head[:, :, None] * head[:, None, :]  # (keys, head_dim, head_dim)
        grams.append((sets @ outer.flatten(1)).unflatten(1, outer.shape[1:]))
    return _from_moments(torch.stack(grams), allowed.double() @ values, allowed.sum(-1), epsilon, affine)


def _from_moments(gram: Tensor, total: Tensor, keys: Tensor, epsilon: float, affine: bool) -> ValueSpace:
    size = torch.maximum(keys, torch.full_like(keys, gram.shape[-1])).double()
    cut = torch.maximum((size * epsilon) ** 2, size * torch.finfo(torch.float64).eps)
    raw = gram
    mean = torch.zeros_like(total)
    if affine:
        mean = total / keys.clamp_min(1)[..., None]
        gram = gram - total[..., :, None] * mean[..., None, :]
        gram = (gram + gram.transpose(-1, -2)) / 2
    whitening, rank = _whiten(gram, raw, cut)
    return ValueSpace(whitening, mean, rank + affine * (keys > 0), keys)


def _whiten(gram: Tensor, raw: Tensor, cut: Tensor) -> tuple[Tensor, Tensor]:
    """Return W with W W^T = gram^+ and the rank; eigenvalues up to `cut` times the largest of `raw` count as zero.

    The scale is that of the values before centring, because that is what their rounding errors follow.
    """
    dim = gram.shape[-1]
    factor, failed = torch.linalg.cholesky_ex(gram)
    # 1 / ||L^-1||_F^2 <= smallest eigenvalue, trace >= largest: with a ratio above the cut, full rank is certain.
    identity = torch.eye(dim, dtype=gram.dtype, device=gram.device)
    safe = torch.where((failed == 0)[..., None, None], factor, identity)
    inverse = torch.linalg.solve_triangular(safe, identity.expand_as(safe), upper=False)
    trace = raw.diagonal(dim1=-2, dim2=-1).sum(-1)
    full = (failed == 0) & (1 / inverse.square().sum((-2, -1)) > cut * trace)
    whitening = inverse.transpose(-1, -2).contiguous()
    rank = torch.full_like(failed, dim, dtype=torch.long)
    if not bool(full.all()):
        eigenvalues, vectors = torch.linalg.eigh(gram[~full])
        largest = torch.linalg.eigvalsh(raw[~full])[:, -1].clamp_min(0)
        kept = eigenvalues > (cut[~full] * largest)[:, None]
        scale = torch.where(kept, eigenvalues.clamp_min(torch.finfo(gram.dtype).tiny).rsqrt(), 0.0)
        whitening[~full] = vectors * scale[:, None, :]
        rank[~full] = kept.sum(-1)
    return whitening, rank
