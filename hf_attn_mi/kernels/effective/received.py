"""Received effective weights from outputs and values alone, without any row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.kernels.effective.gram import epsilon_of, inverse_factor, rank_cut, value_basis

SUMMED = 256  # keys whose products float32 sums at a time: |error of a Gram matrix| <= SUMMED / 2 * epsilon * trace
SETTLED = 3e-4  # largest share that the first correction may have: the second is below its square, 1e-7


@dataclass(frozen=True, eq=False)
class Received:
    """What each key receives of effective attention, mean over queries."""

    weights: Tensor  # (batch, heads, keys)
    rank: Tensor  # (batch, kv_heads) long
    condition: Tensor  # (batch, kv_heads) float64, ||V||_F ||V^+||_F


@torch.no_grad()
def received_weights(outputs: Tensor, values: Tensor, keys: Tensor, queries: Tensor) -> Received:
    """Return w_j = < mean_i o_i, (V^T V)^+ v_j >, O(n d^2), nothing of size queries x keys.

    Gram matrices are summed in float64 or, for well-conditioned values in float32 or half precision, in float32 by
    parts of SUMMED keys: then their error is certainly too small to change the rank, and one correction from the
    residual of the mean output (corrected seminormal equations: Bjorck 1987) brings the weights to the accuracy of
    float32.

    Args:
        outputs: (batch, heads, queries, head_dim), finite.
        values: (batch, kv_heads, keys, head_dim), finite.
        keys: (batch, keys) bool, real keys.
        queries: (batch, queries) bool, real queries.

    Example:
        >>> values = torch.tensor([[[[1., 0.], [0., 2.], [0., 2.]]]])
        >>> flags = torch.ones(1, 3, dtype=torch.bool)
        >>> received_weights(torch.tensor([[[[.5, 1.]]]]), values, flags, flags[:, :1]).weights
        tensor([[[0.5000, 0.2500, 0.2500]]])
    """
    batch, kv_heads, length, dim = values.shape
    dtype = torch.float64 if outputs.dtype == values.dtype == torch.float64 else torch.float32
    base = values.to(dtype)
    if not bool(keys.all()):
        base = torch.where(keys[:, None, :, None], base, 0.0)
    base = base.flatten(0, 1)
    if bool(queries.all()):
        mean = outputs.to(dtype).mean(2)
    else:
        flags = queries[:, None, :, None]
        mean = torch.where(flags, outputs.to(dtype), 0.0).sum(2) / flags.sum(2).clamp_min(1)
    mean = mean.reshape(base.shape[0], -1, dim)  # (kv heads of all examples, groups, head_dim)
    count = keys.sum(1)[:, None].expand(batch, kv_heads).reshape(-1)
    epsilon = epsilon_of(values, outputs)
    found = _in_float32(base, mean, count, epsilon) if dtype == torch.float32 else None
    if found is None:
        space = value_basis(base, count, epsilon, columns=False)
        solved = (mean.double() @ space.whitening) @ space.whitening.transpose(1, 2)
        found = solved.to(dtype) @ base.transpose(1, 2), space.rank, space.condition
    weights, rank, condition = found
    return Received(weights.view(batch, -1, length), rank.view(batch, kv_heads), condition.view(batch, kv_heads))


def _in_float32(values: Tensor, mean: Tensor, count: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor] | None:
    """Weights, rank and condition by way of a float32 Gram matrix; None where that is not certainly enough.

    Args:
        values: (kv heads, keys, head_dim) float32.
        mean: (kv heads, groups, head_dim) mean outputs.
        count: (kv heads,) number of real keys.
        epsilon: see `epsilon_of`.
    """
    dim = values.shape[2]
    if int(count.min()) < dim or torch.get_float32_matmul_precision() != "highest":
        return None
    gram = torch.zeros(values.shape[0], dim, dim, dtype=torch.float64, device=values.device)
    for start in range(0, values.shape[1], SUMMED):
        part = values[:, start : start + SUMMED]
        gram += part.transpose(1, 2) @ part
    trace = gram.diagonal(dim1=1, dim2=2).sum(1)
    error = SUMMED / 2 * epsilon * trace
    normal = torch.finfo(torch.float32).tiny / epsilon**2  # below, products of values are lost
    if not bool(((trace > normal) & (trace < torch.inf)).all()):
        return None
    inverse, smallest = inverse_factor(gram)
    if not bool((smallest > 2 * error + 2 * rank_cut(count, dim, epsilon) * trace).all()):
        return None
    first = mean.double() @ inverse.transpose(1, 2)  # L^-1 of the mean output: its size is that of the weights
    weights = (first @ inverse).float() @ values.transpose(1, 2)
    second = (mean - weights @ values).double() @ inverse.transpose(1, 2)
    if not bool((second.norm(dim=2) <= SETTLED * first.norm(dim=2)).all()):
        return None
    weights = weights + (second @ inverse).float() @ values.transpose(1, 2)
    return weights, torch.full_like(count, dim), (trace / smallest).sqrt()
