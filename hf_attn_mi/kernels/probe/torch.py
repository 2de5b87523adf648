"""Probe information in PyTorch: one matrix product and one pass over each chunk of logits."""

from __future__ import annotations

import torch
from torch import Tensor

ELEMENTS = 2**20  # logits, or widened states, held at a time: 4 MB in float32


def score_torch(
    states: Tensor, directions: Tensor, bias: Tensor, log_prior: Tensor, outputs: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return (examples * tokens,) divergence and V-information, a chunk of tokens at a time.

    Args:
        states: (examples, tokens, d) any floating point dtype.
        directions: (K, d) in the dtype of the computation.
        bias: (K,) -inf for classes that are excluded or of prior zero.
        log_prior: (K,).
        outputs: (1, K) or (examples, K), zero for classes of prior zero; None: no V-information.
    """
    classes, d = directions.shape
    tokens = states.shape[1]
    rows = states.reshape(-1, d)
    kl = directions.new_empty(len(rows))
    gained = None if outputs is None else directions.new_empty(len(rows))
    held = max(classes, d if rows.dtype != directions.dtype else 1)
    step = max(16, ELEMENTS // held)
    for start in range(0, len(rows), step):
        chunk = rows[start : start + step].to(directions.dtype)
        log_q = torch.addmm(bias, chunk, directions.T).log_softmax(-1)
        ratio = log_q - log_prior  # NaN where both are -inf: prior zero
        q = log_q.exp_()
        kl[start : start + step] = torch.where(q > 0, q * ratio, 0.0).sum(-1).clamp_min(0) + 0 * q.sum(-1)
        if gained is not None and outputs is not None:
            example = torch.arange(start, start + len(chunk), device=rows.device) // tokens
            weights = outputs.expand(len(states), -1).index_select(0, example)
            gained[start : start + step] = torch.where(weights > 0, weights * ratio, 0.0).sum(-1)
    return kl, gained
