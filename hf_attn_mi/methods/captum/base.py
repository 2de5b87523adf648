"""What goes into every baseline method besides the model and its arguments, and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from hf_attn_mi.errors import InvalidInputError

Aim = Callable[[Any, list[int]], Tensor]
"""(outputs, rows) -> (n,) explained values: row k of the outputs belongs to example rows[k] of the batch."""
CHOICES = ("pad", "mask", "zero")


@dataclass(frozen=True)
class Options:
    """Settings of the methods; each method reads those that its row in `BASELINES` allows."""

    steps: int = 50
    samples: int = 25
    internal_batch: int = 32
    baseline: str | None = None  # None: "pad" where the model has such a token, else "zero"
    window: int = 3
    penalty: float = 1.0
    seed: int = 0
    mask_id: int | None = None  # the tokenizer's, for baseline="mask"; not an option of the user's


@dataclass(frozen=True, eq=False)
class TokenScores:
    """Token scores of a batch."""

    scores: Tensor  # (batch, tokens) float32, exactly 0 at padding
    gap: Tensor | None = None  # (batch,) share by which the sum of scores misses f(x) - f(baseline)
    baseline: str | None = None  # what stands in for a removed token
    notes: tuple[str, ...] = ()


def read_options(method: str, given: Mapping[str, Any] | None, allowed: tuple[str, ...], default: Options) -> Options:
    """The options of a method, checked.

    Args:
        method: its name, for the messages.
        given: the caller's options.
        allowed: names this method takes.
        default: where nothing is given.

    Raises:
        InvalidInputError: a name the method does not take, or a value of the wrong type or range.

    Example:
        >>> read_options("integrated_gradients", {"steps": 20}, ("steps",), Options()).steps
        20
    """
    if given is None:
        return default
    if not isinstance(given, Mapping):
        raise InvalidInputError(f"options must be a dict of names and values, not {type(given).__name__}.")
    for name, value in given.items():
        if name not in allowed:
            known = f"allowed are {', '.join(allowed)}" if allowed else "it takes none"
            raise InvalidInputError(f"options: method {method!r} has no option {name!r}; {known}.")
        _check(method, name, value)
    return replace(default, **given)


def _check(method: str, name: str, value: Any) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if name == "baseline":
        good, wanted = value in CHOICES, f"one of {', '.join(CHOICES)}"
    elif name == "penalty":
        good, wanted = (whole or isinstance(value, float)) and 0 <= value < float("inf"), "a number from 0 up"
    elif name == "seed":
        good, wanted = whole and 0 <= value < 2**32, "a whole number from 0 to 2**32 - 1"
    else:
        least = 2 if (method, name) == ("kernel_shap", "samples") else 1  # the first two fix both ends
        good, wanted = whole and value >= least, f"a whole number, at least {least}"
    if not good:
        raise InvalidInputError(f"options[{name!r}] of method {method!r} must be {wanted}, not {value!r}.")


def missing_share(difference: float, scores: Tensor) -> float:
    """By how much the sum of scores misses a difference, as a share of the larger of both.

    Example:
        >>> import torch
        >>> round(missing_share(1.0, torch.tensor([0.5, 0.4])), 6)
        0.1
    """
    scale = max(abs(difference), float(scores.abs().sum()), 1e-12)
    return abs(difference - float(scores.double().sum())) / scale
