"""Position-aware LRP (Bakish et al. 2025, arXiv 2506.02138) with the rules of AttnLRP.

The input of a Transformer is a set of pairs of a token and a position. For positions that are learned and added to the
embeddings, the relevance of the position embedding at a place is added to that of the word there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.studies.faithfulness.rankings.bert import Rules, Trace, explained_value, frozen_norm, gate, run
from benchmarks.studies.faithfulness.rankings.gim import share

ATTNLRP = Rules(  # Achtibat et al., arXiv 2402.05602: the gradient of the softmax, products shared equally
    norm=frozen_norm,
    activation=gate(functional.gelu),
    tanh=gate(torch.tanh),
    query_key=lambda x: share(x, 0.25),
    mix=lambda rows, values: rows @ share(values, 0.5),
)


def position_lrp(model: Any, ids: Tensor, target: int) -> Tensor:
    """Scores of the tokens, (n,)."""
    words, positions = attnlrp_of_words_and_positions(run(model, ids, ATTNLRP), target)
    return words + positions


def attnlrp_of_words_and_positions(trace: Trace, target: int) -> tuple[Tensor, Tensor]:
    """AttnLRP's relevance of the words alone and of the positions alone, (n,) each."""
    leaves = (trace.words, trace.positions)
    gradients = torch.autograd.grad(explained_value(trace.logits, target).sum(), leaves)
    words, positions = ((leaf * gradient)[0].sum(-1).detach() for leaf, gradient in zip(leaves, gradients))
    return words, positions
