"""Max-sensitivity, the change of scores under small changes of the input, and the completeness gap."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown

RADIUS, SAMPLES = 0.02, 10


def max_sensitivity(
    explain: Callable[[Tensor], Tensor],
    inputs: Tensor,
    *,
    radius: float = RADIUS,
    samples: int = SAMPLES,
    seed: int = 0,
) -> float | None:
    """Return the largest relative change of the scores over small random changes of the input. Lower is better.

    max over delta of ||scores(x + delta) - scores(x)|| / ||scores(x)||, delta uniform in [-radius, radius] for each
    entry (Yeh et al. 2019, arXiv 1901.09392; Captum's sensitivity_max), 0 and above.

    Args:
        explain: a function from (samples, ...) inputs, for text embeddings (samples, tokens, hidden), to
            (samples, tokens) scores of one target.
        inputs: (...) of one example.
        radius: largest change of an entry.
        samples: number of changes.
        seed: the random seed for the changes.

    Returns:
        None if all scores are zero.

    Raises:
        InvalidInputError: a radius or samples that are not positive, or scores of another number of inputs.

    Example:
        >>> max_sensitivity(lambda x: x, torch.ones(4)) <= 0.02
        True
    """
    if not radius > 0 or type(samples) is not int or samples < 1:
        raise InvalidInputError(f"radius and samples must be positive, not {shown(radius)} and {shown(samples)}.")
    generator = torch.Generator().manual_seed(seed)
    noise = (torch.rand((samples, *inputs.shape), generator=generator, dtype=torch.float64) * 2 - 1) * radius
    changed = inputs[None] + noise.to(inputs)
    return relative_change(explain(inputs[None])[0], explain(changed))


def relative_change(scores: Tensor, changed: Tensor) -> float | None:
    """Return the largest ||changed - scores|| / ||scores||; None if all scores are zero.

    Args:
        scores: (tokens,).
        changed: (samples, tokens): scores after small changes of the input.

    Raises:
        InvalidInputError: other shapes, or entries that are not finite.
    """
    scores, changed = scores.detach().double(), changed.detach().double()
    if scores.dim() != 1 or changed.dim() != 2 or changed.shape[1] != len(scores) or not len(changed):
        raise InvalidInputError(
            f"scores and changed scores have shapes {tuple(scores.shape)} and {tuple(changed.shape)}; (tokens,) and "
            "(samples, tokens) are needed."
        )
    if not bool(scores.isfinite().all() and changed.isfinite().all()):
        raise InvalidInputError("scores have entries that are NaN or infinite.")
    size = float(scores.norm())
    return float((changed - scores).norm(dim=1).max()) / size if size > 0 else None


def completeness_gap(scores: Tensor, value: float, *, bias: float = 0.0) -> float | None:
    """Return the relative difference between the sum of the scores and the explained value. Lower is better.

    |value - sum of scores - bias| / max(|value|, sum of |scores|), in [0, 2] for bias 0 (the completeness axiom of
    Sundararajan et al. 2017, arXiv 1703.01365, relative to the size of both).

    Args:
        scores: (tokens,), including special tokens.
        value: the explained value: f(x), or f(x) - f(baseline) for methods that have a baseline.
        bias: the part of `value` that the method assigns to no token.

    Returns:
        None if value and all scores are zero.

    Example:
        >>> completeness_gap(torch.tensor([1.0, 0.5, -0.5]), 1.25)
        0.125
    """
    scores = scores.detach().double()
    scale = max(abs(value), float(scores.abs().sum()))
    return abs(value - float(scores.sum()) - bias) / scale if scale > 0 else None
