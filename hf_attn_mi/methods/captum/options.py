"""The options of Captum's methods, and how they are checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown

WITHOUT_TOKEN = ("removed", "deleted")  # nothing takes the place of a token
BASELINES = ("pad", "mask", "blank", "zero", *WITHOUT_TOKEN)


@dataclass(frozen=True)
class Options:
    """Settings of Captum's methods; each method reads those that its scorer names.

    Attributes:
        steps: points of the quadrature of integrated gradients.
        samples: random points, subsets or orders.
        internal_batch: maximum number of variants in one pass; None for as many as fit into the budget of tokens of
            `Replays`.
        baseline: the replacement of a removed token: "pad", "mask" or "zero"; None for "pad" where the model has such
            a token, else "zero". Perturbation methods on texts can leave the token out instead: "removed" masks it as a
            key in every layer, "deleted" shortens the text, as the metrics of faithfulness do. For patches and frames:
            "blank" (the state of an input of zeros, the default) or "zero".
        window: tokens of an occlusion window; patches on each side of a square window.
        penalty: the penalty of LIME's ridge regression.
        seed: the random seed for random draws.
    """

    steps: int = 50
    samples: int = 25
    internal_batch: int | None = 32
    baseline: str | None = None
    window: int = 3
    penalty: float = 1.0
    seed: int = 0


def check_option(method: str, name: str, value: Any) -> None:
    """Refuse a value of the wrong type or range.

    Args:
        method: the method's name.
        name: the option's name.
        value: the value that the user passed.

    Raises:
        InvalidInputError: names the option and what is allowed.

    Example:
        >>> check_option("integrated_gradients", "steps", 20)
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if name == "baseline":
        good, allowed = value in BASELINES, f"one of {', '.join(BASELINES)}"
    elif name == "penalty":
        good, allowed = (whole or isinstance(value, float)) and 0 <= value < float("inf"), "a number from 0 up"
    elif name == "seed":
        good, allowed = whole and 0 <= value < 2**32, "a whole number from 0 to 2**32 - 1"
    else:
        least = LEAST_SAMPLES.get((method, name), 1)
        good, allowed = whole and value >= least, f"a whole number, at least {least}"
    if not good:
        raise InvalidInputError(f"options[{name!r}] of method {method!r} must be {allowed}, not {shown(value)}.")


LEAST_SAMPLES: Mapping[tuple[str, str], int] = {("kernel_shap", "samples"): 2}  # the first two fix both ends


def missing_share(difference: float, scores: Tensor) -> float:
    """By how much the sum of scores misses a difference, as a share of the larger of both.

    Example:
        >>> import torch
        >>> round(missing_share(1.0, torch.tensor([0.5, 0.4])), 6)
        0.1
    """
    scale = max(abs(difference), float(scores.abs().sum()), 1e-12)
    return abs(difference - float(scores.double().sum())) / scale
