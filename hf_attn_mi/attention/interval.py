"""Identifiability intervals: how far a weight can move without the head's output noticing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy  # scipy.optimize itself is loaded when it is first used
import torch
from torch import Tensor

from hf_attn_mi.attention.inputs import read_heads
from hf_attn_mi.errors import HfAttnMiError, InvalidInputError
from hf_attn_mi.kernels.efficient.problems import Problems, cut_problems


@torch.no_grad()
def attention_interval(
    attention_row: Tensor, values: Tensor, keys: Sequence[int] | Tensor, mask: Tensor | None = None
) -> Tensor:  # (..., len(keys), 2) float64
    """Return [min b_j, max b_j] over all distributions b with the row's output, for each asked key of each row.

    F(a) = {b >= 0: sum_j b_j v_j = sum_j a_j v_j, sum_j b_j = 1}. A minimum above zero: the key has weight in every
    distribution that explains the output. A wide interval: the weight cannot be identified from the output. Two
    linear programs (HiGHS) a row and key, a few milliseconds; the values of a head are factored once for all its rows.
    The row is first divided by its sum over real keys; its own weight is always inside. Where n <= rank([V, 1]) both
    ends are that weight; for a masked key, and for a fully masked row, they are 0.

    Args:
        attention_row: (keys,) for one row, or whole heads: (..., queries, keys). Non-negative.
        values: (keys, head_dim), or for whole heads (..., keys, head_dim); leading dimensions broadcast.
        keys: numbers of the asked keys, the same for all rows.
        mask: bool, True where the key is real: (keys,), or for whole heads as in `efficient_attention`.

    Raises:
        InvalidInputError: shapes or dtypes that do not fit, key numbers out of range.

    Example:
        >>> values = torch.tensor([[0.0], [1.0], [2.0]])
        >>> attention_interval(torch.tensor([0.25, 0.5, 0.25]), values, [1]).round(decimals=6)
        tensor([[0., 1.]], dtype=torch.float64)
        >>> attention_interval(torch.tensor([[0.25, 0.5, 0.25], [0.0, 0.0, 1.0]]), values, [2]).round(decimals=6)[:, 0]
        tensor([[0.0000, 0.5000],
                [1.0000, 1.0000]], dtype=torch.float64)
    """
    single = attention_row.dim() == 1
    if attention_row.dim() < 1 or (single and values.dim() != 2):
        raise InvalidInputError(
            f"attention_row {tuple(attention_row.shape)} and values {tuple(values.shape)} "
            "must be (keys,) and (keys, head_dim), or (..., queries, keys) and (..., keys, head_dim)"
        )
    asked = [int(key) for key in keys]
    count = attention_row.shape[-1]
    if not all(0 <= key < count for key in asked):
        raise InvalidInputError(f"keys is {asked}: every key must lie between 0 and {count - 1}")
    heads = read_heads(attention_row[None] if single else attention_row, values, mask, None)
    each = heads.lead + heads.attention.shape[1:2]
    ends = torch.zeros(heads.attention.shape[:2].numel(), len(asked), 2, dtype=torch.float64)
    for problems in cut_problems(heads.attention, heads.values, heads.allowed, heads.epsilon):
        _fill(ends, problems, asked)
    return ends[0] if single else ends.reshape(*each, len(asked), 2)


def _fill(ends: Tensor, problems: Problems, asked: list[int]) -> None:
    """Write the ends of the rows of these problems, (all rows, asked, 2), in their places."""
    size, rank = problems.points.shape[1:]
    matrices = [points.T.cpu().numpy() for points in problems.points]
    columns = problems.keys.cpu().tolist()
    for row, (problem, place) in enumerate(zip(problems.problem.tolist(), problems.place.tolist())):
        weights = problems.weights[row].cpu()
        target = (problems.weights[row] @ problems.points[problem]).cpu().numpy()
        for number, key in enumerate(asked):
            if key not in columns[row]:
                continue
            at = columns[row].index(key)
            own = float(weights[at])
            ends[place, number] = own
            if size > rank:
                cost = np.zeros(size)
                cost[at] = 1.0
                found = [_solve(sign * cost, matrices[problem], target) for sign in (1.0, -1.0)]
                ends[place, number, 0] = min(max(found[0], 0.0), own)
                ends[place, number, 1] = max(min(-found[1], 1.0), own)


def _solve(cost: np.ndarray, matrix: np.ndarray, target: np.ndarray) -> float:
    """Return the smallest cost . b over matrix b = target, b >= 0."""
    tight = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    answer = scipy.optimize.linprog(cost, A_eq=matrix, b_eq=target, bounds=(0, None), method="highs", options=tight)
    if answer.status != 0:
        raise HfAttnMiError(f"the linear program of an identifiability interval was not solved: {answer.message}")
    return float(answer.fun)
