"""The linear programs of efficient rows: one for each head and set of allowed keys, batched by size and rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.kernels.threads import sharing_threads

_ROWS = 2048  # rows solved together: enough to hide the cost of calls, few enough to stay in cache


@dataclass(frozen=True)
class Problems:
    """Problems with the same number of keys and the same rank, and their rows (never fully masked ones)."""

    points: Tensor  # (problems, keys, rank) see value_points
    values: Tensor  # (problems, keys, head_dim)
    weights: Tensor  # (rows, keys) the attention in float64, each row divided by its sum
    problem: Tensor  # (rows,) ascending: which problem a row belongs to
    place: Tensor  # (rows,) where the row stands among all heads * queries rows
    keys: Tensor  # (rows, keys) which of all keys these are


def cut_problems(attention: Tensor, values: Tensor, allowed: Tensor, epsilon: float) -> Iterator[Problems]:
    """Yield batches of problems that together hold every row with attention on an allowed key, once.

    Args:
        attention: (heads, queries, keys), zero at keys that are not allowed.
        values: (heads, keys, head_dim) float64.
        allowed: (heads, queries or 1, keys) bool.
        epsilon: machine epsilon of the input.
    """
    head, sets, members = _key_sets(attention, allowed)
    sizes = sets.sum(1)
    for size in sorted(set(sizes[members.any(1)].tolist())):
        if size == 0:
            continue
        same = (sizes == size).nonzero()[:, 0]
        step = max(1, _ROWS // max(1, int(members[same].sum(1).amax())))
        for chosen in same.split(step):
            keys = sets[chosen].nonzero()[:, 1].view(len(chosen), size)
            key_values = values[head[chosen][:, None], keys]
            points, ranks = value_points(key_values, epsilon)
            for rank in sorted(set(ranks.tolist())):
                batch = (ranks == rank).nonzero()[:, 0]
                problem, query = members[chosen[batch]].nonzero().unbind(1)
                source = head[chosen[batch]][problem]
                weights = attention[source, query].gather(1, keys[batch][problem]).double()
                total = weights.sum(1)
                some = total > 0
                if not bool(some.any()):
                    continue
                yield Problems(
                    points=leading_columns(points[batch], rank),
                    values=key_values[batch],
                    weights=weights[some] / total[some, None],
                    problem=problem[some],
                    place=(source * attention.shape[1] + query)[some],
                    keys=keys[batch][problem][some],
                )


def _key_sets(attention: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the head (problems,), allowed keys (problems, keys) and rows (problems, queries) of each problem."""
    count, queries, keys = attention.shape
    device = attention.device
    if allowed.shape[1] == 1:
        everyone = torch.ones(count, queries, dtype=torch.bool, device=device)
        return torch.arange(count, device=device), allowed[:, 0], everyone
    number = torch.arange(count, device=device).repeat_interleave(queries)
    table = torch.cat([number[:, None], allowed.reshape(-1, keys).long()], dim=1)
    table, which = torch.unique(table, dim=0, return_inverse=True)
    members = torch.zeros(len(table), queries, dtype=torch.bool, device=device)
    members[which, torch.arange(queries, device=device).repeat(count)] = True
    return table[:, 0], table[:, 1:].bool(), members


def value_points(values: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return an orthonormal basis of the column space of [V, 1], with its rank.

    Every distribution b over the keys has sum_j b_j v_j = o exactly when it has P^T b = P^T a, because the columns of P
    span those of [V, 1]. The last column of P is constant: P^T b also fixes the sum of b.

    Args:
        values: (heads, keys, head_dim) float64, real keys only.
        epsilon: machine epsilon of the input; singular values of V - mean up to max(n, d) * epsilon times the size of V
            count as zero.

    Returns:
        points (heads, keys, 1 + min(keys, head_dim)), best direction first, constant last, and rank (heads,): the first
        rank - 1 columns and the last one count, see `leading_columns`.
    """
    heads, keys, dim = values.shape
    mean = values.mean(1, keepdim=True)
    with sharing_threads(values.device, heads):  # LAPACK's steps are too small for several threads to share one
        basis, sizes, _ = torch.linalg.svd(values - mean, full_matrices=False)
    scale = torch.maximum(sizes[:, 0], mean.norm(dim=(1, 2)) * keys**0.5)
    kept = sizes > max(keys, dim) * epsilon * scale[:, None]
    if keys <= dim:
        kept[:, keys - 1 :] = False  # n centered points span at most n - 1 directions
    constant = values.new_full((heads, keys, 1), keys**-0.5)
    return torch.cat([basis, constant], dim=2), kept.sum(1) + 1


def leading_columns(points: Tensor, rank: int) -> Tensor:
    """Return the columns that count, for heads of equal rank: (heads, keys, rank)."""
    return torch.cat([points[:, :, : rank - 1], points[:, :, -1:]], dim=2).contiguous()


def start_keys(points: Tensor) -> Tensor:
    """Return (heads, rank) keys whose points are independent: QR with column pivoting, the farthest point first.

    Args:
        points: (heads, keys, rank), of full column rank.
    """
    left = points.clone()
    chosen = []
    for _ in range(points.shape[-1]):
        key = left.square().sum(-1).argmax(1)
        direction = left.gather(1, key[:, None, None].expand(-1, 1, left.shape[-1]))
        direction = direction / direction.norm(dim=-1, keepdim=True)
        left = left - (left @ direction.transpose(1, 2)) * direction
        chosen.append(key)
    return torch.stack(chosen, dim=1)


def times_head_matrix(rows: Tensor, matrices: Tensor, head: Tensor) -> Tensor:
    """Return each row times the matrix of its head: (rows, a), (heads, a, b), ascending head (rows,) -> (rows, b)."""
    if len(matrices) == 1:
        return rows @ matrices[0]
    sizes = torch.bincount(head, minlength=len(matrices)).tolist()
    return torch.cat([part @ matrix for part, matrix in zip(torch.split(rows, sizes), matrices)])
