"""GlobEnc: norms of transformed vectors through both normalizations, rolled out (Modarressi et al., NAACL 2022).

arXiv 2205.03286. In a layer, token j's share of token i goes through the first normalization, is added to nothing (the
feed-forward layer is left out), and goes through the second. Scores are the row of [CLS] in the product of the matrices
of norms of all layers. They have no sign and no class. The rows of these matrices are not divided by their sums: the
authors' `AttentionRollout` multiplies them as they are, in their demo and in the notebooks of the paper.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.studies.faithfulness.rankings.bert import Layer, roll_out, run, transformed_vectors


def globenc(model: Any, ids: Tensor, target: int) -> Tensor:
    """Scores of the tokens, (n,), not negative; the class is not used."""
    with torch.no_grad():
        return roll_out([contributions(layer) for layer in run(model, ids).layers])


def contributions(layer: Layer) -> Tensor:
    """(n, n) matrix of a layer: the norm of token j's share of token i."""
    first, second = layer.module.attention.output.LayerNorm, layer.module.output.LayerNorm
    shares = normalized(transformed_vectors(layer), layer.added[0], first)
    return normalized(shares, layer.summed[0], second).norm(dim=-1)


def normalized(shares: Tensor, whole: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Each share of a vector through a normalization with the vector's own standard deviation, without its bias.

    Args:
        shares: (n, n, D).
        whole: (n, D) what the normalization reads.
        norm: the normalization.
    """
    std = (whole.var(-1, unbiased=False) + norm.eps).sqrt()[:, None, None]
    return (shares - shares.mean(-1, keepdim=True)) / std * norm.weight
