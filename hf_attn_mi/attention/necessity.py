"""Necessity of the kept keys: how far the head's output lies from everything that can be made without one of them."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_attn_mi.attention.inputs import read_heads
from hf_attn_mi.errors import InvalidInputError

_TOGETHER = 512  # rows factored together


@torch.no_grad()
def necessity_distance(attention: Tensor, values: Tensor, rows: Tensor | None = None) -> Tensor:  # (rows, keys)
    """Return for each kept key of a row how far the row's output is missed, at least, without that key.

    A row e keeps the keys J = {j: e_j > 0} and gives o = sum_j e_j v_j. Where the values of J are affinely independent,
    e_j is the barycentric coordinate of o at v_j, an affine function with gradient g_j inside the affine hull of J, so

        distance(o, affine hull of J without j) = e_j / || g_j ||  <=  distance(o, convex hull of J without j).

    The right side is the smallest || o - sum_k b_k v_k || over all distributions b on the other kept keys; it needs a
    quadratic program, the left side one small inverse a row. Where the values of J are not affinely independent, the
    distance is 0: one of the keys can go. The only key of a row cannot go: inf.

    Args:
        attention: (heads, queries, keys), rows of `efficient_attention`; each is divided by its sum.
        values: (heads, keys, head_dim).
        rows: (rows,) long, which rows, as head * queries + query; None for all of them, in order.

    Returns:
        (rows, keys) float64 in the unit of the values; nan at keys without weight.

    Raises:
        InvalidInputError: shapes, dtypes, weights or row numbers that do not fit.

    Example:
        >>> values = torch.tensor([[[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [9.0, 9.0]]])
        >>> necessity_distance(torch.tensor([[[0.5, 0.25, 0.25, 0.0]]]), values).round(decimals=4)
        tensor([[1.4142, 1.0000, 1.0000,    nan]], dtype=torch.float64)
    """
    if attention.dim() != 3 or values.dim() != 3:
        raise InvalidInputError(
            f"attention {tuple(attention.shape)} and values {tuple(values.shape)} must be (heads, queries, keys) and "
            "(heads, keys, head_dim)"
        )
    heads = read_heads(attention, values, None, None)
    count, queries, keys = heads.attention.shape
    which = torch.arange(count * queries, device=attention.device) if rows is None else rows.to(attention.device)
    if which.dim() != 1 or which.dtype != torch.long or bool(((which < 0) | (which >= count * queries)).any()):
        raise InvalidInputError(f"rows must be numbers from 0 to {count * queries - 1}, (rows,) of dtype long")
    asked = heads.attention.reshape(-1, keys)[which].double()
    head = which // queries
    found = torch.full_like(asked, torch.nan)
    sizes = (asked > 0).sum(1)
    for size in sorted(set(sizes.tolist()) - {0}):
        for part in (sizes == size).nonzero()[:, 0].split(_TOGETHER):
            kept = (asked[part] > 0).nonzero()[:, 1].view(len(part), size)
            weights = asked[part].gather(1, kept)
            points = heads.values[head[part][:, None], kept]
            found[part[:, None], kept] = _distances(weights / weights.sum(1, keepdim=True), points)
    return found


def _distances(weights: Tensor, points: Tensor) -> Tensor:
    """Return weights / gradient norms: (rows, kept) from weights (rows, kept) and points (rows, kept, head_dim)."""
    size, dim = points.shape[1:]
    if size == 1:
        return torch.full_like(weights, torch.inf)
    if size > dim + 1:
        return torch.zeros_like(weights)  # more points than an affinely independent set can have
    edges = points[:, 1:] - points[:, :1]
    left, sizes, right = torch.linalg.svd(edges, full_matrices=False)
    independent = sizes[:, -1] > max(size, dim) * torch.finfo(torch.float64).eps * sizes[:, 0]
    others = right.mT / sizes.where(sizes > 0, torch.ones_like(sizes))[:, None, :] @ left.mT
    gradients = torch.cat([-others.sum(2, keepdim=True), others], dim=2)  # coordinates sum to one, gradients to zero
    return torch.where(independent[:, None], weights / gradients.norm(dim=1), torch.zeros_like(weights))
