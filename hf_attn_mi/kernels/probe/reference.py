"""The definition of `probe_information`, in float64."""

from __future__ import annotations

import torch
from torch import Tensor


def reference_probe_information(
    states: Tensor,
    directions: Tensor,
    offsets: Tensor,
    prior: Tensor,
    outputs: Tensor,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """Return sum_y q_y log(q_y / prior_y) and sum_y P_y log(q_y / prior_y), each (..., tokens), for a prior above zero.

    Args:
        states: (..., tokens, d).
        directions: (K, d).
        offsets: (K,) finite.
        prior: (K,).
        outputs: (..., K) P.
        dtype: the data type of the computation.
    """
    states, directions, offsets, prior, outputs = (x.to(dtype) for x in (states, directions, offsets, prior, outputs))
    log_q = (states @ directions.T + offsets).log_softmax(-1)
    ratio = log_q - prior.log()
    return (log_q.exp() * ratio).sum(-1), (outputs[..., None, :] * ratio).sum(-1)
