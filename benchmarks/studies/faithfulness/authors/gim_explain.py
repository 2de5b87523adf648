"""GIM by corticph/gim, the package gim-explain: `gim.explain` as published, and `gim.GIM` around a backward pass.

`gim.explain` is written for language models: it reads `logits[:, target_position, :]`. Here the classifier's logits
stand at position 0, and the baseline is [PAD], which the package infers from the tokenizer. The context manager
`gim.GIM` replaces the softmax functions of PyTorch and scales the gradients of what
`scaled_dot_product_attention` reads. transformers' BERT calls that function, whose softmax is inside and is therefore
not replaced. For the comparison with the softmax replaced, `scaled_dot_product_attention` is first written out with
`torch.softmax`, so that both changes apply, as they do for models of TransformerLens.

    pip install transformers==5.23.0

The package needs nothing but torch and numpy; it is imported from the folder `src` of the repository.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import exchange
import torch
from torch import nn
from torch.nn import functional


class OnePosition(nn.Module):
    """A classifier as a language model with one position.

    Args:
        classifier: transformers' BERT.
    """

    def __init__(self, classifier: Any) -> None:
        super().__init__()
        self.classifier = classifier

    def get_input_embeddings(self) -> Any:
        return self.classifier.get_input_embeddings()

    def forward(self, inputs_embeds: Any, use_cache: bool = False) -> Any:
        return SimpleNamespace(logits=self.classifier(inputs_embeds=inputs_embeds).logits[:, None])


def written_out(queries: Any, keys: Any, values: Any, attn_mask: Any = None, **options: Any) -> Any:
    """Attention of heads of width d: softmax(q k / sqrt(d) + mask) v."""
    scores = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])
    return torch.softmax(scores if attn_mask is None else scores + attn_mask, dim=-1) @ values


@contextmanager
def attention(function: Callable[..., Any]) -> Iterator[None]:
    """Use another function in place of `scaled_dot_product_attention`."""
    original = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = function
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = original


def make(name: str) -> dict[str, exchange.TokenExplainer]:
    """The explainers: as published, and with the value of ours, with and without a softmax that is replaced."""
    sys.path[:0] = [str(Path(folder) / "src") for folder in sys.path if (Path(folder) / "src" / "gim").exists()]
    import gim

    model, tokenizer = exchange.load(name)

    def published(ids: Any, target: int) -> Any:
        batch = torch.tensor([list(ids)])
        one = OnePosition(model)
        return gim.explain(one, batch, target_token_id=target, target_position=0, tokenizer=tokenizer).tolist()

    def contrasted(function: Callable[..., Any]) -> exchange.TokenExplainer:
        def explain(ids: Any, target: int) -> Any:
            words = model.get_input_embeddings()(torch.tensor([list(ids)])).detach().requires_grad_()
            with attention(function), gim.GIM(model):
                logits = model(inputs_embeds=words).logits[0]
                value = logits[target] - (logits.sum() - logits[target]) / (len(logits) - 1)
                (gradient,) = torch.autograd.grad(value, words)
            return (words * gradient)[0].sum(-1).tolist()

        return explain

    return {
        "logits": lambda ids, target: model(torch.tensor([list(ids)])).logits[0].tolist(),
        "published": published,
        "fused, equal value": contrasted(functional.scaled_dot_product_attention),
        "equal value": contrasted(written_out),
    }


if __name__ == "__main__":
    exchange.serve(make, (), "gim.explain and gim.GIM, their defaults", reads_ids=True)
