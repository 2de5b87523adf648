"""BERT for sequence classification written out, with operations that a method can replace.

It shares no code with the package, so that methods of other papers can be checked against the package's own. One input
without padding at a time, or several copies of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """The layer normalization as it is."""
    return functional.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def softmax(scores: Tensor) -> Tensor:
    """The softmax over keys as it is."""
    return scores.softmax(-1)


@dataclass(frozen=True)
class Rules:
    """The operations whose backward pass methods change; the defaults are those of the model.

    Attributes:
        norm: (states, module) -> normalized states.
        softmax: (batch, heads, queries, keys) scores -> attention.
        activation: of the feed-forward layers.
        tanh: of the pooler.
        query_key: applied to queries and to keys before their product.
        mix: (attention, values) -> their product.
    """

    norm: Callable[[Tensor, nn.LayerNorm], Tensor] = layer_norm
    softmax: Callable[[Tensor], Tensor] = softmax
    activation: Callable[[Tensor], Tensor] = functional.gelu
    tanh: Callable[[Tensor], Tensor] = torch.tanh
    query_key: Callable[[Tensor], Tensor] = lambda x: x
    mix: Callable[[Tensor, Tensor], Tensor] = torch.matmul


@dataclass(frozen=True)
class Layer:
    """What one encoder layer computed; b inputs, h heads, n tokens, d dimensions of a head, D of a state.

    Attributes:
        module: the `BertLayer`.
        states: (b, n, D) what the layer reads.
        queries: (b, h, n, d).
        keys: (b, h, n, d).
        values: (b, h, n, d).
        attention: (b, h, n, n).
        mixed: (b, n, D) outputs of the heads, side by side.
        added: (b, n, D) before the first normalization: their projection plus `states`.
        attended: (b, n, D) after it.
        hidden: (b, n, F) before the activation.
        activated: (b, n, F) after it.
        summed: (b, n, D) before the second normalization.
        outputs: (b, n, D) what the next layer reads.
    """

    module: Any
    states: Tensor
    queries: Tensor
    keys: Tensor
    values: Tensor
    attention: Tensor
    mixed: Tensor
    added: Tensor
    attended: Tensor
    hidden: Tensor
    activated: Tensor
    summed: Tensor
    outputs: Tensor


@dataclass(frozen=True)
class Trace:
    """A forward pass.

    Attributes:
        words: (b, n, D) word embeddings, a leaf that gradients refer to.
        positions: (b, n, D) position embeddings, a leaf.
        types: (b, n, D) embeddings of token types, a leaf.
        layers: from the bottom.
        pooled: (b, D) what the classifier reads.
        logits: (b, classes).
    """

    words: Tensor
    positions: Tensor
    types: Tensor
    layers: list[Layer] = field(repr=False)
    pooled: Tensor
    logits: Tensor


def run(
    model: Any,
    ids: Tensor,
    rules: Rules | None = None,
    *,
    change_scores: Callable[[Tensor], Tensor] | None = None,
    copies: int = 1,
) -> Trace:
    """Run one input.

    Args:
        model: a `BertForSequenceClassification` in evaluation mode.
        ids: (n,) token ids of one text.
        rules: what replaces the operations of the model.
        change_scores: applied to the (copies, heads, n, n) attention scores of every layer.
        copies: how many copies of the input are run.

    Raises:
        ValueError: another architecture, or another activation than gelu.
    """
    if model.config.model_type != "bert" or model.config.hidden_act != "gelu":
        raise ValueError(f"written for BERT with gelu, not {model.config.model_type} with {model.config.hidden_act}")
    rules = rules or Rules()
    embeddings = model.bert.embeddings
    place = torch.arange(len(ids))
    words = embeddings.word_embeddings(ids).detach().repeat(copies, 1, 1).requires_grad_()
    positions = embeddings.position_embeddings(place).detach().repeat(copies, 1, 1).requires_grad_()
    types = embeddings.token_type_embeddings(torch.zeros_like(ids)).detach().repeat(copies, 1, 1).requires_grad_()
    states = rules.norm(words + positions + types, embeddings.LayerNorm)
    layers = []
    for module in model.bert.encoder.layer:
        layers.append(_layer(module, states, rules, change_scores))
        states = layers[-1].outputs
    pooled = rules.tanh(model.bert.pooler.dense(states[:, 0]))
    return Trace(words, positions, types, layers, pooled, model.classifier(pooled))


def _layer(module: Any, states: Tensor, rules: Rules, change: Callable[[Tensor], Tensor] | None) -> Layer:
    attention = module.attention.self
    shape = (*states.shape[:2], attention.num_attention_heads, -1)
    queries, keys, values = (
        projection(states).view(shape).transpose(1, 2)
        for projection in (attention.query, attention.key, attention.value)
    )
    width = queries.shape[-1]
    scores = rules.query_key(queries) @ rules.query_key(keys).transpose(-1, -2) / width**0.5
    rows = rules.softmax(scores if change is None else change(scores))
    mixed = rules.mix(rows, values).transpose(1, 2).reshape(states.shape)
    added = module.attention.output.dense(mixed) + states
    attended = rules.norm(added, module.attention.output.LayerNorm)
    hidden = module.intermediate.dense(attended)
    activated = rules.activation(hidden)
    summed = module.output.dense(activated) + attended
    outputs = rules.norm(summed, module.output.LayerNorm)
    return Layer(
        module, states, queries, keys, values, rows, mixed, added, attended, hidden, activated, summed, outputs
    )


def gate(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function as x times a constant f(x) / x."""
    return lambda x: x * (function(x) / torch.where(x == 0, 1.0, x)).detach()


def frozen_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Layer normalization with a constant standard deviation."""
    centered = x - x.mean(-1, keepdim=True)
    return centered / (centered.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt().detach() * norm.weight + norm.bias


def explained_value(logits: Tensor, target: int) -> Tensor:
    """The logit of the class minus the mean of the others, (b,): what relevance explains, too."""
    others = [i for i in range(logits.shape[-1]) if i != target]
    return logits[:, target] - logits[:, others].mean(-1)


def roll_out(matrices: list[Tensor]) -> Tensor:
    """The row of [CLS] in the product of the layers' (n, n) matrices, the top layer first."""
    row = torch.eye(len(matrices[0]), dtype=matrices[0].dtype)[0]
    for matrix in reversed(matrices):
        row = row @ matrix
    return row


def transformed_vectors(layer: Layer) -> Tensor:
    """What each token adds to each token before the first normalization, (n, n, D): [i, j] is token j's share of i.

    sum_h a_ij^h W_O^h v_j^h, plus the residual connection where i = j. The bias of W_O has no token.
    """
    dense = layer.module.attention.output.dense
    heads, tokens, width = layer.values.shape[1:]
    weight = dense.weight.view(-1, heads, width)
    projected = torch.einsum("ohd,hnd->hno", weight, layer.values[0])
    shares = torch.einsum("hij,hjo->ijo", layer.attention[0], projected)
    own = torch.arange(tokens)
    shares[own, own] += layer.states[0]
    return shares
