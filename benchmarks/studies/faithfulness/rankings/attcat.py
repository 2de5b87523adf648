"""AttCAT: hidden states times their gradients, weighted by attention (Qiang et al., NeurIPS 2022).

Scores are the sum over layers of <h_j, d value / d h_j> times the attention that token j receives, mean over heads and
queries; h is what the layer reads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.studies.faithfulness.rankings.bert import explained_value, run


def attcat(model: Any, ids: Tensor, target: int) -> Tensor:
    """Scores of the tokens, (n,)."""
    trace = run(model, ids)
    states = [layer.states for layer in trace.layers]
    gradients = torch.autograd.grad(explained_value(trace.logits, target).sum(), states)
    received = [layer.attention[0].mean((0, 1)) for layer in trace.layers]
    parts = [(h * g)[0].sum(-1) * a for h, g, a in zip(states, gradients, received)]
    return torch.stack(parts).sum(0).detach()
