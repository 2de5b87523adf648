"""The targets `answer`, `answer_start` and `answer_end`: where the answer stands, for question answering."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
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
    check_text,
    softmax_at,
)
from hf_attn_mi.models.target_kinds.places import locate, real_ordinary, text_of

MOST_TOKENS = 64  # tokens of the best answer span at most
NAMES = {"answer": "answer", "answer_start": "start of answer", "answer_end": "end of answer"}
STEP = 1_000_003  # encodes a pair of positions as one number


@dataclass(frozen=True)
class Answer:
    """The span of the answer, for extractive question answering.

    The explained value is the start logit of its first token plus the end logit of its last; the probability is the
    product of the two softmax probabilities over all tokens of the input but padding.

    Args:
        text: the answer as it stands in the context; None for the span with the largest sum of start and end logit, of
            at most 64 tokens of the context.
        occurrence: the number of its occurrence in the context, from 0.
        start, end: first and last token of the span, instead of a text.

    Raises:
        InvalidInputError: values of the wrong type.

    Example:
        >>> Answer("Jim Henson").text
        'Jim Henson'
    """

    text: str | None = None
    occurrence: int = 0
    start: int | None = None
    end: int | None = None
    kind: ClassVar[str] = "answer"

    def __post_init__(self) -> None:
        check_text("answer", "text", self.text, optional=True)
        check_count("answer", "occurrence", self.occurrence)
        if (self.start is None) != (self.end is None) or (self.start is not None and self.text is not None):
            raise InvalidInputError("target answer: pass a text, or both start= and end=, the places of two tokens.")

    def bind(self, one: EncodedInput, runner: EncoderRunner) -> BoundTarget:
        """See `TargetKind.bind`."""
        return _bind("answer", one, runner, self.text, self.occurrence, self.start, self.end)


@dataclass(frozen=True)
class AnswerStart:
    """The start of the answer; the explained value is the start logit, the probability its softmax over all tokens.

    Args:
        text: the answer, or how it begins; None for the start of the best span, as in `Answer`.
        occurrence: the number of its occurrence in the context, from 0.
        position: the position of the token, instead of a text.
    """

    text: str | None = None
    occurrence: int = 0
    position: int | None = None
    kind: ClassVar[str] = "answer_start"

    def __post_init__(self) -> None:
        check_text("answer_start", "text", self.text, optional=True)
        check_count("answer_start", "occurrence", self.occurrence)

    def bind(self, one: EncodedInput, runner: EncoderRunner) -> BoundTarget:
        """See `TargetKind.bind`."""
        return _bind("answer_start", one, runner, self.text, self.occurrence, self.position, self.position)


@dataclass(frozen=True)
class AnswerEnd:
    """The end of the answer; the explained value is the end logit, the probability its softmax over all tokens.

    Args:
        text: the answer, or how it ends; None for the end of the best span, as in `Answer`.
        occurrence: the number of its occurrence in the context, from 0.
        position: the position of the token, instead of a text.
    """

    text: str | None = None
    occurrence: int = 0
    position: int | None = None
    kind: ClassVar[str] = "answer_end"

    def __post_init__(self) -> None:
        check_text("answer_end", "text", self.text, optional=True)
        check_count("answer_end", "occurrence", self.occurrence)

    def bind(self, one: EncodedInput, runner: EncoderRunner) -> BoundTarget:
        """See `TargetKind.bind`."""
        return _bind("answer_end", one, runner, self.text, self.occurrence, self.position, self.position)


def _bind(
    kind: str,
    one: EncodedInput,
    runner: EncoderRunner,
    text: str | None,
    occurrence: int,
    start: int | None,
    end: int | None,
) -> BoundTarget:
    if text is not None:
        context = len(one.texts) - 1 if one.texts else None
        places = locate(kind, one, word=text, occurrence=occurrence, sequence=context, tokenizer=runner.tokenizer)
        return _BoundSpan(one, runner, kind, (places[0], places[-1]))
    if start is None or end is None:
        return _BoundSpan(one, runner, kind, None)
    first, last = (locate(kind, one, position=place)[0] for place in (start, end))
    if last < first:
        raise InvalidInputError(f"target {kind}: the end, token {last}, stands before the start, token {first}.")
    return _BoundSpan(one, runner, kind, (first, last))


@dataclass(frozen=True, eq=False)
class _BoundSpan(Bound):
    kind: str
    span: tuple[int, int] | None

    @property
    def anchors(self) -> tuple[int, ...]:
        if self.span is None:
            return ()
        start, end = self.span
        return {"answer_start": (start,), "answer_end": (end,)}.get(self.kind, tuple(sorted({start, end})))

    @property
    def call(self) -> str:
        if self.span is None:
            return call_text(self.kind)
        start, end = self.span
        if len(self.anchors) == 1 and self.kind != "answer":
            return call_text(self.kind, position=self.anchors[0])
        return call_text(self.kind, start=start, end=end)

    def settle(self, row: OutputRow) -> _BoundSpan:
        if self.span is not None:
            return self
        return replace(self, span=_best_span(row, self.kind))

    def read(self, row: OutputRow) -> TargetReading:
        assert self.span is not None
        starts, ends = _logits(row, self.kind)
        start, end = self.span
        sides = []
        if self.kind != "answer_end":
            sides.append((starts, row.place(start)))
        if self.kind != "answer_start":
            sides.append((ends, row.place(end)))
        value = torch.stack([logits[place].double() for logits, place in sides]).sum()
        probability = 1.0
        real = row.real()
        real[[place for _, place in sides]] = True
        for logits, place in sides:
            probability *= softmax_at(logits, place, real)
        best = [int(logits.detach().cpu().masked_fill(~real, -torch.inf).argmax()) for logits, _ in sides]
        prediction = tuple(map(row.origin, best))
        text = text_of(self.one, range(start, end + 1), self.runner.tokenizer)
        explained = ExplainedTarget(None, f"{NAMES[self.kind]} {text!r}", probability)
        return TargetReading(value, explained, sum(place * STEP**i for i, place in enumerate(prediction)))


def _logits(row: OutputRow, kind: str) -> tuple[Tensor, Tensor]:
    """(tokens,) start and end logits without padding."""
    starts, ends = row.per_token(kind, "start_logits"), row.per_token(kind, "end_logits")
    if starts.dim() != 1 or ends.dim() != 1:
        raise InvalidInputError(
            f"target {kind} needs one start and one end logit for each token; this model gives its best few only."
        )
    return starts, ends


def _best_span(row: OutputRow, kind: str) -> tuple[int, int]:
    """The span of the context with the largest sum of start and end logit."""
    starts, ends = (logits.detach().double() for logits in _logits(row, kind))
    one = row.one
    allowed = torch.zeros(one.token_count, dtype=torch.bool)
    allowed[real_ordinary(one)] = True
    if one.sequence_ids is not None and 1 in one.sequence_ids:  # the question is the first text
        allowed &= torch.tensor([sequence == 1 for sequence in one.sequence_ids])
    if not bool(allowed.any()):
        raise InvalidInputError(f"target {kind}: the context has no tokens.")
    sums = starts[:, None] + ends[None, :]
    inside = allowed[:, None] & allowed[None, :] & torch.ones_like(sums, dtype=torch.bool).triu().tril(MOST_TOKENS - 1)
    best = int(sums.cpu().masked_fill(~inside, -torch.inf).argmax())
    return best // one.token_count, best % one.token_count
