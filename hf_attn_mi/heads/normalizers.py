"""From scores to weights: softmax and Gumbel-softmax with a temperature, exact under a mask."""

from __future__ import annotations

import torch
from torch import Tensor


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
    wide = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
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
        generator: for reproducible noise; on the device of the scores.

    Example:
        >>> drawn = gumbel_softmax(torch.zeros(3), hard=True, generator=torch.Generator().manual_seed(0))
        >>> float(drawn.sum()), float(drawn.max())
        (1.0, 1.0)
    """
    wide = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    if noise:
        uniform = torch.rand(wide.shape, dtype=wide.dtype, device=wide.device, generator=generator)
        tiny = torch.finfo(wide.dtype).tiny
        wide = wide - (-(uniform.clamp_min(tiny)).log()).clamp_min(tiny).log()
    soft = masked_softmax(wide, mask, temperature=temperature)
    if hard:
        largest = soft.argmax(-1, keepdim=True)
        one = torch.zeros_like(soft).scatter(-1, largest, 1.0)
        one = one if mask is None else one * mask
        soft = one + (soft - soft.detach())  # in this order the sum is exactly one-hot
    return soft.to(scores.dtype)
