"""The definition of `attention_statistics`: plain PyTorch that forms the matrices, in the dtype of its arguments."""

from __future__ import annotations

import torch
from torch import Tensor


def reference_allowed(
    shape: tuple[int, int, int, int],
    mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    window: int | None = None,
    key_mask: Tensor | None = None,
    query_mask: Tensor | None = None,
) -> Tensor:  # bool, `shape`
    """Return which keys each query may see; `shape` is (batch, heads, queries, keys).

    Causal: j <= i. Window w: |i - j| < w. An additive mask hides a key where it is at most -5e3.
    """
    device = next((x.device for x in (mask, key_mask, query_mask) if x is not None), torch.device("cpu"))
    allowed = torch.ones(shape, dtype=torch.bool, device=device)
    i, j = torch.arange(shape[2], device=device)[:, None], torch.arange(shape[3], device=device)
    if is_causal:
        allowed = allowed & (j <= i)
    if window is not None:
        allowed = allowed & ((i - j).abs() < window)
    if mask is not None:
        allowed = allowed & (mask if mask.dtype == torch.bool else mask > -5e3)
    if key_mask is not None:
        allowed = allowed & key_mask[:, None, None, :]
    if query_mask is not None:
        allowed = allowed & query_mask[:, None, :, None]
    return allowed


def reference_rows(
    query: Tensor, key: Tensor, allowed: Tensor, *, scale: float | None = None, bias: Tensor | None = None
) -> Tensor:
    """Return attention rows (batch, heads, queries, keys), zero where nothing is allowed.

    Args:
        query: (batch, heads, queries, qk_dim).
        key: (batch, kv_heads, keys, qk_dim).
        allowed: bool (batch, heads, queries, keys).
        scale: factor of the product, by default 1 / sqrt(qk_dim).
        bias: added to the logits at allowed keys.
    """
    key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    logits = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        logits = logits + bias
    rows = logits.masked_fill(~allowed, -torch.inf).softmax(-1)
    return rows.masked_fill(~allowed.any(-1, keepdim=True), 0.0)


def reference_attention_statistics(rows: Tensor, values: Tensor, allowed: Tensor, epsilon: float) -> dict[str, Tensor]:
    """Return every tensor of `AttentionStatistics`, by its name.

    A_eff = A P, where the projector P of a row belongs to the column space of the values of its own keys, by singular
    value decomposition. Rows with n <= rank are their own effective rows.

    Args:
        rows: (batch, heads, queries, keys), zero where not allowed.
        values: (batch, kv_heads, keys, head_dim).
        allowed: bool (batch, heads, queries, keys), without pad queries and pad keys.
        epsilon: singular values up to max(n, d) * epsilon times the largest count as zero.

    Example:
        >>> allowed = torch.ones(1, 1, 2, 2, dtype=torch.bool)
        >>> rows, values = torch.full((1, 1, 2, 2), .5), torch.eye(2)[None, None]
        >>> exact = reference_attention_statistics(rows, values, allowed, 1e-7)
        >>> exact["received"].tolist(), exact["rank"].tolist()
        ([[[0.5, 0.5]]], [[2]])
    """
    values = values.repeat_interleave(rows.shape[1] // values.shape[1], 1).to(rows.dtype)
    effective, rank = rows.clone(), torch.zeros(rows.shape[:2], dtype=torch.long)
    for b, h in torch.cartesian_prod(torch.arange(rows.shape[0]), torch.arange(rows.shape[1])).tolist():
        rank[b, h] = _column_space(values[b, h, allowed[b, h].any(0)], epsilon).shape[1]
        for keys in torch.unique(allowed[b, h], dim=0):
            basis = _column_space(values[b, h, keys], epsilon)
            if int(keys.sum()) > basis.shape[1]:
                members = (allowed[b, h] == keys).all(-1)
                block = torch.zeros(int(members.sum()), rows.shape[3], dtype=rows.dtype)
                block[:, keys] = rows[b, h][members][:, keys] @ basis @ basis.T
                effective[b, h, members] = block
    count = allowed.any(-1).sum(-1).clamp_min(1)  # (batch, heads) rows that count
    norm = rows.norm(dim=(-2, -1))
    return {
        "received": rows.sum(-2) / count[..., None],
        "received_effective": effective.sum(-2) / count[..., None],
        "mean_entropy": torch.special.entr(rows).sum((-2, -1)) / count,
        "rank": rank,
        "n": allowed.any(-2).sum(-1),
        "null_space_fraction": (rows - effective).norm(dim=(-2, -1)) / norm.where(norm > 0, torch.ones_like(norm)),
    }


def _column_space(values: Tensor, epsilon: float) -> Tensor:
    """Return an orthonormal basis (keys, rank) of the column space."""
    if 0 in values.shape:
        return values.new_zeros(values.shape[0], 0)
    basis, sizes, _ = torch.linalg.svd(values, full_matrices=False)
    space: Tensor = basis[:, sizes > max(values.shape) * epsilon * sizes[0]]
    return space
