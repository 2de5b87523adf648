"""DecompX by its authors' code: `src/modeling_bert.py` with `DecompXConfig`, as in their demo.

Repository: mohsenfayyaz/DecompX, b6bddf0. It names transformers 4.18; runs unchanged with

    pip install torch transformers==4.30.2

Scores are the tokens' parts of the logit of the class less the mean of the other logits, read off
`decompx_last_layer_outputs.classifier`. "DecompX W/O Bias", a name of the paper, is `include_biases=False`. "DecompX,
bias token" is `include_bias_token=True`, which keeps the biases apart as a further token (left out here). "DecompX" has
the demo's settings and shares the biases among the tokens (`bias_decomp_type="absdot"`).

Their decomposition starts at the output of the embedding layer, and in the first layer the value bias counts as a part
of the tokens whatever `include_biases` says. "DecompX W/O Bias, from word embeddings" starts one step earlier: a hook
gives the first layer, as its `attribution_vectors`, the word embeddings through their `ln_decomposer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import exchange
import torch
from src.decompx_utils import DecompXConfig
from src.modeling_bert import BertForSequenceClassification

CONFIGS = {
    "DecompX": DecompXConfig(aggregation="vector"),
    "DecompX W/O Bias": DecompXConfig(aggregation="vector", include_biases=False),
    "DecompX, bias token": DecompXConfig(aggregation="vector", include_bias_token=True, bias_decomp_type=None),
}


def make(name: str) -> dict[str, exchange.TokenExplainer]:
    """The explainers."""
    model = BertForSequenceClassification.from_pretrained(name, torch_dtype=torch.float32).eval()

    @torch.no_grad()
    def run(ids: Sequence[int], config: DecompXConfig) -> tuple[Any, Any]:
        batch = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        outputs = model(**batch, output_hidden_states=True, return_dict=False, decompx_config=config)
        return outputs[0][0], outputs[2].classifier[0][: len(ids)]

    def explainer(config: DecompXConfig) -> exchange.TokenExplainer:
        return lambda ids, target: of_margin(run(ids, config)[1], target)

    def from_words(ids: Sequence[int], target: int) -> list[float]:
        layer = model.bert.encoder.layer[0]
        start = word_parts(model.bert.embeddings, layer, torch.tensor(ids))
        hook = layer.register_forward_pre_hook(lambda module, inputs: (inputs[0], start, *inputs[2:]))
        try:
            return of_margin(run(ids, CONFIGS["DecompX W/O Bias"])[1], target)
        finally:
            hook.remove()

    def logits(ids: Sequence[int], target: int) -> list[float]:
        return run(ids, CONFIGS["DecompX"])[0].tolist()

    made: dict[str, exchange.TokenExplainer] = {key: explainer(config) for key, config in CONFIGS.items()}
    return {"logits": logits, **made, "DecompX W/O Bias, from word embeddings": from_words}


@torch.no_grad()
def word_parts(embeddings: Any, layer: Any, ids: torch.Tensor) -> torch.Tensor:
    """What each word embedding adds to each output of the embedding layer, (1, n, n, D): zero off the diagonal."""
    words = embeddings.word_embeddings(ids)
    norm = embeddings.LayerNorm
    whole = words + embeddings.position_embeddings.weight[: len(ids)] + embeddings.token_type_embeddings.weight[0]
    parts = torch.diag_embed(words.T).permute(1, 2, 0)
    return layer.ln_decomposer(parts[None], whole[None], norm.weight, norm.bias, norm.eps, include_biases=False)


def of_margin(parts: torch.Tensor, target: int) -> list[float]:
    """Parts of the logit of a class less the mean of the other logits, from the parts of all logits, (n, classes)."""
    others = [one for one in range(parts.shape[-1]) if one != target]
    return (parts[:, target] - parts[:, others].mean(-1)).tolist()


if __name__ == "__main__":
    exchange.serve(make, (), "aggregation='vector', GeLU_ZO, tanh ZO; otherwise as the name says", reads_ids=True)
