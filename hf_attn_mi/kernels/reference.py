"""The specification of the fused routine: plain PyTorch, the matrices formed, any dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_attn_mi.kernels.checks import MASKED_BELOW, order_mask
from hf_attn_mi.kernels.effective.gram import epsilon_of


def reference_allowed(
    shape: tuple[int, int, int, int],
    mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    window: int | None = None,
    key_mask: Tensor | None = None,
    query_mask: Tensor | None = None,
) -> Tensor:  # bool, `shape`
    """Return which of the keys each query may see; `shape` is (batch, heads, queries, keys)."""
    _, _, queries, keys = shape
    device = next((x.device for x in (mask, key_mask, query_mask) if x is not None), torch.device("cpu"))
    allowed = torch.ones(shape, dtype=torch.bool, device=device)
    order = order_mask(slice(0, queries), slice(0, keys), is_causal, window, device)
    if order is not None:
        allowed = allowed & order
    if mask is not None:
        allowed = allowed & (mask if mask.dtype == torch.bool else mask > MASKED_BELOW)
    if key_mask is not None:
        allowed = allowed & key_mask[:, None, None, :]
    if query_mask is not None:
        allowed = allowed & query_mask[:, None, :, None]
    return allowed


def reference_rows(
    query: Tensor,
    key: Tensor,
    allowed: Tensor,
    *,
    scale: float | None = None,
    bias: Tensor | None = None,
    sinks: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return attention rows, zero where nothing is allowed, and their log-sum-exp.

    Args:
        query: (batch, heads, queries, qk_dim).
        key: (batch, kv_heads, keys, qk_dim).
        allowed: bool (batch, heads, queries, keys).
        scale: factor of the product, by default 1 / sqrt(qk_dim).
        bias: added to the logits at allowed keys.
        sinks: (heads,) or (batch, heads) one more logit in each row, of no key: it takes its share of the row and of
            the log-sum-exp, and the weights of the keys sum to less than one.
    """
    key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    logits = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        logits = logits + bias
    logits = logits.masked_fill(~allowed, -torch.inf)
    if sinks is not None:
        column = sinks.to(logits.dtype).expand(query.shape[:2])[:, :, None, None].expand(*logits.shape[:3], 1)
        logits = torch.cat([logits, column], -1)
    alive = allowed.any(-1)
    rows = logits.softmax(-1)[..., : key.shape[2]].masked_fill(~alive[..., None], 0.0)
    return rows, logits.logsumexp(-1).masked_fill(~alive, 0.0)


def reference_effective(
    rows: Tensor, values: Tensor, allowed: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return A P, row by row, the rank of each row's values, and each head's rank and condition number.

    P projects on the column space of the values of the row's own keys, by singular value decomposition; singular
    values up to max(n, d) * epsilon times the largest are zero, as the specification of `rank_cut` has it. Rows with
    n <= rank come back as they are.

    Args:
        rows: (batch, heads, queries, keys).
        values: (batch, heads, keys, head_dim).
        allowed: bool, as rows.
        epsilon: see `epsilon_of`.
    """
    seen, rank = rows.clone(), torch.zeros(rows.shape[:3], dtype=torch.long)
    whole, condition = torch.zeros(rows.shape[:2], dtype=torch.long), torch.zeros(rows.shape[:2], dtype=rows.dtype)
    for b in range(rows.shape[0]):
        for h in range(rows.shape[1]):
            for sets in torch.unique(allowed[b, h], dim=0):
                if not bool(sets.any()):
                    continue
                basis, _ = _column_space(values[b, h, sets], epsilon)
                members = (allowed[b, h] == sets).all(-1)
                rank[b, h, members] = basis.shape[1]
                if int(sets.sum()) > basis.shape[1]:
                    part = rows[b, h][members][:, sets] @ basis @ basis.T
                    block = torch.zeros(int(members.sum()), rows.shape[3], dtype=rows.dtype)
                    block[:, sets] = part
                    seen[b, h, members] = block
            _, sizes = _column_space(values[b, h, allowed[b, h].any(0)], epsilon)
            whole[b, h] = len(sizes)
            condition[b, h] = sizes.norm() * (1 / sizes).norm()
    return seen, rank, whole, condition


def reference_attention_statistics(
    rows: Tensor, values: Tensor, allowed: Tensor, *, log_sum_exp: Tensor | None = None, epsilon: float | None = None
) -> dict[str, Tensor]:
    """Return every field of `AttentionStatistics` from the attention rows, as a dictionary.

    Args:
        rows: (batch, heads, queries, keys), zero where not allowed.
        values: (batch, kv_heads, keys, head_dim).
        allowed: bool (batch, heads, queries, keys), without pad queries and pad keys.
        log_sum_exp: of the logits of each row, where known.
        epsilon: machine epsilon that decides ranks; by default that of the values.

    Example:
        >>> allowed = torch.ones(1, 1, 2, 2, dtype=torch.bool)
        >>> found = reference_attention_statistics(torch.full((1, 1, 2, 2), .5), torch.eye(2)[None, None], allowed)
        >>> found["received"].tolist(), found["rank"].tolist()
        ([[[0.5, 0.5]]], [[2]])
    """
    epsilon = epsilon_of(values) if epsilon is None else epsilon
    values = values.repeat_interleave(rows.shape[1] // values.shape[1], 1).to(rows.dtype)
    effective, rank, whole, condition = reference_effective(rows, values, allowed, epsilon)
    count = allowed.any(-1).sum(-1).clamp_min(1)  # (batch, heads) rows that count
    change = rows - effective
    entropy = torch.special.entr(rows).sum(-1)
    norm = rows.norm(dim=(-2, -1))
    result = {
        "received": rows.sum(-2) / count[..., None],
        "received_effective": effective.sum(-2) / count[..., None],
        "entropy": entropy,
        "largest": rows.amax(-1),
        "norm": rows.norm(dim=-1),
        "difference_norm": change.norm(dim=-1),
        "total_variation": change.abs().sum(-1) / 2,
        "negative_mass": (effective.where(rank[..., None] < allowed.sum(-1, keepdim=True), 0 * rows))
        .clamp_max(0)
        .sum(-1)
        .neg(),
        "rank": whole,
        "n": allowed.any(-2).sum(-1),
        "condition": condition,
        "difference": change.norm(dim=(-2, -1)) / norm.where(norm > 0, torch.ones_like(norm)),
        "mean_entropy": entropy.sum(-1) / count,
    }
    return result if log_sum_exp is None else {**result, "log_sum_exp": log_sum_exp}


def _column_space(values: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return an orthonormal basis of the column space and the singular values that count."""
    if 0 in values.shape:
        return values.new_zeros(values.shape[0], 0), values.new_zeros(0)
    basis, sizes, _ = torch.linalg.svd(values, full_matrices=False)
    kept = sizes > max(values.shape) * epsilon * sizes[0]
    return basis[:, kept], sizes[kept]
