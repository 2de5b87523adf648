"""Whether a word contributes more or less than a word that is drawn at random from each of the same inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_STEPS = 2.0 ** (np.arange(-4, 7) / 2)  # multiples of the slope that is best for a normal distribution


class RandomWordTest:
    """An upper bound of a p value, with no assumption about the distribution of the scores.

    The null hypothesis: in each input, every word is equally likely to have the scores of the word that is tested. The
    total of its deviations from the means of the inputs is then a sum of independent draws from known populations, and
    by Chernoff's inequality P(total >= x) <= exp(K(t) - t x) for every t > 0, with K(t) the sum over the inputs of the
    logarithm of the mean of exp(t deviation). The smallest bound over some t is doubled for both directions. For m
    occurrences in one input, m log mean exp(t deviation / m) is used, which is no smaller than the value for draws
    without replacement (Hoeffding 1963, theorem 4). Student's test against the same null hypothesis is not valid here:
    scores are skewed and differ in size between inputs.

    Args:
        total: sum over the inputs of the word's mean deviation from the mean of all words of the input.
        squares: sum of the squares of the same; it only chooses the values of t.

    Example:
        >>> test = RandomWordTest(total=12 * 7 / 4, squares=12 * (7 / 4) ** 2)
        >>> for _ in range(12):  # in each of twelve inputs the word has the only large score of eight
        ...     test.add([7 / 4, *[-1 / 4] * 7])
        >>> 8.0**-12 <= test.p_value <= 3 * 8.0**-12  # the exact p value is the first of these
        True
    """

    def __init__(self, total: float, squares: float) -> None:
        self.total = total
        self.slopes = _STEPS * (total / squares if squares > 0 else 0.0)
        self.logs = np.zeros(len(_STEPS))
        self._varies = False

    def add(self, deviations: Sequence[float], occurrences: int = 1) -> None:
        """Add an input.

        Args:
            deviations: the score of every word of the input less their mean.
            occurrences: how many of these words are the word that is tested.
        """
        if occurrences >= len(deviations):
            return  # the mean of all words never deviates
        exponents = np.outer(self.slopes / occurrences, np.asarray(deviations, dtype=np.float64))
        largest = exponents.max(1)
        self.logs += occurrences * (largest + np.log(np.exp(exponents - largest[:, None]).mean(1)))
        self._varies = self._varies or bool(np.ptp(deviations) > 0)

    @property
    def p_value(self) -> float | None:
        """An upper bound of the two-sided p value; None where no input has words of different scores."""
        if not self._varies:
            return None
        return min(1.0, 2 * math.exp(min(0.0, float((self.logs - self.slopes * self.total).min()))))
