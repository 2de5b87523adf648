"""The target `similarity`: the cosine of two embeddings, for embedding models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.output_heads import ExplainedTarget
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.target_kinds.base import Bound, BoundTarget, OutputRow, TargetReading

OWN = ("sentence_embedding", "text_embeds", "image_embeds")  # the fields of embeddings that models compute
SHOWN = 60  # characters of the other text in names


@dataclass(frozen=True, eq=False)
class Similarity:
    """The cosine similarity of the input's embedding and that of another text, which is kept fixed.

    Args:
        other: a text, a pair of texts, a dict of tensors of one input, or an embedding, (width,). For models of images
            and texts also an image, whatever the input is.
        pooling: how the embedding is made of the token states: "mean" (over the tokens of the attention mask), "cls"
            (the first token), "last" (the last token), "max", or "pooler" (the model's own pooled output). None for the
            model's own embedding where it computes one (sentence-transformers, CLIP with its projection, models that
            return a pooled output and no states), else "mean".

    Raises:
        InvalidInputError: an unknown pooling.

    Example:
        >>> Similarity("A warm film.", pooling="cls").pooling
        'cls'
    """

    other: Any
    pooling: str | None = None
    kind: ClassVar[str] = "similarity"

    def __post_init__(self) -> None:
        if self.pooling is not None and self.pooling not in POOLINGS:
            raise InvalidInputError(
                f"target similarity: pooling must be one of {', '.join(map(repr, POOLINGS))}, not "
                f"{shown(self.pooling)}."
            )

    @property
    def reads(self) -> tuple[str, ...]:
        """What the target reads beside the outputs of a head."""
        return ("states", "pooler") if self.pooling == "pooler" else ("states",)

    def bind(self, one: EncodedInput, runner: EncoderRunner) -> BoundTarget:
        """See `TargetKind.bind`."""
        name = str(getattr(getattr(runner.model, "body", None), "similarity_fn_name", None) or "cosine")
        if name != "cosine":
            raise InvalidInputError(
                f"target similarity is the cosine, but this SentenceTransformer compares embeddings by {name!r}. Set "
                "model.similarity_fn_name = 'cosine', or pass target=function of outputs['sentence_embedding']."
            )
        if isinstance(self.other, Tensor):
            if self.other.dim() != 1 or not self.other.is_floating_point():
                raise InvalidInputError(
                    f"target similarity: an embedding must be a floating-point tensor (width,), not "
                    f"{tuple(self.other.shape)} of {self.other.dtype}."
                )
            other = self.other.detach().clone()  # no tensor of inference mode
            return _BoundSimilarity(one, runner, other, self.pooling, "a given embedding", None)
        embed_other = getattr(runner.model, "embed_other", None)  # towers of models of images and texts
        by_tower: Tensor | None = None if embed_other is None else embed_other(self.other)
        if by_tower is not None:
            name = repr(self.other) if isinstance(self.other, str) else "a given input"
            return _BoundSimilarity(one, runner, by_tower, self.pooling, name, self._words)
        try:
            encoded, single = runner.encode(self.other)
        except InvalidInputError as error:  # it is about the other text, and not about the inputs
            reason = str(error).replace("inputs[0]", "other").replace("inputs ", "other ")
            raise InvalidInputError(f"target similarity: {reason}") from error
        if not single and len(encoded) != 1:
            raise InvalidInputError(f"target similarity: other must be one text, not {len(encoded)}.")
        with runner.session(), torch.no_grad():
            outputs = runner.forward(runner.collate(encoded))
        embedding = embed(OutputRow(outputs, 0, encoded[0]), self.pooling)
        text = " | ".join(encoded[0].texts)
        name = repr(text) if text else "a given input"
        return _BoundSimilarity(one, runner, embedding, self.pooling, name, self._words)

    @property
    def _words(self) -> str | tuple[str, ...] | None:
        """The other text, or pair of texts; None for what a call cannot write."""
        pair = isinstance(self.other, tuple) and all(isinstance(text, str) for text in self.other)
        return self.other if isinstance(self.other, str) or pair else None


@dataclass(frozen=True, eq=False)
class _BoundSimilarity(Bound):
    other: Tensor
    pooling: str | None
    name: str
    words: str | tuple[str, ...] | None

    @property
    def call(self) -> str | None:
        return None if self.words is None else f"similarity({self.words!r}, pooling={self.pooling!r})"

    def read(self, row: OutputRow) -> TargetReading:
        embedding = embed(row, self.pooling)
        if embedding.shape != self.other.shape:
            raise InvalidInputError(
                f"target similarity: the other embedding has {self.other.shape[0]} numbers, that of the input "
                f"{embedding.shape[0]}."
            )
        value = F.cosine_similarity(embedding[None], self.other.to(embedding)[None], dim=1)[0]
        name = self.name if len(self.name) <= SHOWN else f"{self.name[:SHOWN]}...'"
        return TargetReading(value.double(), ExplainedTarget(None, f"similarity to {name}", None))


def embed(row: OutputRow, pooling: str | None = None) -> Tensor:
    """(width,) embedding of one input.

    Args:
        row: outputs of the model.
        pooling: see `Similarity`.

    Raises:
        InvalidInputError: the outputs have no state of each token, or no pooled output.
    """
    if pooling is not None:
        return POOLINGS[pooling](row)
    own = [embedding for name in OWN if (embedding := row.field(name)) is not None]
    if len(own) > 1:
        raise InvalidInputError(
            "target similarity: the model gives an embedding of a text and one of an image. Pass a text or an image "
            "instead of tensors of both, or target=function of the outputs."
        )
    if own:
        return own[0]
    return _pooler(row) if row.field("last_hidden_state") is None else _mean(row)


def _states(row: OutputRow) -> tuple[Tensor, Tensor]:
    """(tokens, width) states and (tokens,) bool of the real tokens."""
    states = row.per_token("similarity", "last_hidden_state", "token_embeddings")
    if states.dim() != 2:
        raise InvalidInputError("target similarity needs states of shape (batch, tokens, width).")
    return states, row.real().to(states.device)


def _mean(row: OutputRow) -> Tensor:
    states, real = _states(row)
    return (states * (real / real.sum()).to(states)[:, None]).sum(0)


def _first(row: OutputRow) -> Tensor:
    states, real = _states(row)
    return states[int(real.nonzero()[0, 0])]


def _last(row: OutputRow) -> Tensor:
    states, real = _states(row)
    return states[int(real.nonzero()[-1, 0])]


def _max(row: OutputRow) -> Tensor:
    states, real = _states(row)
    return states[real].max(0).values


def _pooler(row: OutputRow) -> Tensor:
    pooled = row.field("pooler_output")
    if pooled is None:
        raise InvalidInputError("target similarity: the model has no pooled output; use pooling='mean' or 'cls'.")
    return pooled


POOLINGS: dict[str, Callable[[OutputRow], Tensor]] = {
    "mean": _mean,
    "cls": _first,
    "last": _last,
    "max": _max,
    "pooler": _pooler,
}
