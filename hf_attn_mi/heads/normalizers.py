"""Normalizers of scores: softmax and Gumbel-softmax under a mask, and the temperature over the training steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown

SCHEDULES = ("constant", "linear", "exponential")


def masked_softmax(
    scores: Tensor,  # (..., tokens)
    mask: Tensor | None = None,  # bool, broadcastable to scores, True for real tokens
    *,
    temperature: float = 1.0,
) -> Tensor:  # (..., tokens), dtype of scores
    """Return softmax(scores / temperature) over real tokens: exactly 0 at masked ones, finite gradients everywhere.

    Half precision is computed in float32. A row without a real token is all zeros.

    Example:
        >>> masked_softmax(torch.tensor([0.0, 0.0, 5.0]), torch.tensor([True, True, False]))
        tensor([0.5000, 0.5000, 0.0000])
    """
    wide = _at_least_float32(scores)
    if mask is not None:
        # A finite number, not -inf: a row of -inf has no softmax, and its gradient is NaN even if masked later.
        wide = wide.masked_fill(~mask, torch.finfo(wide.dtype).min)
    # The largest goes first: a large score over a small temperature would overflow to inf.
    weights = ((wide - wide.amax(-1, keepdim=True).detach()) / temperature).softmax(-1)
    return (weights if mask is None else weights * mask).to(scores.dtype)


def gumbel_softmax(
    scores: Tensor,  # (..., tokens)
    mask: Tensor | None = None,
    *,
    temperature: float = 1.0,
    hard: bool = False,
    noise: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:  # (..., tokens), dtype of scores
    """Return softmax((scores + g) / temperature), g standard Gumbel noise: a relaxed draw from softmax(scores).

    As the temperature falls to 0 the weights become one-hot draws of a token with probability softmax(scores). (Jang et
    al., arXiv 1611.01144; Maddison et al., arXiv 1611.00712.)

    Args:
        scores: log-weights up to a constant.
        mask: as in `masked_softmax`.
        temperature: above 0.
        hard: return the one-hot vector of the largest weight, with the gradient of the soft weights (straight-through).
        noise: False leaves g out: tempered softmax.
        generator: the source of the noise, on the device of the scores; None for the global one.

    Example:
        >>> drawn = gumbel_softmax(torch.zeros(3), hard=True, generator=torch.Generator().manual_seed(0))
        >>> float(drawn.sum()), float(drawn.max())
        (1.0, 1.0)
    """
    wide = _at_least_float32(scores)
    if noise:
        uniform = torch.rand(wide.shape, dtype=wide.dtype, device=wide.device, generator=generator)
        tiny = torch.finfo(wide.dtype).tiny
        wide = wide - (-(uniform.clamp_min(tiny)).log()).clamp_min(tiny).log()
    soft = masked_softmax(wide, mask, temperature=temperature)
    if hard:
        one_hot = torch.zeros_like(soft).scatter(-1, soft.argmax(-1, keepdim=True), 1.0)
        one_hot = one_hot if mask is None else one_hot * mask
        soft = one_hot + (soft - soft.detach())  # added in this order, the result is exactly one-hot
    return soft.to(scores.dtype)


def _at_least_float32(scores: Tensor) -> Tensor:
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


@dataclass(frozen=True)
class TemperatureSchedule:
    """The temperature at each training step; from `steps` on it stays at `end`. Evaluation uses the latest one.

    linear: start + (end - start) t / steps. exponential: start (end / start)^(t / steps), the annealing of Jang et al.,
    arXiv 1611.01144.

    Args:
        kind: "constant", "linear" or "exponential".
        start: temperature at step 0, above 0.
        end: temperature from step `steps` on, above 0; ignored by "constant".
        steps: training steps until `end` is reached, at least 1.

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
        if self.kind not in SCHEDULES:
            raise InvalidInputError(
                f"temperature schedule kind is {shown(self.kind)}: one of {', '.join(SCHEDULES)} is allowed"
            )
        for name in ("start", "end"):
            _check_temperature(getattr(self, name), f"temperature {name}")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise InvalidInputError(f"temperature steps is {shown(self.steps)}: an int of at least 1 is allowed")

    def at(self, step: int) -> float:
        """Return the temperature after `step` training steps."""
        share = min(max(step, 0), self.steps) / self.steps
        if self.kind == "linear":
            return self.start + (self.end - self.start) * share
        if self.kind == "exponential":
            return float(self.start * (self.end / self.start) ** share)
        return self.start

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary from which `read_schedule` makes an equal schedule."""
        return asdict(self)


def _check_temperature(value: Any, name: str = "temperature") -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise InvalidInputError(
            f"{name} is {shown(value)}: a number above 0 is allowed (weights are softmax(score / temperature))"
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
    return TemperatureSchedule("constant", start=_check_temperature(temperature))
