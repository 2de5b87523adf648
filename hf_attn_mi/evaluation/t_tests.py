"""Student's and Welch's t-tests from sums, so that the values need not be kept."""

from __future__ import annotations

import math
from dataclasses import dataclass

import scipy  # scipy.special is loaded when it is first used


@dataclass
class Moments:
    """Count, mean and spread of values that are added one at a time (Welford 1962).

    Attributes:
        count: number of values.
        mean: their mean; 0 without values.
        squares: sum of squared differences from the mean.

    Example:
        >>> moments = Moments()
        >>> for value in (1.0, 2.0, 3.0):
        ...     moments.add(value)
        >>> moments.count, moments.mean, moments.variance
        (3, 2.0, 1.0)
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @property
    def variance(self) -> float:
        """The variance with n - 1; 0 for fewer than two values."""
        return self.squares / (self.count - 1) if self.count > 1 else 0.0

    def add(self, value: float) -> None:
        """Add a value."""
        self.count += 1
        difference = value - self.mean
        self.mean += difference / self.count
        self.squares += difference * (value - self.mean)

    def with_negated(self, other: Moments) -> Moments:
        """The moments of these values together with the negated values of the other."""
        count = self.count + other.count
        if not count:
            return Moments()
        difference = -other.mean - self.mean
        squares = self.squares + other.squares + difference**2 * self.count * other.count / count
        return Moments(count, self.mean + difference * other.count / count, squares)


def one_sample_p(moments: Moments) -> float | None:
    """Return the two-sided p value of Student's t-test that the mean is zero; None where the values do not vary.

    Example:
        >>> moments = Moments()
        >>> for value in (1.0, 2.0, 3.0):
        ...     moments.add(value)
        >>> round(one_sample_p(moments), 4)
        0.0742
    """
    if moments.count < 2 or moments.squares <= 0:
        return None
    return _two_sided(moments.mean / math.sqrt(moments.variance / moments.count), moments.count - 1)


def welch_p(first: Moments, second: Moments) -> float | None:
    """Return the two-sided p value of Welch's t-test that two means are equal; None where no value varies.

    Example:
        >>> left, right = Moments(3, 2.0, 2.0), Moments(3, 4.0, 2.0)
        >>> round(welch_p(left, right), 4)
        0.0705
    """
    shares = [one.variance / one.count for one in (first, second) if one.count > 1]
    if len(shares) < 2 or sum(shares) <= 0:
        return None
    freedom = sum(shares) ** 2 / sum(
        share**2 / (one.count - 1) for share, one in zip(shares, (first, second)) if share > 0
    )
    return _two_sided((first.mean - second.mean) / math.sqrt(sum(shares)), freedom)


def _two_sided(statistic: float, freedom: float) -> float:
    return float(2 * scipy.special.stdtr(freedom, -abs(statistic)))
