"""Temperatures of the attention weights: a constant, or annealed over training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hf_attn_mi.errors import InvalidInputError

KINDS = ("constant", "linear", "exponential")


@dataclass(frozen=True)
class TemperatureSchedule:
    """The temperature of each training step; from `steps` on it stays at `end`, and evaluation takes the last one.

    linear: start + (end - start) t / steps. exponential: start (end / start)^(t / steps), the annealing of Jang et al.,
    arXiv 1611.01144.

    Args:
        kind: "constant", "linear" or "exponential".
        start: temperature at step 0, above 0.
        end: temperature from step `steps` on, above 0; ignored by "constant".
        steps: training steps until the end is reached, at least 1.

    Raises:
        InvalidInputError: an unknown kind, a temperature that is not above 0, or fewer than one step.

    Example:
        >>> schedule = TemperatureSchedule("exponential", start=1.0, end=0.25, steps=2)
        >>> [schedule.at(step) for step in range(4)]
        [1.0, 0.5, 0.25, 0.25]
    """

    kind: str = "constant"
    start: float = 1.0
    end: float = 1.0
    steps: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidInputError(f"temperature schedule kind is {self.kind!r}: one of {', '.join(KINDS)} is allowed")
        for name in ("start", "end"):
            check_temperature(getattr(self, name), f"temperature {name}")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise InvalidInputError(f"temperature steps is {self.steps!r}: an int of at least 1 is allowed")

    def at(self, step: int) -> float:
        """Return the temperature after `step` training steps."""
        share = min(max(step, 0), self.steps) / self.steps
        if self.kind == "linear":
            return self.start + (self.end - self.start) * share
        if self.kind == "exponential":
            return float(self.start * (self.end / self.start) ** share)
        return self.start

    def to_dict(self) -> dict[str, Any]:
        """Return plain data from which `read_schedule` makes an equal schedule."""
        return asdict(self)


def check_temperature(value: Any, name: str = "temperature") -> float:
    """Return the temperature if it is a finite number above 0.

    Raises:
        InvalidInputError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise InvalidInputError(
            f"{name} is {value!r}: a number above 0 is allowed (weights are softmax(score / temperature))"
        )
    return float(value)


def read_schedule(temperature: float | Mapping[str, Any] | TemperatureSchedule) -> TemperatureSchedule:
    """Return a schedule from a number, a schedule, or the dictionary of one.

    Raises:
        InvalidInputError: none of these.

    Example:
        >>> read_schedule(0.5).at(100)
        0.5
    """
    if isinstance(temperature, TemperatureSchedule):
        return temperature
    if isinstance(temperature, Mapping):
        unknown = sorted(set(temperature) - {"kind", "start", "end", "steps"})
        if unknown:
            raise InvalidInputError(
                f"temperature has unknown entries {unknown}: kind, start, end and steps are allowed"
            )
        return TemperatureSchedule(**temperature)
    return TemperatureSchedule("constant", start=check_temperature(temperature))
