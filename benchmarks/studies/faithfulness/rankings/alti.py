"""ALTI: how near each transformed vector is to the output of attention, rolled out (Ferrando et al., EMNLP 2022).

arXiv 2203.04212. With y_i the output of the attention block after its normalization and T_i(x_j) token j's share of it,
the contribution of j to i is max(0, ||y_i||_1 - ||y_i - T_i(x_j)||_1), divided by the sum over j. Scores are the row of
[CLS] in the product of the layers. They have no sign and no class.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.studies.faithfulness.rankings.bert import Layer, roll_out, run, transformed_vectors
from benchmarks.studies.faithfulness.rankings.globenc import normalized


def alti(model: Any, ids: Tensor, target: int) -> Tensor:
    """Scores of the tokens, (n,), not negative; the class is not used."""
    with torch.no_grad():
        return roll_out([contributions(layer) for layer in run(model, ids).layers])


def contributions(layer: Layer) -> Tensor:
    """(n, n) matrix of a layer; rows add up to one."""
    shares = normalized(transformed_vectors(layer), layer.added[0], layer.module.attention.output.LayerNorm)
    whole = layer.attended[0]
    distance = (whole[:, None] - shares).abs().sum(-1)
    near = (whole.abs().sum(-1, keepdim=True) - distance).clamp_min(0)
    return near / near.sum(-1, keepdim=True)
