"""Numbers with intervals and tables, as the pages of the causal study show them."""

import math
import statistics
from collections.abc import Iterable
from typing import Any

import scipy.stats

from hf_attn_mi.evaluation import estimate

Lines = list[dict[str, Any]]


def number(value: float) -> str:
    """Return a number in three digits, whole from a thousand on; "-" where there is none."""
    if math.isnan(value):
        return "-"
    if value and not 0.001 <= abs(value) < 1e5:
        return f"{value:.1e}"
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"


def mean(values: Iterable[float | None]) -> str:
    """Return "mean [low, high]"."""
    result = estimate([None if value is None else float(value) for value in values])
    if result.mean is None:
        return "-"
    if result.interval is None:
        return f"{result.mean:.3f}"
    return f"{result.mean:.3f} [{result.interval[0]:.3f}, {result.interval[1]:.3f}]"


def exact_interval(hits: int, count: int) -> tuple[float, float]:
    """Return the Clopper-Pearson 95 % interval of a share."""
    low = 0.0 if hits == 0 else float(scipy.stats.beta.ppf(0.025, hits, count - hits + 1))
    high = 1.0 if hits == count else float(scipy.stats.beta.ppf(0.975, hits + 1, count - hits))
    return low, high


def share(flags: Iterable[bool]) -> str:
    """Return "hits / count (share [low, high])"."""
    known = list(flags)
    if not known:
        return "-"
    low, high = exact_interval(sum(known), len(known))
    return f"{sum(known)} / {len(known)} ({sum(known) / len(known):.1%} [{low:.1%}, {high:.1%}])"


def median_interval(values: Iterable[float]) -> tuple[float, float]:
    """Return the 95 % interval of the median from order statistics; NaN for fewer than six values."""
    known = sorted(values)
    if len(known) < 6:
        return math.nan, math.nan
    low = int(scipy.stats.binom.ppf(0.025, len(known), 0.5))
    return known[max(0, low - 1)], known[min(len(known) - 1, len(known) - low)]


def median(values: Iterable[float]) -> str:
    """Return "median [low, high]"."""
    known = list(values)
    if not known:
        return "-"
    low, high = median_interval(known)
    middle = number(statistics.median(known))
    return middle if math.isnan(low) else f"{middle} [{number(low)}, {number(high)}]"


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]])
