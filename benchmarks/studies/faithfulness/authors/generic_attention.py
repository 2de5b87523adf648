"""Generic attention by hila-chefer/Transformer-MM-Explainability: `SelfAttentionGenerator.generate_ours` of VisualBERT.

That is the repository's generator for an encoder with self-attention alone. It reads the scores and the attention of
the model only; here the model is transformers' BERT with eager attention, whose attention and gradients are given
under the names that the generator calls. VisualBERT classifies by the token before the last one, BERT by [CLS]: the
generator finds that token as `input_mask.sum(1) - 2`, so that the mask given to it has two ones.

    pip install transformers==4.30.2 "numpy<2"

Patched: `Tensor.cuda` returns the tensor, and `cv2` (imported, not used here) is an empty module. The generator is
loaded from its file, since the packages above it import all of mmf.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import chefer_bert
import exchange
import torch

FILE = "VisualBERT/mmf/models/transformers/backends/ExplanationGenerator.py"


class Recorded(torch.nn.Module):
    """BERT under the names that the generator reads: `model.bert.encoder.layer[i].attention.self.get_attn()`.

    Args:
        classifier: transformers' BERT.
        contrasted: scores are each logit minus the mean of the others.
    """

    def __init__(self, classifier: Any, contrasted: bool) -> None:
        super().__init__()
        self.classifier, self.contrasted = classifier, contrasted
        count = classifier.config.num_hidden_layers
        self.attention: list[Any] = [None] * count
        layers = [SimpleNamespace(attention=SimpleNamespace(self=self._reader(i))) for i in range(count)]
        self.model = SimpleNamespace(bert=SimpleNamespace(encoder=SimpleNamespace(layer=layers)))

    def forward(self, batch: Any) -> dict[str, Any]:
        output = self.classifier(batch["input_ids"], output_attentions=True)
        self.attention = list(output.attentions)
        for attention in self.attention:
            attention.retain_grad()
        logits = output.logits
        if self.contrasted:
            logits = logits - (logits.sum(-1, keepdim=True) - logits) / (logits.shape[-1] - 1)
        return {"scores": logits}

    def _reader(self, layer: int) -> Any:
        return SimpleNamespace(
            get_attn=lambda: self.attention[layer], get_attn_gradients=lambda: self.attention[layer].grad
        )


def generator() -> Any:
    """The class of the authors, from the first folder of the path that has its file."""
    path = next(Path(folder) / FILE for folder in sys.path if (Path(folder) / FILE).exists())
    spec = importlib.util.spec_from_file_location("explanation_generator", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SelfAttentionGenerator


def make(name: str) -> dict[str, exchange.TokenExplainer]:
    """The explainers: as published, and of the value that ours explains."""
    chefer_bert.patch()
    kind = generator()
    model, _ = exchange.load(name)

    def explainer(contrasted: bool) -> exchange.TokenExplainer:
        recorded = Recorded(model, contrasted)

        def explain(ids: Any, target: int) -> Any:
            batch = {"input_ids": torch.tensor([list(ids)]), "input_mask": torch.ones(1, 2, dtype=torch.long)}
            with torch.enable_grad():
                return kind(recorded).generate_ours(batch, index=target)[0].tolist()

        return explain

    return {
        "logits": lambda ids, target: model(torch.tensor([list(ids)])).logits[0].tolist(),
        "published": explainer(False),
        "equal value": explainer(True),
    }


if __name__ == "__main__":
    exchange.serve(make, (), "SelfAttentionGenerator.generate_ours, index=class", reads_ids=True)
