"""Transformer attribution (Chefer et al., CVPR 2021, arXiv 2012.09838).

Relevance of the class is propagated to the attention of every layer by LRP: through linear maps by products that are
positive (alpha = 1), through products of two activations and through residual sums in proportion to their parts, each
normalized so that its sum is kept, and unchanged through normalizations, activations and the softmax. In each layer the
positive part of relevance times gradient is averaged over heads; scores are the row of [CLS] in the product of I plus
these matrices.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.studies.faithfulness.rankings.attention_gradients import attention_gradients
from benchmarks.studies.faithfulness.rankings.bert import Layer, Trace, roll_out, run

SMALLEST = 1e-9


def transformer_attribution(model: Any, ids: Tensor, target: int, *, normalize_rows: bool = False) -> Tensor:
    """Scores of the tokens, (n,), not negative.

    Args:
        model: the classifier.
        ids: (n,) token ids.
        target: the class.
        normalize_rows: divide each row of I plus a matrix by its sum, which the authors' code does and the paper does
            not.
    """
    trace = run(model, ids)
    gradients = attention_gradients(trace, target)
    with torch.no_grad():
        relevance = relevance_of_attention(model, trace, target)
        parts = [(r * g)[0].clamp_min(0).mean(0) for r, g in zip(relevance, gradients)]
        matrices = [torch.eye(len(ids)) + part for part in parts]
        if normalize_rows:
            matrices = [matrix / matrix.sum(-1, keepdim=True) for matrix in matrices]
        return roll_out(matrices)


def relevance_of_attention(model: Any, trace: Trace, target: int) -> list[Tensor]:
    """LRP's relevance of the attention of each layer, (1, h, n, n), the bottom layer first."""
    relevance = torch.zeros_like(trace.logits)
    relevance[:, target] = 1.0
    relevance = through_linear(relevance, trace.pooled, model.classifier)
    top = trace.layers[-1].outputs
    states = torch.zeros_like(top)
    states[:, 0] = through_linear(relevance, top[:, 0], model.bert.pooler.dense)
    found = []
    for layer in reversed(trace.layers):
        attention, states = through_layer(states, layer)
        found.append(attention)
    return found[::-1]


def through_layer(relevance: Tensor, layer: Layer) -> tuple[Tensor, Tensor]:
    """Relevance of a layer's outputs -> relevance of its attention and of the states that it reads."""
    module, output = layer.module, layer.module.attention.output
    forward, direct = through_sum(relevance, layer.summed - layer.attended, layer.attended)
    forward = through_linear(forward, layer.activated, module.output.dense)
    forward = through_linear(forward, layer.attended, module.intermediate.dense)
    mixed, residual = through_sum(forward + direct, layer.added - layer.states, layer.states)
    mixed = through_linear(mixed, layer.mixed, output.dense)
    mixed = mixed.view(*mixed.shape[:2], layer.values.shape[1], -1).transpose(1, 2)
    attention, values = through_product(mixed, layer.attention, layer.values)
    queries, keys = through_product(attention, layer.queries, layer.keys.transpose(-1, -2))
    projections = module.attention.self
    for part, projection in (
        (queries, projections.query),
        (keys.transpose(-1, -2), projections.key),
        (values, projections.value),
    ):
        joined = part.transpose(1, 2).reshape(layer.states.shape)
        residual = residual + through_linear(joined, layer.states, projection)
    return attention, residual


def through_linear(relevance: Tensor, x: Tensor, linear: nn.Linear) -> Tensor:
    """The rule for a linear map with alpha = 1: in proportion to the products x w that are positive."""
    positive, negative = linear.weight.clamp_min(0), linear.weight.clamp_max(0)
    ahead, behind = x.clamp_min(0), x.clamp_max(0)
    ratio = divided(relevance, functional.linear(ahead, positive) + functional.linear(behind, negative))
    return ahead * (ratio @ positive) + behind * (ratio @ negative)


def through_product(relevance: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The rule for a matrix product: each factor gets half, in proportion to its entries."""
    ratio = divided(relevance, first @ second)
    return first * (ratio @ second.transpose(-1, -2)) / 2, second * (first.transpose(-1, -2) @ ratio) / 2


def through_sum(relevance: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The rule for a sum: in proportion to the parts, then scaled by the sizes of both sums so that no sum grows."""
    ratio = divided(relevance, first + second)
    parts = [first * ratio, second * ratio]
    sums = [part.sum() for part in parts]
    size = sums[0].abs() + sums[1].abs()
    one, other = (
        part * divided(divided(total.abs(), size) * relevance.sum(), total) for part, total in zip(parts, sums)
    )
    return one, other


def divided(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The ratio; 0 where the denominator is 0, which is kept away from it elsewhere."""
    safe = denominator + torch.where(denominator >= 0, SMALLEST, -SMALLEST)
    return numerator / safe * (denominator != 0)
