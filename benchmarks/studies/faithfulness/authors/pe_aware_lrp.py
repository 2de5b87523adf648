"""Position-aware LRP by the rules of its authors' package `lxt` (NLP/lxt), which the adapter applies to BERT.

Repository: YardenBakish/PE-AWARE-LRP, 51eb418, folder NLP. Its models are LLaMA with rotary positions and ViT; it has
no BERT, and the rules are applied in the code of a model. The adapter writes BERT down with their operations
(`linear_epsilon`, `matmul`, `softmax`, `mul2`, `add2`, `layer_norm` of `lxt.functional` and `identity` of `lxt.rules`;
their backward passes carry relevance). Positions enter as they do in their ViT (`models/model.py`), the one of their
models whose positions are learned and added: an input of the sum that makes the embeddings, with relevance of its own,
which is added to that of the patch at the place. Its clamp at zero, made for images, is left out.

    pip install torch transformers==4.30.2

"published" starts with the logit of the class, as their `llama_engine.py` does. "equal value" starts with that logit
less the mean of the others and makes the numbers that their rules add to denominators, 1e-6 and 1e-8, as small as
1e-12: their `_stabilize` is replaced. Both in float64.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import exchange
import torch
import transformers

sys.path[:0] = [str(Path(folder) / "NLP") for folder in sys.path]

from lxt import functional as rules  # noqa: E402
from lxt.rules import identity  # noqa: E402

SMALL = 1e-12


def make(name: str) -> dict[str, exchange.TokenExplainer]:
    """The explainers."""
    kind = transformers.AutoModelForSequenceClassification
    model = kind.from_pretrained(name, torch_dtype=torch.float64).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)

    def published(ids: Sequence[int], target: int) -> list[float]:
        return explain(ids, target, 0.0)

    def equal_value(ids: Sequence[int], target: int) -> list[float]:
        with small_stabilizers():
            return explain(ids, target, -1 / (model.config.num_labels - 1))

    def explain(ids: Sequence[int], target: int, others: float) -> list[float]:
        words, positions, values = forward(model, torch.tensor([ids]))
        weights = torch.full_like(values, others)
        weights[0, target] = 1
        values.backward(values.detach() * weights)
        return (words.grad + positions.grad)[0].sum(-1).tolist()

    def logits(ids: Sequence[int], target: int) -> list[float]:
        return forward(model, torch.tensor([ids]))[2][0].tolist()

    return {"logits": logits, "published": published, "equal value": equal_value}


@contextmanager
def small_stabilizers() -> Iterator[None]:
    """Replace what their rules add to denominators by `SMALL`."""
    theirs = rules._stabilize
    rules._stabilize = lambda values, epsilon=SMALL, inplace=False: values + SMALL
    try:
        yield
    finally:
        rules._stabilize = theirs


def forward(model: Any, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The word embeddings, the position embeddings, both leaves of shape (1, n, D), and the logits, (1, classes)."""
    table = model.bert.embeddings
    words = table.word_embeddings(ids).requires_grad_()
    positions = table.position_embeddings.weight[None, : ids.shape[1]].clone().requires_grad_()
    types = table.token_type_embeddings.weight[:1].expand_as(words)
    states = norm(rules.add2(rules.add2(words, positions), types), table.LayerNorm)
    for layer in model.bert.encoder.layer:
        mixed = attend(layer.attention.self, states)
        states = norm(rules.add2(linear(mixed, layer.attention.output.dense), states), layer.attention.output.LayerNorm)
        hidden = identity(layer.intermediate.intermediate_act_fn, linear(states, layer.intermediate.dense))
        states = norm(rules.add2(linear(hidden, layer.output.dense), states), layer.output.LayerNorm)
    pooled = identity(torch.tanh, linear(states[:, 0], model.bert.pooler.dense))
    return words, positions, linear(pooled, model.classifier)


def attend(module: Any, states: torch.Tensor) -> torch.Tensor:
    """The outputs of the heads, (1, n, D)."""
    shape = (*states.shape[:2], module.num_attention_heads, module.attention_head_size)
    queries, keys, values = (
        linear(states, projection).view(shape).transpose(1, 2)
        for projection in (module.query, module.key, module.value)
    )
    scores = rules.mul2(rules.matmul(queries, keys.transpose(2, 3)), 1 / module.attention_head_size**0.5)
    return rules.matmul(rules.softmax(scores, -1), values).transpose(1, 2).reshape(states.shape)


def linear(inputs: torch.Tensor, module: Any) -> torch.Tensor:
    """Their linear layer with the weights of a module."""
    return rules.linear_epsilon(inputs, module.weight, module.bias)


def norm(inputs: torch.Tensor, module: Any) -> torch.Tensor:
    """Their layer normalization with the weights of a module."""
    return rules.layer_norm(inputs, module.weight, module.bias, module.eps)


if __name__ == "__main__":
    exchange.serve(make, (), "AttnLRP's rules of lxt, positions with a relevance of their own; float64", reads_ids=True)
