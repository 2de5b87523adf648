"""What the adapters of repositories with the module `BERT_explainability` share: patches, the model, its logits."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import torch


def patch() -> None:
    """Let the modules be imported without gensim and OpenCV, and run without a GPU."""
    for name, attribute in (("gensim", None), ("gensim.models", "KeyedVectors"), ("cv2", None)):
        module = types.ModuleType(name)
        if attribute:
            setattr(module, attribute, None)
        sys.modules.setdefault(name, module)
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]


def load(name: str, *, contrasted: bool = False) -> Any:
    """The authors' BERT with the weights of the model, in float32.

    Args:
        name: folder of the model.
        contrasted: its logits are each minus the mean of the others, the value that ours explains. Relevance still
            starts at the logit of the class: its rules are those of the authors.
    """
    from BERT_explainability.modules.BERT.BertForSequenceClassification import BertForSequenceClassification

    class Contrasted(BertForSequenceClassification):  # type: ignore[misc, valid-type]
        def forward(self, *args: Any, **options: Any) -> Any:
            output = super().forward(*args, **options)
            logits = output[0]
            others = (logits.sum(-1, keepdim=True) - logits) / (logits.shape[-1] - 1)
            return (logits - others, *output[1:])

    kind = Contrasted if contrasted else BertForSequenceClassification
    model = kind.from_pretrained(name, torch_dtype=torch.float32, return_dict=False)
    return model.eval()


def batch(ids: Any) -> dict[str, torch.Tensor]:
    """One input without padding."""
    return {"input_ids": torch.tensor([list(ids)]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}


def explainers(name: str, explainer: Callable[[Any], Any]) -> dict[str, Any]:
    """What an adapter serves: the logits, and scores of the model as published and of the value that ours explains.

    Args:
        name: folder of the model.
        explainer: of a model.
    """
    model, contrasted = load(name), load(name, contrasted=True)
    return {"logits": logits(model), "published": explainer(model), "equal value": explainer(contrasted)}


def logits(model: Any) -> Any:
    """What returns the logits of a model for token ids."""

    def values(ids: Any, target: int) -> Any:
        return model(**batch(ids))[0][0].tolist()

    return values
