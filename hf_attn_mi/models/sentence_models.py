"""Models of sentence-transformers and SetFit: embeddings, cross-encoders, classifiers on embeddings."""

from __future__ import annotations

import copy
import weakref
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError
from hf_attn_mi.models.output_heads import ClassLogits, MultiLabel, OutputHead, Regression
from hf_attn_mi.models.unwrapped import Unwrapped

_wrapped: WeakKeyDictionary[nn.Module, SentenceModel] = WeakKeyDictionary()


class SentenceModel(nn.Module):
    """A model of sentence-transformers that is called like one of transformers.

    Args:
        body: the SentenceTransformer, which turns token ids into an embedding.
        head: computes logits from the embedding; None for the embedding alone.
        normalize: divide the embedding by its norm before the head.

    Attributes:
        config: the configuration of the encoder inside; with a head, its labels are those of the head.
    """

    def __init__(self, body: nn.Module, head: nn.Module | None = None, *, normalize: bool = False) -> None:
        super().__init__()
        self.parts, self.head, self.normalize = nn.ModuleList(body.children()), head, normalize
        self._body = weakref.ref(body)  # the caller's: kept in `_wrapped` as long as the caller keeps it
        self.config = _encoder(body).config
        self.training = body.training

    def holds(self, body: nn.Module) -> bool:
        """Whether the modules of the SentenceTransformer, and its encoder's configuration, are those that are wrapped.

        The caller may put another module in the place of one, or another encoder into it.
        """
        parts = list(body.children())
        same = len(parts) == len(self.parts) and all(one is other for one, other in zip(parts, self.parts))
        return same and _encoder(body).config is self.config

    @property
    def body(self) -> nn.Module:
        """The SentenceTransformer."""
        body_module = self._body()
        assert body_module is not None  # whoever runs this model holds it
        return body_module

    def get_input_embeddings(self) -> nn.Module | None:
        """The table of token embeddings of the encoder inside."""
        table: nn.Module | None = _encoder(self.body).get_input_embeddings()
        return table

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **arguments: Tensor,
    ) -> dict[str, Tensor]:
        """The embedding of each text, the states that it was pooled from, and logits where there is a head."""
        stated = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        features: dict[str, Any] = {k: v for k, v in {**stated, **arguments}.items() if v is not None}
        features = self.body(features)
        outputs = {"sentence_embedding": features["sentence_embedding"]}
        if "token_embeddings" in features:
            outputs["last_hidden_state"] = features["token_embeddings"]
        if self.head is not None:
            embedding = outputs["sentence_embedding"]
            outputs["logits"] = self.head(F.normalize(embedding, dim=-1) if self.normalize else embedding)
        return outputs


class LinearHead(nn.Module):
    """Logits of a fitted linear classifier.

    Args:
        weight: (classes, width).
        bias: (classes,).
        scale: logits are divided by it.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, scale: float = 1.0) -> None:
        super().__init__()
        self.linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
        self.scale = scale
        with torch.no_grad():
            self.linear.weight.copy_(weight)
            if bias is not None:
                self.linear.bias.copy_(bias)

    def forward(self, embedding: Tensor) -> Tensor:
        """(batch, classes)."""
        logits: Tensor = self.linear(embedding.to(self.linear.weight.dtype)) / self.scale
        return logits


def read_sentence_transformer(model: Any) -> Unwrapped:
    """A SentenceTransformer: its whole chain of modules, from token ids to the embedding.

    Raises:
        InvalidInputError: it puts a prompt in front of every text, or cuts its embeddings.
        UnsupportedModelError: there is no transformer in it.
    """
    _refuse_prompt(model)
    if getattr(model, "truncate_dim", None) is not None:
        raise InvalidInputError(
            f"model is a SentenceTransformer with truncate_dim={model.truncate_dim}, which cuts its embeddings and is "
            "not supported. Load it with truncate_dim=None."
        )
    wrapped = _wrapped.get(model)
    if wrapped is None or not wrapped.holds(model):
        wrapped = _wrapped[model] = SentenceModel(model)
    return Unwrapped(wrapped, model.tokenizer, _cut(model), source=model)


def read_cross_encoder(model: Any) -> Unwrapped:
    """A CrossEncoder: the sequence classifier inside; a single output is a score, by default through a sigmoid.

    Raises:
        InvalidInputError: it puts a prompt in front of every text.
        UnsupportedModelError: it is not a single sequence classifier.
    """
    inner = getattr(model, "model", None)
    if not isinstance(inner, nn.Module):
        raise UnsupportedModelError(f"model is a {type(model).__name__} without a transformer in .model.")
    if getattr(model, "tokenizer", None) is None:
        raise InvalidInputError(
            f"model is a {type(model).__name__} without a tokenizer; pass its attribute .model "
            f"({type(inner).__name__}), and tokenizer=..."
        )
    children = [type(child).__name__ for child in model.children()] if isinstance(model, nn.Sequential) else []
    if len(children) > 1:
        raise UnsupportedModelError(
            f"model is a CrossEncoder of the modules {', '.join(children)}; those with a sequence classifier alone are "
            "explained. Pass the model inside, .model, with tokenizer=... and target=function."
        )
    _refuse_prompt(model)
    activation = getattr(model, "activation_fn", None) or getattr(model, "default_activation_function", None)
    head: OutputHead = ClassLogits()
    if isinstance(activation, nn.Sigmoid):
        head = MultiLabel()
    elif inner.config.num_labels == 1:  # type: ignore[union-attr]
        head = Regression()
    return Unwrapped(inner, model.tokenizer, _cut(model), head, source=model)


def read_setfit(model: Any) -> Unwrapped:
    """A SetFitModel: the embedding of its body, and the logits of its head.

    Raises:
        UnsupportedModelError: a head that is neither a logistic regression nor SetFit's own.
    """
    body, fitted = model.model_body, model.model_head
    _refuse_prompt(body)
    head, labels, head_reads = _linear_head(fitted)
    names = list(map(str, getattr(model, "labels", None) or labels))
    wrapped = SentenceModel(body, head.to(next(body.parameters()).device), normalize=bool(model.normalize_embeddings))
    wrapped.config = copy.copy(wrapped.config)
    wrapped.config.id2label = dict(enumerate(names))
    wrapped.config.problem_type = None
    return Unwrapped(wrapped, body.tokenizer, _cut(body), head_reads, source=model)


def _linear_head(fitted: Any) -> tuple[nn.Module, list[Any], OutputHead]:
    """A fitted head as a linear layer, its labels, and how its logits are read."""
    if isinstance(fitted, nn.Module) and isinstance(getattr(fitted, "linear", None), nn.Linear):
        linear: Any = fitted.linear
        scale = float(getattr(fitted, "temperature", 1.0)) + float(getattr(fitted, "eps", 0.0))
        reads: OutputHead = MultiLabel() if getattr(fitted, "multitarget", False) else ClassLogits()
        bias = None if linear.bias is None else linear.bias.detach()
        return LinearHead(linear.weight.detach(), bias, scale), list(range(linear.out_features)), reads
    if not (
        hasattr(fitted, "coef_") and hasattr(fitted, "intercept_") and type(fitted).__name__ == "LogisticRegression"
    ):
        raise UnsupportedModelError(
            f"model is a SetFitModel with a head of the class {type(fitted).__name__}; a fitted LogisticRegression or "
            "a SetFitHead is needed."
        )
    weight = torch.as_tensor(fitted.coef_, dtype=torch.float32)
    bias = torch.as_tensor(fitted.intercept_, dtype=torch.float32)
    if weight.shape[0] == 1:  # two classes: sigmoid(z) is the softmax of (-z / 2, z / 2)
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    return LinearHead(weight, bias), list(fitted.classes_), ClassLogits()


def _encoder(body: nn.Module) -> Any:
    """The transformer inside a SentenceTransformer."""
    inner = getattr(body, "transformers_model", None)
    if inner is None:
        first = next(iter(body.children()), None)
        inner = getattr(first, "auto_model", None)
    if not isinstance(inner, nn.Module):
        raise UnsupportedModelError(f"model is a {type(body).__name__} without a transformer of Hugging Face in it.")
    return inner


def _refuse_prompt(model: Any) -> None:
    name = getattr(model, "default_prompt_name", None)
    if name is not None and (getattr(model, "prompts", None) or {}).get(name):
        raise InvalidInputError(
            f"model is a {type(model).__name__} that puts its prompt {name!r} in front of every text, which is not "
            "supported; set its default_prompt_name = None and write the prompt in the texts."
        )


def _cut(model: Any) -> dict[str, Any]:
    """The options of the tokenizer: such models truncate long texts without a warning."""
    limit = getattr(model, "max_seq_length", None) or getattr(model, "max_length", None)
    return {"truncation": True, "max_length": limit} if isinstance(limit, int) and limit < 1_000_000 else {}
