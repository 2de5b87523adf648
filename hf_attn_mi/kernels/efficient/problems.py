"""Cuts heads into linear-programming problems: one for each head and set of allowed keys, batched by size and rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.kernels.efficient.points import leading_columns, value_points

_ROWS = 2048  # rows solved together: enough to hide the cost of calls, few enough to stay in cache


@dataclass(frozen=True)
class Problems:
    """Problems with the same number of keys and the same rank, and their rows (never fully masked ones)."""

    points: Tensor  # (problems, keys, rank) see points.py
    values: Tensor  # (problems, keys, head_dim)
    weights: Tensor  # (rows, keys) the given attention in float64, each row divided by its sum
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
            own = values[head[chosen][:, None], keys]
            points, ranks = value_points(own, epsilon)
            for rank in sorted(set(ranks.tolist())):
                mine = (ranks == rank).nonzero()[:, 0]
                problem, query = members[chosen[mine]].nonzero().unbind(1)
                source = head[chosen[mine]][problem]
                weights = attention[source, query].gather(1, keys[mine][problem]).double()
                total = weights.sum(1)
                some = total > 0
                if not bool(some.any()):
                    continue
                columns = leading_columns(points[mine], rank)
                yield Problems(
                    points=columns,
                    values=own[mine],
                    weights=weights[some] / total[some, None],
                    problem=problem[some],
                    place=(source * attention.shape[1] + query)[some],
                    keys=keys[mine][problem][some],
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
