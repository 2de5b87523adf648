"""Confidence intervals and tests over inputs: bootstrap, signed-rank and sign-flip tests, Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import scipy  # scipy.stats and scipy.special are loaded when they are first used
import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown

RESAMPLES = 2000
FLIPS = 9_999
WEIGHTS = 1 << 22  # resampled weights in memory at once
Interval = tuple[float, float]
Values = Sequence[float | None]  # one for each input, None if undefined


@dataclass(frozen=True)
class Estimate:
    """A mean over inputs.

    Attributes:
        mean: None if no input has a value.
        interval: 95 %, (low, high); None for fewer than two inputs.
        inputs: number of inputs with a value; the others are left out.
    """

    mean: float | None
    interval: Interval | None
    inputs: int


@dataclass(frozen=True)
class PairedTest:
    """The difference between two methods on the same inputs.

    Attributes:
        first: name of one method.
        second: name of the other.
        difference: mean of first less second with its interval, over the inputs where both have a value. The interval
            is that of this pair alone; `adjusted` takes all pairs into account.
        p_value: the p-value of Wilcoxon's signed-rank test, two-sided; None if no input has a difference.
        adjusted: the same after Holm's correction over all pairs.
    """

    first: str
    second: str
    difference: Estimate
    p_value: float | None
    adjusted: float | None


def estimate(values: Values, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Return the mean of the values with its 95 % bootstrap interval over inputs.

    The interval is the expanded percentile interval; see `percentile_interval`.

    Args:
        values: one for each input; None if undefined.
        resamples: bootstrap resamples.
        seed: the random seed for the resamples.

    Raises:
        InvalidInputError: values that are NaN or infinite (undefined ones are None), or fewer than 100 resamples.

    Example:
        >>> result = estimate([0.1, 0.2, None, 0.3])
        >>> round(result.mean, 6), result.inputs, result.interval[0] < 0.2 < result.interval[1]
        (0.2, 3, True)
    """
    if type(resamples) is not int or resamples < 100:
        raise InvalidInputError(f"resamples must be a whole number of 100 or more, not {shown(resamples)}.")
    known = torch.tensor([value for value in values if value is not None], dtype=torch.float64)
    if not bool(known.isfinite().all()):
        raise InvalidInputError("values holds NaN or infinite numbers; pass None for an input where it is undefined.")
    if len(known) == 0:
        return Estimate(None, None, 0)
    means = resampled_means(known[:, None], torch.ones(len(known), 1), bootstrap=resamples, seed=seed)
    return Estimate(float(known.mean()), percentile_interval(means[:, 0], len(known)), len(known))


def paired_tests(values: Mapping[str, Values], *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[PairedTest, ...]:
    """Return every pair of methods compared on the inputs where both have a value.

    Wilcoxon's signed-rank test, two-sided, inputs without a difference dropped, exact for few inputs without ties. The
    p values are adjusted by Holm's method over all pairs that have one.

    Args:
        values: for each method one value an input, the same inputs in the same order.
        resamples: bootstrap resamples.
        seed: the random seed for the resamples, the same for every pair.

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
        nonzero = [gap for gap in gaps if gap != 0]
        difference = estimate(gaps, resamples=resamples, seed=seed)
        p = float(scipy.stats.wilcoxon(nonzero).pvalue) if nonzero else None
        tests.append(PairedTest(first, second, difference, p, None))
    adjusted = holm([test.p_value for test in tests])
    return tuple(replace(test, adjusted=p) for test, p in zip(tests, adjusted))


def sign_flip_tests(differences: Mapping[str, Values], *, flips: int = FLIPS, seed: int = 0) -> dict[str, float | None]:
    """Return for each column of paired differences the two-sided p-value of its mean by flipping signs.

    If two methods can be exchanged on each input, a difference has either sign with equal probability. The p-value is
    the share of sign patterns whose mean is at least as far from zero as the observed one. All 2^n patterns are
    used where there are at most `flips` + 1 of them, n the number of differences that are not zero; otherwise `flips`
    random patterns and the observed one, so that p is at least 1 / (`flips` + 1). Unlike Wilcoxon's test it is about
    the mean, as is the interval of `estimate` (Fisher 1935; Phipson and Smyth 2010 for the random patterns).

    Args:
        differences: for each column one difference an input; None if undefined.
        flips: random sign patterns.
        seed: the random seed for these, the same patterns for every column.

    Returns:
        p-values by the names of the columns; None where no input has a difference.

    Raises:
        InvalidInputError: differences that are NaN or infinite, or fewer than 100 flips.

    Example:
        >>> sign_flip_tests({"a": [0.1, 0.2, 0.3, 0.4], "b": [0.1, -0.1, None, 0.0]})  # 2 / 2^4; 4 / 2^2
        {'a': 0.125, 'b': 1.0}
    """
    if type(flips) is not int or flips < 100:
        raise InvalidInputError(f"flips must be a whole number of 100 or more, not {shown(flips)}.")
    results: dict[str, float | None] = {}
    sampled: dict[str, Tensor] = {}
    for name, column in differences.items():
        gaps = torch.tensor([0.0 if gap is None else gap for gap in column], dtype=torch.float64)
        if not bool(gaps.isfinite().all()):
            raise InvalidInputError(f"differences[{name!r}] holds NaN or infinite numbers; pass None where undefined.")
        nonzero = gaps[gaps != 0]
        if 2.0 ** len(nonzero) <= flips + 1:
            bits = torch.arange(2 ** len(nonzero))[:, None] >> torch.arange(len(nonzero)) & 1
            extreme = _as_extreme((1.0 - 2.0 * bits.double()) @ nonzero, nonzero.sum())
            results[name] = float(extreme) / 2 ** len(nonzero) if len(nonzero) else None
        else:
            results[name], sampled[name] = None, gaps
    if sampled:
        longest = max(map(len, sampled.values()))
        columns = torch.zeros(longest, len(sampled), dtype=torch.float64)
        for place, gaps in enumerate(sampled.values()):
            columns[: len(gaps), place] = gaps
        generator, counts = torch.Generator().manual_seed(seed), torch.ones(len(sampled), dtype=torch.long)
        block = max(1, WEIGHTS // longest)
        for start in range(0, flips, block):
            drawn = torch.randint(2, (min(block, flips - start), longest), generator=generator, dtype=torch.int8)
            counts += _as_extreme((1.0 - 2.0 * drawn.double()) @ columns, columns.sum(0))
        results |= {name: count / (flips + 1) for name, count in zip(sampled, counts.tolist())}
    return results


def _as_extreme(sums: Tensor, observed: Tensor) -> Tensor:
    """The number of sums that are as far from zero as the observed one; sums that differ by rounding count."""
    return (sums.abs() >= observed.abs() * (1 - 1e-9)).sum(0)


def holm(p_values: Values) -> list[float | None]:
    """Return p values adjusted for multiple testing (Holm 1979); None stays None and does not count.

    The i-th smallest of m is multiplied by m - i + 1; results are made monotone and at most 1.

    Example:
        >>> [round(p, 6) for p in holm([0.01, 0.04, 0.03, 0.005])]
        [0.03, 0.06, 0.06, 0.02]
    """
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[index] = largest
    return adjusted


def resampled_means(sums: Tensor, counts: Tensor, *, bootstrap: int, seed: int) -> Tensor:
    """Return the mean of each bootstrap resample of the inputs: total of `sums` over total of `counts`, float64.

    Inputs are drawn as a whole, so that the values of one input (several heads) stay together. All columns share the
    draws, so that columns can be subtracted.

    Args:
        sums: (inputs, columns).
        counts: (inputs, columns): number of values in each sum.
        bootstrap: resamples.
        seed: the random seed for the draws.

    Returns:
        (bootstrap, columns); NaN where a resample has no value.

    Example:
        >>> means = resampled_means(torch.arange(4.0)[:, None], torch.ones(4, 1), bootstrap=2000, seed=0)
        >>> bool(abs(means.mean() - 1.5) < 0.05)
        True
    """
    inputs, columns = counts.shape
    both = torch.cat([sums.double(), counts.double()], 1)
    generator = torch.Generator().manual_seed(seed)
    block, means = max(1, WEIGHTS // max(1, inputs)), []
    for start in range(0, bootstrap, block):
        drawn = torch.randint(inputs, (min(block, bootstrap - start), inputs), generator=generator)
        times = torch.zeros(drawn.shape, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())
        totals = times @ both
        means.append(totals[:, :columns] / totals[:, columns:])
    return torch.cat(means)


def percentile_interval(means: Tensor, inputs: int) -> Interval | None:
    """Return the 95 % expanded percentile interval of resampled means; None for fewer than two inputs.

    The percentiles are Phi(-+ sqrt(n / (n - 1)) t_.975(n - 1)) instead of 2.5 and 97.5 %: for few inputs a plain
    percentile interval is too short, as a normal interval is against Student's (Hesterberg 2015, arXiv 1411.5279).

    Args:
        means: (bootstrap,) from `resampled_means`; NaN are left out.
        inputs: number of inputs in the mean.
    """
    means = means[means.isfinite()]
    if inputs < 2 or len(means) == 0:
        return None
    quantile = math.sqrt(inputs / (inputs - 1)) * float(scipy.special.stdtrit(inputs - 1, 0.975))
    levels = torch.special.ndtr(torch.tensor([-quantile, quantile], dtype=torch.float64))
    low, high = torch.quantile(means, levels).tolist()
    return low, high


def none_for_nan(values: Tensor) -> tuple[float | None, ...]:
    """Return plain numbers, None for NaN."""
    return tuple(None if value != value else value for value in values.tolist())
