"""Do methods rank tokens alike? The rank-correlation matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation.areas import defined
from hf_attn_mi.evaluation.statistics import RESAMPLES, Estimate, estimate
from hf_attn_mi.mi.ranks import rank_correlations


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


def rank_matrix(
    scores: Mapping[str, Sequence[Tensor | None]], *, resamples: int = RESAMPLES, seed: int = 0
) -> RankMatrix:
    """Return the mean of Kendall's tau-b over inputs between all methods.

    Tau-b is taken within each input over its tokens; inputs where one of the two gives all tokens the same score, has
    no scores (None), or where there are fewer than two tokens are left out of that pair.

    Args:
        scores: for each method and input (tokens,), special tokens taken out; None where the method failed.
        resamples: bootstrap resamples.
        seed: of the resamples.

    Raises:
        InvalidInputError: numbers of inputs or tokens that differ between methods, or scores that are not finite.

    Example:
        >>> a, b = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 3.0, 2.0, 4.0])
        >>> found = rank_matrix({"a": [a, a], "b": [b, torch.ones(4)]})
        >>> round(found.tau[0][1].mean, 4), found.tau[0][1].inputs
        (0.6667, 1)
    """
    names = tuple(scores)
    columns = [[_vector(name, i, x) for i, x in enumerate(scores[name])] for name in names]
    if len({len(column) for column in columns}) > 1:
        raise InvalidInputError(
            f"methods have scores of {[len(column) for column in columns]} inputs; the same are wanted."
        )
    values: dict[tuple[int, int], list[float | None]] = {
        (row, column): [] for row in range(len(names)) for column in range(row, len(names))
    }
    for index, row_of in enumerate(zip(*columns)):
        present = [number for number, x in enumerate(row_of) if x is not None]
        lengths = {names[number]: len(x) for number, x in enumerate(row_of) if x is not None}
        if len(set(lengths.values())) > 1:
            raise InvalidInputError(f"input {index} has different numbers of tokens: {lengths}.")
        stacked = torch.stack([x for x in row_of if x is not None]) if present else torch.empty(0, 0)
        for place, number in enumerate(present):  # a row at a time: all pairs at once would hold methods^2 matrices
            tau, _ = rank_correlations(stacked[place], stacked[place:])
            for other, value in zip(present[place:], defined(tau)):
                values[number, other].append(value)
    found = {pair: estimate(column, resamples=resamples, seed=seed) for pair, column in values.items()}
    size = range(len(names))
    return RankMatrix(names, tuple(tuple(found[min(i, j), max(i, j)] for j in size) for i in size))


def _vector(name: str, index: int, scores: Tensor | None) -> Tensor | None:
    if scores is None:
        return None
    values = torch.as_tensor(scores).detach().to("cpu", torch.float64)
    if values.dim() != 1 or not bool(values.isfinite().all()):
        raise InvalidInputError(
            f"scores[{name!r}][{index}] must be (tokens,) finite numbers; got {tuple(values.shape)}."
        )
    return values
