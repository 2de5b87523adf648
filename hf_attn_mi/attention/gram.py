"""The column space of the values through their Gram matrix: one factorisation for every effective form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.kernels.gram import rank_cut, whiten


@dataclass(frozen=True)
class ValueSpace:
    """Column space of the values of the allowed keys, one a head, or one a row where the masks differ by row."""

    whitening: Tensor  # (..., head_dim, head_dim) W with W W^T = (V^T V)^+, so that V W has orthonormal columns
    mean: Tensor  # (..., head_dim) mean value of the allowed keys in the affine form, else zero
    rank: Tensor  # (...,) long: rank of V, or of [V, 1] in the affine form
    keys: Tensor  # (...,) long: number of allowed keys n


def value_space(values: Tensor, allowed: Tensor, epsilon: float, *, affine: bool) -> ValueSpace:
    """Return the column space of V, or of [V, 1] = span(1) + span(V - mean).

    The Gram matrix is summed in float64; which singular values count as zero: see `rank_cut`.

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
    cut = rank_cut(keys, gram.shape[-1], epsilon)
    mean = torch.zeros_like(total)
    if not affine:
        whitening, rank = whiten(gram, cut)
        return ValueSpace(whitening, mean, rank, keys)
    mean = total / keys.clamp_min(1)[..., None]
    centred = gram - total[..., :, None] * mean[..., None, :]
    # the scale is that of the values before centring, because that is what their rounding errors follow
    whitening, rank = whiten((centred + centred.transpose(-1, -2)) / 2, cut, gram)
    return ValueSpace(whitening, mean, rank + (keys > 0), keys)
