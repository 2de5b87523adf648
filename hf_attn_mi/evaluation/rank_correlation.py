"""Rank correlation of scores: Kendall's tau-b and Spearman's rho of many vectors, and their mean between methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation.statistics import RESAMPLES, Estimate, estimate, none_for_nan


@dataclass(frozen=True)
class RankMatrix:
    """Mean rank correlation between methods.

    Attributes:
        methods: names, in the order of rows and columns.
        tau: rows of `Estimate`: mean tau-b over inputs with its 95 % interval; symmetric, 1 on the diagonal (None
            where a method has no order on any input).
    """

    methods: tuple[str, ...]
    tau: tuple[tuple[Estimate, ...], ...]


def rank_correlations(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return Kendall's tau-b and Spearman's rho along the last dimension, float64.

    With s_ij = sign(x_i - x_j) and t_ij = sign(y_i - y_j): tau-b = sum s t / sqrt(sum s^2 sum t^2), where ties count
    zero (Kendall 1945). sum_j s_ij is twice the average rank of x_i less n + 1, so that rho is the correlation of the
    row sums of the same signs. All vectors of a batch are computed at once; the cost is quadratic in n.

    Args:
        first: (..., n) finite numbers; leading dimensions broadcast.
        second: (..., n).

    Returns:
        tau-b and rho of the broadcast leading shape; NaN where a vector is constant.

    Example:
        >>> tau, rho = rank_correlations(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 3.0, 2.0, 4.0]))
        >>> round(float(tau), 4), round(float(rho), 4)
        (0.6667, 0.8)
    """
    signs, others = (torch.sign(x[..., :, None] - x[..., None, :]) for x in (first.double(), second.double()))
    ranks, other_ranks = signs.sum(-1), others.sum(-1)
    tau = (signs * others).sum((-1, -2)) / (_sum_of_squares(signs, 2) * _sum_of_squares(others, 2)).sqrt()
    rho = (ranks * other_ranks).sum(-1) / (_sum_of_squares(ranks, 1) * _sum_of_squares(other_ranks, 1)).sqrt()
    return tau, rho


def rank_matrix(
    scores: Mapping[str, Sequence[Tensor | None]], *, resamples: int = RESAMPLES, seed: int = 0
) -> RankMatrix:
    """Return the mean of Kendall's tau-b over inputs between all methods.

    Tau-b is computed within each input over its tokens. For a pair of methods, inputs are left out where one of the two
    has no scores (None) or gives all tokens the same score, and inputs of fewer than two tokens.

    Args:
        scores: for each method and input (tokens,), special tokens taken out; None if the method failed.
        resamples: bootstrap resamples.
        seed: the random seed for the resamples.

    Raises:
        InvalidInputError: numbers of inputs or tokens that differ between methods, or scores that are not finite.

    Example:
        >>> a, b = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 3.0, 2.0, 4.0])
        >>> result = rank_matrix({"a": [a, a], "b": [b, torch.ones(4)]})
        >>> round(result.tau[0][1].mean, 4), result.tau[0][1].inputs
        (0.6667, 1)
    """
    names = tuple(scores)
    columns = [[_read_scores(name, i, x) for i, x in enumerate(scores[name])] for name in names]
    if len({len(column) for column in columns}) > 1:
        raise InvalidInputError(
            f"methods have scores of {[len(column) for column in columns]} inputs; the numbers must be equal."
        )
    values: dict[tuple[int, int], list[float | None]] = {
        (row, column): [] for row in range(len(names)) for column in range(row, len(names))
    }
    for index, inputs in enumerate(zip(*columns)):
        present = [number for number, x in enumerate(inputs) if x is not None]
        lengths = {names[number]: len(x) for number, x in enumerate(inputs) if x is not None}
        if len(set(lengths.values())) > 1:
            raise InvalidInputError(f"input {index} has different numbers of tokens: {lengths}.")
        stacked = torch.stack([x for x in inputs if x is not None]) if present else torch.empty(0, 0)
        for place, number in enumerate(present):  # a row at a time: all pairs at once would hold methods^2 matrices
            tau, _ = rank_correlations(stacked[place], stacked[place:])
            for other, value in zip(present[place:], none_for_nan(tau)):
                values[number, other].append(value)
    cells = {pair: estimate(column, resamples=resamples, seed=seed) for pair, column in values.items()}
    size = range(len(names))
    return RankMatrix(names, tuple(tuple(cells[min(i, j), max(i, j)] for j in size) for i in size))


def _read_scores(name: str, index: int, scores: Tensor | None) -> Tensor | None:
    if scores is None:
        return None
    values = torch.as_tensor(scores).detach().to("cpu", torch.float64)
    if values.dim() != 1 or not bool(values.isfinite().all()):
        raise InvalidInputError(
            f"scores[{name!r}][{index}] must be (tokens,) finite numbers; got {tuple(values.shape)}."
        )
    return values


def _sum_of_squares(numbers: Tensor, dimensions: int) -> Tensor:
    return numbers.square().flatten(-dimensions).sum(-1)
