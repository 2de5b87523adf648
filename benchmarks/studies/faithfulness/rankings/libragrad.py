"""LibraGrad's input x gradient (Mehri et al., CVPR 2025, arXiv 2411.16760).

Backward paths are pruned where an operation is not locally affine: none through the softmax of the attention, none
through the standard deviation of a normalization, and an activation is x times a constant. That is the linearization of
`relevance`, so that both give the same scores; a test shows it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.studies.faithfulness.rankings.bert import Rules, explained_value, frozen_norm, gate, run

RULES = Rules(
    norm=frozen_norm,
    softmax=lambda scores: scores.softmax(-1).detach(),
    activation=gate(functional.gelu),
    tanh=gate(torch.tanh),
)


def libragrad(model: Any, ids: Tensor, target: int) -> Tensor:
    """Scores of the tokens, (n,)."""
    trace = run(model, ids, RULES)
    (gradient,) = torch.autograd.grad(explained_value(trace.logits, target).sum(), trace.words)
    return (trace.words * gradient)[0].sum(-1).detach()
