"""Iterative scores: the tokens with the highest scores are removed, and the others are scored again.

A score such as relevance linearizes the model at one input. If several tokens carry the same evidence, a token that is
redundant given the strongest ones contributes little and ranks low. Scored again without them, it ranks high.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

REMOVED_FRACTIONS = (0.05, 0.1, 0.2)  # shares of the removable tokens that are removed after each stage
BELOW = 0.999  # a stage starts this far below the last score of the stage before
SAME = 1e-5  # scores closer than this, relative to the largest, are taken out in the order of the text


def iterative_scores(
    first: Tensor,
    removable: Tensor,
    score_again: Callable[[Tensor], Tensor],
    *,
    fractions: Sequence[float] = REMOVED_FRACTIONS,
) -> Tensor:
    """Return scores, each computed on the text without the tokens removed in earlier stages.

    In stage k the tokens of highest positive score are removed until ceil(fractions[k] n) of the n removable ones are
    removed; one of them always stays. A removed token keeps the score of its stage, the others that of the last stage.
    Tokens that are removed earlier rank higher: the positive scores of a stage are multiplied by one factor, at most 1,
    that puts the largest just below the smallest score removed before. Signs are those of the token's own stage.
    Tokens that may not be removed keep their first score.

    Args:
        first: (batch, tokens) scores of the whole texts.
        removable: (batch, tokens) bool.
        score_again: (batch, tokens) bool, which tokens remain -> (batch, tokens) their scores.
        fractions: shares of the removable tokens that are removed after each stage, increasing, in (0, 1).

    Returns:
        (batch, tokens) float32 on the CPU.

    Example:
        >>> without_the_first = lambda kept: torch.tensor([[0.0, 0.5, 6.0, -2.0]])
        >>> everything = torch.ones(1, 4, dtype=torch.bool)
        >>> first = torch.tensor([[3.0, 2.0, 1.0, -1.0]])
        >>> scores = iterative_scores(first, everything, without_the_first, fractions=[0.25])
        >>> [round(score, 3) for score in scores[0].tolist()]  # the second pass times 0.999 * 3 / 6
        [3.0, 0.25, 2.997, -2.0]
    """
    current = first.detach().float().cpu()
    scores, kept = current.clone(), torch.ones_like(removable, device="cpu")
    factors, lowest = [1.0] * len(scores), [math.inf] * len(scores)
    texts = [row.nonzero()[:, 0] for row in removable.cpu()]
    for fraction in fractions:
        taken = False
        for i, tokens in enumerate(texts):
            left = tokens[kept[i, tokens]]
            goal = min(math.ceil(round(fraction * len(tokens), 9)), len(tokens) - 1)
            top = _top(current[i, left], left, goal - len(tokens) + len(left))
            if len(top):
                kept[i, top] = False
                lowest[i], taken = float(current[i, top].min()) * factors[i], True
        if not taken:
            continue
        current = score_again(kept.clone()).detach().float().cpu()
        for i, tokens in enumerate(texts):
            left = tokens[kept[i, tokens]]
            if len(left):
                factors[i] = min(1.0, BELOW * lowest[i] / max(float(current[i, left].max()), 1e-30))
                current_scores = current[i, left]
                scores[i, left] = torch.where(current_scores > 0, current_scores * factors[i], current_scores)
    return scores


def _top(scores: Tensor, tokens: Tensor, count: int) -> Tensor:
    """At most `count` of these tokens, the highest positive scores first."""
    if count < 1:
        return tokens[:0]
    steps = (scores / scores.abs().max().clamp_min(1e-30) / SAME).round()  # rounding errors must not decide the order
    order = steps.argsort(descending=True, stable=True)[:count]
    return tokens[order[scores[order] > 0]]
