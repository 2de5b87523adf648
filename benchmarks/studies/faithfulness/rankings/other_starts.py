"""Methods of this study with another start: the embedding of [PAD] as a baseline, or the states after the embeddings.

`relevance`, LibraGrad and GIM are gradient x input here, as in the papers. The authors' package of GIM multiplies the
gradient by x - x' instead, x' the embedding of [PAD]. DecompX starts after the embedding layer. These rows show what
such a choice is worth by itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.studies.faithfulness.rankings import gim, libragrad
from benchmarks.studies.faithfulness.rankings.bert import Rules, explained_value, run
from benchmarks.studies.faithfulness.rankings.decompx import decompx_without_biases


def from_padding(model: Any, ids: Tensor, target: int, rules: Rules) -> Tensor:
    """Gradient x (word embedding - that of [PAD]), under these rules of the backward pass; (n,)."""
    trace = run(model, ids, rules)
    (gradient,) = torch.autograd.grad(explained_value(trace.logits, target).sum(), trace.words)
    padding = model.get_input_embeddings().weight[model.config.pad_token_id].detach()
    return ((trace.words - padding) * gradient)[0].sum(-1).detach()


STARTS = {  # name in tables: (model, token ids, class) -> one score for each token
    "DecompX": decompx_without_biases,
    "relevance, [PAD] baseline": lambda model, ids, target: from_padding(model, ids, target, libragrad.RULES),
    "GIM, [PAD] baseline": lambda model, ids, target: from_padding(model, ids, target, gim.RULES),
}
