"""Normalized AOPC: comprehensiveness between the least and the most that any order of the tokens reaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation.probabilities import Probabilities

EXACT = 10  # most tokens for which all subsets are predicted: 1,024
BEAM = 5


@dataclass(frozen=True)
class AopcLimits:
    """The AOPC that the worst and the best order of the tokens of one input reach.

    Attributes:
        lower: the least.
        upper: the most.
        exact: whether all orders were looked at; False: found by beam search, so the true ones lie further out.
        tokens: how many were ordered.
    """

    lower: float
    upper: float
    exact: bool
    tokens: int

    def widened(self, areas: Sequence[float | None]) -> AopcLimits:
        """Return limits that hold these areas too: a method may find a better order than the beam did."""
        known = [area for area in areas if area is not None]
        return replace(self, lower=min([self.lower, *known]), upper=max([self.upper, *known]))


def aopc(found: Probabilities, scores: Tensor, *, by: str = "signed", ascending: bool = False) -> float | None:
    """Return the mean fall of the probability over removing 1, 2, ... n tokens, the highest score first.

    AOPC = 1/n sum_k p(x) - p(x without its top k tokens), in [-1, 1]: comprehensiveness, higher is better.
    `ascending` removes the lowest score first: sufficiency in the sense of Edin et al., lower is better.

    Returns:
        None where no token may be removed, or the input would be empty.

    Example:
        >>> import torch
        >>> predict = lambda examples: torch.stack([e["input_ids"].sum() / 10 for e in examples])
        >>> found = Probabilities(predict, {"input_ids": torch.tensor([0, 6, 4])}, torch.tensor([True, False, False]))
        >>> round(aopc(found, torch.tensor([0.0, 2.0, 1.0])), 6)  # (.6 + 1) / 2
        0.8
    """
    order = found.ranked(scores, by=by)
    if not order:
        return None
    order = order[::-1] if ascending else order
    mean = found.full() - float(found.removed([order[: k + 1] for k in range(len(order))]).mean())
    return None if mean != mean else mean


def aopc_limits(found: Probabilities, *, exact: int = EXACT, beam: int = BEAM) -> AopcLimits | None:
    """Return the least and the most AOPC over all orders of the tokens (Edin et al., arXiv 2408.08137).

    Up to `exact` tokens all 2^n subsets are predicted, and the best sum up to a subset is the best up to one with a
    token less, plus its own fall: n 2^n steps, not n! orders. For more tokens a beam keeps the `beam` best subsets of
    each size (a subset counts once, with its best order) in both directions: at most beam n^2 predictions in all. The
    limits belong to the input and the model, not to a method: compute them once for all.

    Returns:
        None where no token may be removed, or the input would be empty.

    Raises:
        InvalidInputError: `exact` or `beam` out of range.

    Example:
        >>> import torch
        >>> predict = lambda examples: torch.stack([e["input_ids"].sum() / 10 for e in examples])
        >>> found = Probabilities(predict, {"input_ids": torch.tensor([0, 6, 4])}, torch.tensor([True, False, False]))
        >>> limits = aopc_limits(found)
        >>> round(limits.lower, 6), round(limits.upper, 6), limits.exact  # (.4 + 1) / 2 and (.6 + 1) / 2
        (0.7, 0.8, True)
    """
    if type(exact) is not int or not 0 <= exact <= 16 or type(beam) is not int or beam < 1:
        raise InvalidInputError(f"exact must be 0 to 16 and beam 1 or more, not {exact!r} and {beam!r}.")
    tokens = found.tokens
    if not tokens or bool(found.removed([tokens]).isnan()):
        return None
    complete = len(tokens) <= exact
    if complete:  # one call for all of them
        found.removed([subset for size in range(len(tokens) + 1) for subset in combinations(tokens, size)])
    none = frozenset[int]()
    ends = {True: {none: 0.0}, False: {none: 0.0}}  # direction -> subset -> best sum of falls on the way to it
    for _ in tokens:
        steps = {best: _extended(reached, tokens) for best, reached in ends.items()}
        subsets = list(dict.fromkeys(after for pairs in steps.values() for _, after in pairs))
        falls = dict(zip(subsets, (found.full() - found.removed(subsets)).tolist()))
        for best, pairs in steps.items():
            sums: dict[frozenset[int], float] = {}
            for before, after in pairs:
                reached = ends[best][before] + falls[after]
                other = sums.get(after, reached)
                sums[after] = max(reached, other) if best else min(reached, other)
            ranked = sorted(sums.items(), key=lambda item: (-item[1] if best else item[1], sorted(item[0])))
            ends[best] = dict(ranked if complete else ranked[:beam])
    lower, upper = (next(iter(ends[best].values())) / len(tokens) for best in (False, True))
    return AopcLimits(lower, upper, complete, len(tokens))


def normalized_aopc(area: float | None, limits: AopcLimits | None) -> float | None:
    """Return (area - lower) / (upper - lower): 0 for the worst order, 1 for the best (Edin et al., arXiv 2408.08137).

    Higher is better for `aopc`, lower for its ascending form. Below 0 or above 1 only where the limits come from a
    beam: see `AopcLimits.widened`.

    Returns:
        None where either is None, or all orders reach the same (a single token, or a model that does not care).

    Example:
        >>> normalized_aopc(0.75, AopcLimits(0.5, 1.0, True, 3))
        0.5
    """
    if area is None or limits is None or limits.upper - limits.lower <= 1e-12:
        return None
    return (area - limits.lower) / (limits.upper - limits.lower)


def _extended(
    reached: dict[frozenset[int], float], tokens: Sequence[int]
) -> list[tuple[frozenset[int], frozenset[int]]]:
    """Every subset that was reached, with every subset that has one token more."""
    return [(before, before | {token}) for before in reached for token in tokens if token not in before]
