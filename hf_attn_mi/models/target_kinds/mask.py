"""The target `mask`: a token in the place of [MASK], for masked language models."""

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
    check_count,
    contrast,
    one_hot_best,
    token_text,
    vocabulary_id,
)


@dataclass(frozen=True)
class Mask:
    """A token in the place of a mask token, for masked language models.

    The explained value is the logit of the token minus the mean of all other logits, the probability the softmax over
    the vocabulary.

    Args:
        word: a word that is one token, or a token id; None for the most probable token. Where the tokenizer has a
            token of the word with the blank in front of it and the mask token includes the blank, this token is meant.
        n: the number of the mask token, from 0.
        among: words or token ids among which the most probable one is taken where no word is named; None for all.

    Raises:
        InvalidInputError: values of the wrong type.

    Example:
        >>> Mask("paris", n=1).n
        1
    """

    word: str | int | None = None
    n: int = 0
    among: tuple[str | int, ...] | None = None
    kind: ClassVar[str] = "mask"

    def __post_init__(self) -> None:
        check_count("mask", "n", self.n)
        if self.word is not None and (isinstance(self.word, bool) or not isinstance(self.word, str | int)):
            raise InvalidInputError(f"target mask: word must be a token or a token id, not {shown(self.word)}.")

    def bind(self, one: EncodedInput, runner: EncoderRunner) -> BoundTarget:
        """See `TargetKind.bind`."""
        ids = one.tensors.get("input_ids", one.tensors.get("inputs"))
        if ids is None or ids.dim() != 1:
            raise InvalidInputError("target mask: the input has no token ids, so no mask token is found in it.")
        runner.require_tokenizer()
        mask_id = runner.mask_token_id
        if mask_id is None:
            raise InvalidInputError("target mask: the tokenizer has no mask token; use token() or next_token().")
        places = (ids == mask_id).nonzero()[:, 0].tolist()
        if self.n >= len(places):
            token = getattr(runner.tokenizer, "mask_token", "[MASK]")
            has = "no mask token" if not places else f"{len(places)} mask tokens (n=0 to {len(places) - 1})"
            raise InvalidInputError(f"target mask(n={self.n}): the input has {has}; write {token} in the text.")
        blank = _takes_blank(one, places[self.n], runner)
        words = () if self.among is None else self.among
        among = [vocabulary_id("mask", each, runner, after_blank=blank) for each in words] or None
        word = None if self.word is None else vocabulary_id("mask", self.word, runner, after_blank=blank)
        return _BoundMask(one, runner, places[self.n], self.n, len(places), word, among)


def _takes_blank(one: EncodedInput, place: int, runner: EncoderRunner) -> bool:
    """Whether a mask token includes the blank in front of it, as in RoBERTa; without a text, all but a first token."""
    added = getattr(runner.tokenizer, "added_tokens_decoder", None) or {}
    if not getattr(added.get(runner.mask_token_id), "lstrip", False):
        return False
    if one.offsets is None or not one.texts or one.sequence_ids is None or one.sequence_ids[place] is None:
        return any(one.special is None or not one.special[i] for i in range(place))
    text, end = one.texts[one.sequence_ids[place] or 0], one.offsets[place][1]
    return text[: end - len(str(runner.tokenizer.mask_token))][-1:].isspace()


@dataclass(frozen=True, eq=False)
class _BoundMask(Bound):
    place: int
    number: int
    count: int
    word: int | None
    among: list[int] | None

    @property
    def anchors(self) -> tuple[int, ...]:
        return (self.place,)

    @property
    def call(self) -> str:
        return call_text("mask", self.word, n=self.number)

    def settle(self, row: OutputRow) -> _BoundMask:
        if self.word is not None:
            return self
        logits = row.token_logits("mask")[row.place(self.place)]
        if self.among is None:
            return replace(self, word=one_hot_best(logits))
        return replace(self, word=self.among[one_hot_best(logits[self.among])])

    def read(self, row: OutputRow) -> TargetReading:
        assert self.word is not None
        logits = row.token_logits("mask")[row.place(self.place)]
        word = vocabulary_id("mask", self.word, self.runner, logits.shape[0])
        value, probability, predicted = contrast(logits, word)
        which = "" if self.count == 1 else f" {self.number}"
        name = f"{token_text(word, self.runner).strip()!r} for mask{which}"
        return TargetReading(value, ExplainedTarget(word, name, probability), predicted)
