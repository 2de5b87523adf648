"""GIM: gradient x input with three changes of the backward pass (Edin et al. 2025, arXiv 2505.17630).

- Attention: the gradient of the softmax is that at temperature 2, so that tokens that stand in for one another do not
  hide each other.
- Normalization: the standard deviation is constant.
- Products of two activations are shared equally: values get a half, queries and keys a quarter each.

Activations keep their own gradient; BERT has no gated feed-forward layers, for which the paper has a further factor.
Settings are those of the authors' package `gim-explain`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.studies.faithfulness.rankings.bert import Rules, explained_value, frozen_norm, run

TEMPERATURE = 2.0


class SoftmaxAtTemperature(torch.autograd.Function):
    """softmax(x), with the gradient of softmax at x / T as that of its argument."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        ctx.save_for_backward(scores)
        return scores.softmax(-1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (scores,) = ctx.saved_tensors
        rows = (scores / TEMPERATURE).softmax(-1)
        return rows * (gradient - (gradient * rows).sum(-1, keepdim=True))


def share(x: Tensor, part: float) -> Tensor:
    """The tensor itself, with this part of its gradient."""
    return x * part + (x * (1 - part)).detach()


RULES = Rules(
    norm=frozen_norm,
    softmax=SoftmaxAtTemperature.apply,
    query_key=lambda x: share(x, 0.25),
    mix=lambda rows, values: rows @ share(values, 0.5),
)


def gim(model: Any, ids: Tensor, target: int) -> Tensor:
    """Scores of the tokens, (n,)."""
    trace = run(model, ids, RULES)
    (gradient,) = torch.autograd.grad(explained_value(trace.logits, target).sum(), trace.words)
    return (trace.words * gradient)[0].sum(-1).detach()
