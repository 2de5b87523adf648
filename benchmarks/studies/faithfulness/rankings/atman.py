"""AtMan: how much the loss grows if the attention to one token is suppressed (Deiseroth et al., NeurIPS 2023).

arXiv 2301.08110. In every layer and head the scores are shifted so that the smallest of a row is zero, and those of the
token as a key are multiplied by .1 (suppression of 90 %, the default of the authors' code). The score of a token is the
growth of the cross entropy of the class. Tokens that resemble the token are not suppressed with it, which the authors
add for images. One forward pass for each token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.studies.faithfulness.rankings.bert import run

FACTOR = 0.1
COPIES = 32  # copies of the input in one pass


def atman(model: Any, ids: Tensor, target: int) -> Tensor:
    """Scores of the tokens, (n,)."""
    with torch.no_grad():
        whole = run(model, ids).logits.log_softmax(-1)[0, target]
        parts = []
        for places in torch.arange(len(ids)).split(COPIES):
            suppressed = run(model, ids, change_scores=suppression(places), copies=len(places))
            parts.append(whole - suppressed.logits.log_softmax(-1)[:, target])
    return torch.cat(parts)


def suppression(places: Tensor) -> Any:
    """What changes the attention scores of a batch in which input i has the token places[i] suppressed."""

    def change(scores: Tensor) -> Tensor:
        factors = torch.ones(len(places), 1, 1, scores.shape[-1])
        factors[torch.arange(len(places)), 0, 0, places] = FACTOR
        return (scores - scores.min(-1, keepdim=True).values) * factors

    return change
