"""The characters and the words of the input that some tokens stand for."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.results.explanation import Explanation, Word
from hf_attn_mi.results.token_set import Span


def spans_of(one: EncodedInput, tokens: Sequence[int]) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
    """A span for each of these tokens, and the words that hold one of them; cut as `Explanation` cuts its words."""
    count = one.token_count
    whole = Explanation(
        tokens=one.tokens or tuple(map(str, range(count))),
        scores=torch.zeros(count, dtype=torch.float32),
        target=None,
        target_name="",
        probability=None,
        texts=one.texts,
        offsets=one.offsets,
        sequence_ids=one.sequence_ids,
        word_ids=one.word_ids,
        special=one.special or (False,) * count,
    )
    single = Explanation(
        tokens=whole.tokens,
        scores=whole.scores,
        target=None,
        target_name="",
        probability=None,
        texts=whole.texts,
        offsets=whole.offsets,
        sequence_ids=whole.sequence_ids,
        word_ids=None,
        special=whole.special,
    )
    chosen = set(tokens)
    spans = [_span(word) for word in single.to_words() if chosen.issuperset(word.tokens)]
    return tuple(spans), tuple(_span(word) for word in whole.to_words() if chosen.intersection(word.tokens))


def _span(word: Word) -> Span:
    return Span(word.text, word.start, word.end, word.sequence, word.tokens)
