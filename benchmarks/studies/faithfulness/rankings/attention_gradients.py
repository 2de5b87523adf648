"""Attention weighted by its gradient: two methods.

- `gradient x attention`: the row of [CLS] in the last layer times its gradient, summed over heads (Serrano and Smith,
  ACL 2019, arXiv 1906.03731; the attention of the last layer is the one that the classifier reads).
- `generic attention`: R = R + A R over the layers, R = I at first, A the mean over heads of the positive part of the
  attention times its gradient; scores are the row of [CLS] (Chefer et al., ICCV 2021, arXiv 2103.15679, eq. 5 and 6).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.studies.faithfulness.rankings.bert import Trace, explained_value, run


def attention_gradients(trace: Trace, target: int) -> list[Tensor]:
    """d value / d attention of each layer, (1, h, n, n)."""
    rows = [layer.attention for layer in trace.layers]
    return list(torch.autograd.grad(explained_value(trace.logits, target).sum(), rows))


def gradient_x_attention(model: Any, ids: Tensor, target: int) -> Tensor:
    """Scores of the tokens, (n,)."""
    trace = run(model, ids)
    gradient = attention_gradients(trace, target)[-1]
    return (trace.layers[-1].attention * gradient)[0, :, 0].sum(0).detach()


def generic_attention(model: Any, ids: Tensor, target: int) -> Tensor:
    """Scores of the tokens, (n,), not negative."""
    trace = run(model, ids)
    relevance = torch.eye(len(ids))
    for layer, gradient in zip(trace.layers, attention_gradients(trace, target)):
        relevance = relevance + (layer.attention * gradient)[0].clamp_min(0).mean(0) @ relevance
    return relevance[0].detach()
