"""Identifiability intervals: how far a weight can move without the head's output noticing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy  # scipy.optimize itself is loaded when it is first used
import torch
from torch import Tensor

from hf_attn_mi.attention.inputs import read_heads
from hf_attn_mi.errors import InvalidInput
from hf_attn_mi.kernels.rows_points import leading_columns, value_points


@torch.no_grad()
def attention_interval(
    attention_row: Tensor, values: Tensor, keys: Sequence[int] | Tensor, mask: Tensor | None = None
) -> Tensor:  # (len(keys), 2) float64
    """Return [min b_j, max b_j] over all distributions b with the row's output, for each asked key.

    F(a) = {b >= 0: sum_j b_j v_j = sum_j a_j v_j, sum_j b_j = 1}. A minimum above zero: the key has weight in every
    distribution that explains the output. A wide interval: the weight cannot be identified from the output. Two
    linear programs a key (HiGHS). The row is first divided by its sum over real keys; its own weight is always
    inside. Where n <= rank([V, 1]) both ends are that weight; for a masked key, and for a fully masked row, they are
    0.

    Args:
        attention_row: (keys,), non-negative.
        values: (keys, head_dim).
        keys: numbers of the asked keys.
        mask: (keys,) bool, True where the key is real.

    Raises:
        InvalidInput: shapes or dtypes that do not fit, key numbers out of range.

    Example:
        >>> values = torch.tensor([[0.0], [1.0], [2.0]])
        >>> attention_interval(torch.tensor([0.25, 0.5, 0.25]), values, [1]).round(decimals=6)
        tensor([[0., 1.]], dtype=torch.float64)
    """
    if attention_row.dim() != 1 or values.dim() != 2:
        raise InvalidInput(
            f"attention_row {tuple(attention_row.shape)} and values {tuple(values.shape)} "
            "must be (keys,) and (keys, head_dim)"
        )
    asked = [int(key) for key in keys]
    count = attention_row.shape[0]
    if not all(0 <= key < count for key in asked):
        raise InvalidInput(f"keys is {asked}: every key must lie between 0 and {count - 1}")
    heads = read_heads(attention_row[None], values, mask, None)
    allowed = heads.allowed[0, 0]
    real = allowed.nonzero()[:, 0]
    row = heads.attention[0, 0].double()
    total = row.sum()
    ends = torch.zeros(len(asked), 2, dtype=torch.float64)
    if not bool(total > 0):
        return ends
    row = row / total
    points, rank = value_points(heads.values[:, real], heads.epsilon)
    points = leading_columns(points, int(rank[0]))
    for number, key in enumerate(asked):
        ends[number] = row[key]
        if not bool(allowed[key]) or len(real) <= int(rank[0]):
            continue
        cost = (real == key).double().cpu().numpy()
        target = (row[real] @ points[0]).cpu().numpy()
        found = [_solve(sign * cost, points[0].T.cpu().numpy(), target) for sign in (1.0, -1.0)]
        ends[number, 0] = min(max(found[0], 0.0), float(row[key]))
        ends[number, 1] = max(min(-found[1], 1.0), float(row[key]))
    return ends


def _solve(cost: np.ndarray, matrix: np.ndarray, target: np.ndarray) -> float:
    """Return the smallest cost . b over matrix b = target, b >= 0."""
    tight = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    answer = scipy.optimize.linprog(cost, A_eq=matrix, b_eq=target, bounds=(0, None), method="highs", options=tight)
    if answer.status != 0:
        raise RuntimeError(f"the linear program of an identifiability interval was not solved: {answer.message}")
    return float(answer.fun)
