"""How sure a number and a difference are: bootstrap over inputs, Wilcoxon's test, Holm's correction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import scipy  # scipy.stats itself is loaded when it is first used
import torch

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.mi.bootstrap import percentile_interval, resampled_means

RESAMPLES = 2000
Values = Sequence[float | None]  # one for each input, None where undefined


@dataclass(frozen=True)
class Estimate:
    """A mean over inputs.

    Attributes:
        mean: None where no input has a value.
        interval: 95 %, (low, high); None for fewer than two inputs.
        inputs: how many have a value; the others are left out.
    """

    mean: float | None
    interval: tuple[float, float] | None
    inputs: int


@dataclass(frozen=True)
class PairedTest:
    """What separates two methods on the same inputs.

    Attributes:
        first: name of one method.
        second: name of the other.
        difference: mean of first less second with its interval, over the inputs where both have a value. The interval
            is of this pair alone; `adjusted` is what holds for all pairs together.
        p_value: of Wilcoxon's signed-rank test, two-sided; None where no input has a difference.
        adjusted: the same after Holm's correction over all pairs.
    """

    first: str
    second: str
    difference: Estimate
    p_value: float | None
    adjusted: float | None


def estimate(values: Values, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Return the mean of the values with its 95 % bootstrap interval over inputs.

    The interval is the expanded percentile interval of Hesterberg 2015 (arXiv 1411.5279); it is as wide as Student's
    for few inputs.

    Args:
        values: one for each input; None where undefined.
        resamples: bootstrap resamples.
        seed: of the resamples.

    Raises:
        InvalidInputError: values that are NaN or infinite (undefined ones are None), or fewer than 100 resamples.

    Example:
        >>> found = estimate([0.1, 0.2, None, 0.3])
        >>> round(found.mean, 6), found.inputs, found.interval[0] < 0.2 < found.interval[1]
        (0.2, 3, True)
    """
    if type(resamples) is not int or resamples < 100:
        raise InvalidInputError(f"resamples must be a whole number of 100 or more, not {resamples!r}.")
    known = torch.tensor([value for value in values if value is not None], dtype=torch.float64)
    if not bool(known.isfinite().all()):
        raise InvalidInputError("values holds NaN or infinite numbers; pass None for an input where it is undefined.")
    if len(known) == 0:
        return Estimate(None, None, 0)
    means = resampled_means(known[:, None], torch.ones(len(known), 1), bootstrap=resamples, seed=seed)
    return Estimate(float(known.mean()), percentile_interval(means[:, 0], len(known)), len(known))


def paired_tests(values: Mapping[str, Values], *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[PairedTest, ...]:
    """Return every pair of methods compared on the inputs where both have a value.

    Wilcoxon's signed-rank test, two-sided, inputs without a difference dropped, exact for few inputs without ties; p
    multiplied after Holm 1979, over all pairs that have one.

    Args:
        values: for each method one value an input, the same inputs in the same order.
        resamples: bootstrap resamples.
        seed: of the resamples, the same for every pair.

    Raises:
        InvalidInputError: methods with different numbers of inputs, or values that are NaN or infinite.

    Example:
        >>> (test,) = paired_tests({"a": [0.5, 0.6, 0.7, 0.8], "b": [0.4, 0.4, 0.4, 0.4]})
        >>> round(test.difference.mean, 6), test.p_value, test.adjusted  # 2 / 2^4
        (0.25, 0.125, 0.125)
    """
    lengths = {name: len(column) for name, column in values.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidInputError(f"every method needs a value (or None) for every input; got {lengths}.")
    tests = []
    for first, second in combinations(values, 2):
        gaps = [a - b for a, b in zip(values[first], values[second]) if a is not None and b is not None]
        moved = [gap for gap in gaps if gap != 0]
        found = estimate(gaps, resamples=resamples, seed=seed)
        p = float(scipy.stats.wilcoxon(moved).pvalue) if moved else None
        tests.append(PairedTest(first, second, found, p, None))
    adjusted = holm([test.p_value for test in tests])
    return tuple(replace(test, adjusted=p) for test, p in zip(tests, adjusted))


def holm(p_values: Values) -> list[float | None]:
    """Return p values corrected for their number (Holm 1979); None stays None and does not count.

    The i-th smallest of m is multiplied by m - i + 1; none may be smaller than the one before, or above 1.

    Example:
        >>> [round(p, 6) for p in holm([0.01, 0.04, 0.03, 0.005])]
        [0.03, 0.06, 0.06, 0.02]
    """
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    reached = 0.0
    for rank, (p, index) in enumerate(order):
        reached = max(reached, min(1.0, (len(order) - rank) * p))
        corrected[index] = reached
    return corrected
