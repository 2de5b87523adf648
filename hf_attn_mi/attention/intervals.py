"""Identifiability: in which interval a weight can lie without changing the head's output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy  # scipy.optimize itself is loaded when it is first used
import torch
from torch import Tensor

from hf_attn_mi.attention.efficient import efficient_attention
from hf_attn_mi.attention.inputs import read_heads
from hf_attn_mi.attention.interval_plots import plot_intervals
from hf_attn_mi.errors import HfAttnMiError, InvalidInputError, shown
from hf_attn_mi.kernels.efficient.problems import Problems, cut_problems
from hf_attn_mi.kernels.inputs import check_tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FLOOR = 1e-9  # a minimum below this is zero: the linear programs are solved to 1e-10


@torch.no_grad()
def attention_interval(
    attention_row: Tensor, values: Tensor, keys: Sequence[int] | Tensor, mask: Tensor | None = None
) -> Tensor:  # (..., len(keys), 2) float64
    """Return [min b_j, max b_j] over all distributions b with the row's output, for each requested key of each row.

    F(a) = {b >= 0: sum_j b_j v_j = sum_j a_j v_j, sum_j b_j = 1}. A minimum above zero: the key has weight in every
    distribution with this output. A wide interval: the weight cannot be identified from the output. Each row and key
    takes two linear programs (HiGHS), a few milliseconds; the values of a head are factored once for all its rows. The
    row is first divided by its sum over real keys; its weight always lies in the interval. Where n <= rank([V, 1]) both
    ends are that weight; for a masked key and for a fully masked row they are 0.

    Args:
        attention_row: (keys,) for one row, or whole heads: (..., queries, keys). Non-negative.
        values: (keys, head_dim), or for whole heads (..., keys, head_dim); leading dimensions broadcast.
        keys: numbers of the requested keys, the same for all rows.
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
    check_tensor("attention_row", attention_row)
    check_tensor("values", values)
    single = attention_row.dim() == 1
    if attention_row.dim() < 1 or (single and values.dim() != 2):
        raise InvalidInputError(
            f"attention_row {tuple(attention_row.shape)} and values {tuple(values.shape)} "
            "must be (keys,) and (keys, head_dim), or (..., queries, keys) and (..., keys, head_dim)"
        )
    requested = _read_keys(keys)
    count = attention_row.shape[-1]
    if not all(0 <= key < count for key in requested):
        raise InvalidInputError(f"keys is {shown(requested)}: every key must lie between 0 and {count - 1}")
    heads = read_heads(attention_row[None] if single else attention_row, values, mask)
    ends = torch.zeros(heads.attention.shape[:2].numel(), len(requested), 2, dtype=torch.float64)
    for problems in cut_problems(heads.attention, heads.values, heads.allowed, heads.epsilon):
        _fill(ends, problems, requested)
    return ends[0] if single else ends.reshape(*heads.lead, heads.attention.shape[1], len(requested), 2)


def _read_keys(keys: object) -> list[int]:
    """The numbers of the requested keys."""
    if isinstance(keys, Tensor):
        check_tensor("keys", keys)
        keys = keys.tolist()
    if not isinstance(keys, list | tuple | range) or not all(type(key) is int for key in keys):
        raise InvalidInputError(f"keys is {shown(keys)}: it must be a list or a tensor of whole numbers")
    return list(keys)


def _fill(ends: Tensor, problems: Problems, requested: list[int]) -> None:
    """Write the intervals of the rows of these problems into `ends` (all rows, requested keys, 2)."""
    size, rank = problems.points.shape[1:]
    matrices = [points.T.cpu().numpy() for points in problems.points]
    columns = problems.keys.cpu().tolist()
    for row, (problem, place) in enumerate(zip(problems.problem.tolist(), problems.place.tolist())):
        weights = problems.weights[row].cpu()
        target = (problems.weights[row] @ problems.points[problem]).cpu().numpy()
        for number, key in enumerate(requested):
            if key not in columns[row]:
                continue
            column = columns[row].index(key)
            weight = float(weights[column])
            ends[place, number] = weight
            if size > rank:
                cost = np.zeros(size)
                cost[column] = 1.0
                smallest, largest = (sign * _solve(sign * cost, matrices[problem], target) for sign in (1.0, -1.0))
                ends[place, number, 0] = min(max(smallest, 0.0), weight)
                ends[place, number, 1] = max(min(largest, 1.0), weight)


def _solve(cost: np.ndarray, matrix: np.ndarray, target: np.ndarray) -> float:
    """Return the smallest cost . b over matrix b = target, b >= 0."""
    options = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    solution = scipy.optimize.linprog(cost, A_eq=matrix, b_eq=target, bounds=(0, None), method="highs", options=options)
    if solution.status != 0:
        raise HfAttnMiError(f"the linear program of an identifiability interval was not solved: {solution.message}")
    return float(solution.fun)


@dataclass(frozen=True, eq=False)
class IdentifiableWeights:
    """What the output of each row determines about its weights on the requested keys.

    Attributes:
        keys: (requested,) long, numbers of the requested keys.
        attention: (..., queries, requested) float64, the model's weight, each row divided by its sum.
        efficient: (..., queries, requested) float64, the efficient row's weight.
        lower, upper: (..., queries, requested) float64, ends of the interval of `attention_interval`.
        allowed: (..., queries, requested) bool, False if the query may not attend to the key or to any key.
        width: intervals up to this width count as identifiable.
        count: number of keys.
    """

    keys: Tensor
    attention: Tensor
    efficient: Tensor
    lower: Tensor
    upper: Tensor
    allowed: Tensor
    width: float
    count: int

    @property
    def identifiable(self) -> Tensor:
        """Whether the output determines the weight up to `width`."""
        return (self.upper - self.lower <= self.width) & self.allowed

    @property
    def forced(self) -> Tensor:
        """Whether the key has weight in every distribution that gives the output (lower end above zero)."""
        return (self.lower > _FLOOR) & self.allowed

    @property
    def share(self) -> Tensor:
        """(...,) share of the allowed (query, key) pairs of each head that are identifiable; NaN without any."""
        pairs = self.allowed.sum((-2, -1))
        return torch.where(pairs > 0, self.identifiable.sum((-2, -1)).double() / pairs.clamp_min(1), torch.nan)

    def plot(
        self,
        path: str | Path | None = None,
        *,
        row: tuple[int, ...] | None = None,
        names: Sequence[str] | None = None,
        most: int = 60,
        ax: Axes | None = None,
    ) -> Figure:
        """Return the figure of one row: where each weight can lie, with the model's own and the efficient weight.

        Args:
            path, names, most, ax: as in `hf_attn_mi.attention.interval_plots.plot_intervals`.
            row: the index of the query, preceded by the indices of the leading dimensions; None for the first row.

        Raises:
            BackendUnavailableError: matplotlib is not installed.
            InvalidInputError: a row that does not exist, names that do not fit, or a path that cannot be written.
        """
        first = (0,) * (self.attention.dim() - 1)
        return plot_intervals(self, path, row=first if row is None else row, names=names, most=most, ax=ax)


@torch.no_grad()
def identifiable_weights(
    attention: Tensor,
    values: Tensor,
    keys: Sequence[int] | Tensor | None = None,
    mask: Tensor | None = None,
    *,
    width: float = 0.05,
) -> IdentifiableWeights:
    """Return which weights of these rows are determined by the outputs: identifiable, forced, or neither.

    A weight is identifiable where [min b_j, max b_j] over all distributions b with the row's output is at most `width`
    wide, and forced where the minimum is above zero. An identifiable weight near zero means that the key cannot have
    more weight than that. Where n <= rank([V, 1]) every interval is a point. Each query and key takes two linear
    programs, a few milliseconds: select some queries (slice `attention`) or some keys.

    Args:
        attention: (..., queries, keys), non-negative; the rows of interest.
        values: (..., keys, head_dim); leading dimensions broadcast.
        keys: numbers of the requested keys, the same for all rows; None for all.
        mask: bool, True where the key is real, as in `efficient_attention`.
        width: from 0 to 1.

    Raises:
        InvalidInputError: shapes, dtypes, keys or width that do not fit.

    Example:
        >>> values = torch.tensor([[0.0], [1.0], [1.0], [9.0]])                       # two keys of the same value
        >>> weights = identifiable_weights(torch.tensor([[0.0, 0.25, 0.25, 0.5]]), values)
        >>> (weights.lower.round(decimals=4) + 0.0).tolist(), weights.upper.round(decimals=4).tolist()
        ([[0.0, 0.0, 0.0, 0.5]], [[0.4444, 0.5, 0.5, 0.5556]])
        >>> weights.identifiable.tolist(), weights.forced.tolist()
        ([[False, False, False, False]], [[False, False, False, True]])
    """
    if isinstance(width, bool) or not isinstance(width, int | float) or not 0 <= width <= 1:
        raise InvalidInputError(f"width must be a number from 0 to 1, not {shown(width)}")
    if attention.dim() < 2:
        raise InvalidInputError(
            f"attention must be (..., queries, keys), not {tuple(attention.shape)}; a row is row[None]"
        )
    count = attention.shape[-1]
    requested = list(range(count)) if keys is None else [int(key) for key in keys]
    ends = attention_interval(attention, values, requested, mask)
    heads = read_heads(attention, values, mask)
    rows = heads.attention.double()
    total = rows.sum(-1, keepdim=True)
    rows = rows / total.where(total > 0, torch.ones_like(total))
    shape = (*heads.lead, *heads.attention.shape[1:])
    allowed = (heads.allowed & (total > 0)).reshape(shape)
    efficient = efficient_attention(attention, values, mask).attention.double()
    return IdentifiableWeights(
        keys=torch.tensor(requested, dtype=torch.long),
        attention=rows.reshape(shape)[..., requested].cpu(),
        efficient=efficient[..., requested].cpu(),
        lower=ends[..., 0],
        upper=ends[..., 1],
        allowed=allowed[..., requested].cpu(),
        width=float(width),
        count=count,
    )
