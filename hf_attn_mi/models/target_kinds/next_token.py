"""The target `next_token`: the token that a causal language model predicts after the input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.output_heads import ExplainedTarget
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.target_kinds.base import (
    Bound,
    BoundTarget,
    OutputRow,
    TargetReading,
    call_text,
    contrast,
    one_hot_best,
    token_text,
    vocabulary_id,
)


@dataclass(frozen=True)
class NextToken:
    """The token after the last one, for causal language models.

    The explained value is the logit of the token minus the mean of all other logits, the probability the softmax over
    the vocabulary. The last token of the input, whose output is read, stays where tokens are removed.

    Args:
        word: a word that is one token, as it follows the text (" Paris" with its space where the tokenizer keeps it),
            or a token id; None for the most probable token.

    Raises:
        InvalidInputError: a value of the wrong type.

    Example:
        >>> NextToken(" Paris").word
        ' Paris'
    """

    word: str | int | None = None
    kind: ClassVar[str] = "next_token"

    def __post_init__(self) -> None:
        if self.word is not None and (isinstance(self.word, bool) or not isinstance(self.word, str | int)):
            raise InvalidInputError(f"target next_token: word must be a token or a token id, not {shown(self.word)}.")

    def bind(self, one: EncodedInput, runner: EncoderRunner) -> BoundTarget:
        """See `TargetKind.bind`."""
        if getattr(runner.config, "is_encoder_decoder", False):
            raise InvalidInputError(
                f"target next_token: {runner.class_name} is an encoder-decoder; use generated('...'), the text that "
                "its decoder writes."
            )
        mask = one.tensors.get("attention_mask")
        real = range(one.token_count) if mask is None or mask.dim() != 1 else mask.nonzero()[:, 0].tolist()
        if not len(real):
            raise InvalidInputError("target next_token: the input has no tokens.")
        word = None if self.word is None else vocabulary_id("next_token", self.word, runner)
        return _BoundNextToken(one, runner, real[-1], word)


@dataclass(frozen=True, eq=False)
class _BoundNextToken(Bound):
    place: int
    word: int | None

    @property
    def anchors(self) -> tuple[int, ...]:
        return (self.place,)

    @property
    def call(self) -> str:
        return call_text("next_token", self.word)

    def settle(self, row: OutputRow) -> _BoundNextToken:
        if self.word is not None:
            return self
        return replace(self, word=one_hot_best(row.token_logits("next_token")[row.place(self.place)]))

    def read(self, row: OutputRow) -> TargetReading:
        assert self.word is not None
        logits = row.token_logits("next_token")[row.place(self.place)]
        word = vocabulary_id("next_token", self.word, self.runner, logits.shape[0])
        value, probability, predicted = contrast(logits, word)
        name = f"next token {token_text(word, self.runner)!r}"
        return TargetReading(value, ExplainedTarget(word, name, probability), predicted)
