"""DecompX without biases (Modarressi et al., ACL 2023, arXiv 2306.02873) where its authors' code starts.

The decomposition is that of `relevance`, read off one step later: at the output of the embedding layer, so that the
position and type embeddings and the bias of the normalization count to the token at the place. The code of the authors
leaves the biases out (`include_biases=False`) with one exception: in the first layer, the value bias in the value
vector of a token counts to that token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.studies.faithfulness.rankings.bert import explained_value, run
from benchmarks.studies.faithfulness.rankings.libragrad import RULES


def decompx_without_biases(model: Any, ids: Tensor, target: int) -> Tensor:
    """Scores of the tokens, (n,)."""
    trace = run(model, ids, RULES)
    first = trace.layers[0]
    gradients = torch.autograd.grad(explained_value(trace.logits, target).sum(), (first.states, first.values))
    bias = first.module.attention.self.value.bias.view(first.values.shape[1], 1, -1)
    scores = (first.states * gradients[0])[0].sum(-1) + (bias * gradients[1][0]).sum((0, 2))
    return scores.detach()
