"""AOPC (area over the perturbation curve), and its normalization by the best and the worst order of the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.evaluation.probabilities import Probabilities

EXACT = 10  # largest number of tokens for which all subsets are predicted: 1,024
BEAM = 5


@dataclass(frozen=True)
class AopcLimits:
    """The AOPC that the worst and the best order of the tokens of one input reach.

    Attributes:
        lower: the smallest.
        upper: the largest.
        exact: whether all orders were searched; False: limits of a beam search, which are not as far apart as the
            exact ones.
        tokens: number of tokens that were ordered.
    """

    lower: float
    upper: float
    exact: bool
    tokens: int

    def widened(self, areas: Sequence[float | None]) -> AopcLimits:
        """Return limits that include these areas: the order of a method may be better than those of the beam."""
        known = [area for area in areas if area is not None]
        return replace(self, lower=min([self.lower, *known]), upper=max([self.upper, *known]))


def aopc(probabilities: Probabilities, scores: Tensor, *, by: str = "signed", ascending: bool = False) -> float | None:
    """Return the mean fall of the probability over removing 1, 2, ... n tokens, the highest score first.

    AOPC = 1/n sum_k p(x) - p(x without its top k tokens), in [-1, 1]: comprehensiveness, higher is better.
    `ascending` removes the lowest score first: sufficiency in the sense of Edin et al., lower is better.

    Returns:
        None if no token may be removed, or the input would be empty.

    Example:
        >>> import torch
        >>> predict = lambda examples: torch.stack([e["input_ids"].sum() / 10 for e in examples])
        >>> special = torch.tensor([True, False, False])
        >>> probabilities = Probabilities(predict, {"input_ids": torch.tensor([0, 6, 4])}, special)
        >>> round(aopc(probabilities, torch.tensor([0.0, 2.0, 1.0])), 6)  # (.6 + 1) / 2
        0.8
    """
    order = probabilities.ranked(scores, by=by)
    if not order:
        return None
    order = order[::-1] if ascending else order
    mean = probabilities.full() - float(probabilities.removed([order[: k + 1] for k in range(len(order))]).mean())
    return None if mean != mean else mean


def aopc_limits(probabilities: Probabilities, *, exact: int = EXACT, beam: int = BEAM) -> AopcLimits | None:
    """Return the least and the most AOPC over all orders of the tokens (Edin et al., arXiv 2408.08137).

    Up to `exact` tokens all 2^n subsets are predicted. The best sum of falls on the way to a subset is the best sum on
    the way to one of its subsets with a token less, plus its own fall: n 2^n steps instead of n! orders. For more
    tokens a beam search keeps the `beam` best subsets of each size (a subset counts once, with its best order) in both
    directions: about beam n^2 predictions in all. The limits depend on the input and the model, not on a method:
    compute them once for all methods.

    Returns:
        None if no token may be removed, or the input would be empty.

    Raises:
        InvalidInputError: `exact` or `beam` out of range.

    Example:
        >>> import torch
        >>> predict = lambda examples: torch.stack([e["input_ids"].sum() / 10 for e in examples])
        >>> special = torch.tensor([True, False, False])
        >>> probabilities = Probabilities(predict, {"input_ids": torch.tensor([0, 6, 4])}, special)
        >>> limits = aopc_limits(probabilities)
        >>> round(limits.lower, 6), round(limits.upper, 6), limits.exact  # (.4 + 1) / 2 and (.6 + 1) / 2
        (0.7, 0.8, True)
    """
    if type(exact) is not int or not 0 <= exact <= 16 or type(beam) is not int or beam < 1:
        raise InvalidInputError(f"exact must be 0 to 16 and beam 1 or more, not {shown(exact)} and {shown(beam)}.")
    tokens = probabilities.tokens
    if not tokens or bool(probabilities.removed([tokens]).isnan()):
        return None
    complete = len(tokens) <= exact
    if complete:  # one call for all of them
        probabilities.removed([subset for size in range(len(tokens) + 1) for subset in combinations(tokens, size)])
    empty = frozenset[int]()
    ends = {True: {empty: 0.0}, False: {empty: 0.0}}  # maximize -> subset -> best sum of falls on the way to it
    for _ in tokens:
        steps = {maximize: _extended(reached, tokens) for maximize, reached in ends.items()}
        subsets = list(dict.fromkeys(after for pairs in steps.values() for _, after in pairs))
        falls = dict(zip(subsets, (probabilities.full() - probabilities.removed(subsets)).tolist()))
        for maximize, pairs in steps.items():
            sums: dict[frozenset[int], float] = {}
            for before, after in pairs:
                reached = ends[maximize][before] + falls[after]
                other = sums.get(after, reached)
                sums[after] = max(reached, other) if maximize else min(reached, other)
            ranked = sorted(sums.items(), key=lambda item: (-item[1] if maximize else item[1], sorted(item[0])))
            ends[maximize] = dict(ranked if complete else ranked[:beam])
    lower, upper = (next(iter(ends[maximize].values())) / len(tokens) for maximize in (False, True))
    return AopcLimits(lower, upper, complete, len(tokens))


def normalized_aopc(area: float | None, limits: AopcLimits | None) -> float | None:
    """Return (area - lower) / (upper - lower): 0 for the worst order, 1 for the best (Edin et al., arXiv 2408.08137).

    Higher is better for `aopc`, lower for its ascending form. Below 0 or above 1 only where the limits come from a
    beam: see `AopcLimits.widened`.

    Returns:
        None if either is None, or where all orders have the same AOPC (as for a single token).

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
    """Return pairs of a subset that was reached and a subset with one token more."""
    return [(before, before | {token}) for before in reached for token in tokens if token not in before]
