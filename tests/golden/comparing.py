"""How a number may differ from the recorded one. Texts, whole numbers and truth values must be equal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

RELATIVE = 1e-5  # of the largest absolute value of the recorded array
ERRORS = 1e-6  # absolute
# Rounding errors by nature, such as residuals of 1e-16: whether they stay small is compared, not their digits.
OF_ROUNDING = {"residual", "sum_error", "own_sum_error", "difference"}
# Shares, probabilities and changes whose own size may be that of rounding: relative to one where they are smaller.
OF_ONE = {
    "completeness_gap", "largest", "relative", "probability", "value", "gap", "smallest_weight", "smallest_singular",
    "necessity", "necessity_median", "p_value", "adjusted", "null_mean", "family_p_value", "nats", "interval",
}  # fmt: skip


def tolerance(field: str, wanted: np.ndarray) -> float:
    """The largest difference from the recorded array that this field may have."""
    last = field.rpartition("/")[2]
    known = np.abs(wanted[np.isfinite(wanted)])
    scale = float(known.max()) if known.size else 0.0
    if last in OF_ROUNDING and "tests/" not in field:
        return ERRORS
    return RELATIVE * (max(scale, 1.0) if last in OF_ONE or "completeness_gap" in field else scale)


def distances(
    wanted: dict[str, Any], found: dict[str, Any], wider: dict[str, float] | None = None
) -> Iterator[tuple[str, float]]:
    """For each recorded field its distance in units of the tolerance; infinite where it differs in kind or is missing.

    Args:
        wanted: recorded.
        found: by this version; other fields are not looked at.
        wider: factors of the tolerance for fields that rounding moves further, measured when they were recorded.
    """
    for field, value in wanted.items():
        distance = _distance(field, value, found[field]) if field in found else float("inf")
        yield field, distance / (wider or {}).get(field, 1.0)


def _distance(field: str, wanted: Any, found: Any) -> float:
    if isinstance(wanted, (str, bool, int, list)) or wanted is None:
        return 0.0 if plain(found) == wanted else float("inf")
    if found is None or isinstance(found, (str, bool, list)):
        return float("inf")
    one, other = np.asarray(wanted), np.asarray(found)
    if one.shape != other.shape or (one.dtype.kind == "f") != (other.dtype.kind == "f"):
        return float("inf")
    if one.dtype.kind != "f":
        return 0.0 if np.array_equal(one, other) else float("inf")
    one, other = one.astype(np.float64), other.astype(np.float64)
    usual = np.isfinite(one)
    if not np.array_equal(one[~usual], other[~usual], equal_nan=True) or not np.isfinite(other[usual]).all():
        return float("inf")
    apart = float(np.abs(one - other)[usual].max(initial=0.0))
    return 0.0 if apart == 0 else apart / (tolerance(field, one) or 1e-300)


def plain(value: Any) -> Any:
    """A numpy scalar as Python's own."""
    return value.item() if isinstance(value, np.generic) else value
