"""Which tokens make up a word: the word segments of Unicode (UAX #29), and tokens in scripts without blanks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import regex

Offsets = Sequence[tuple[int, int]]


@cache
def _patterns() -> tuple[regex.Pattern[str], regex.Pattern[str]]:
    """Boundaries of word segments; and segments of scripts that put no blanks between words.

    UAX #29 cuts these scripts into single characters, but for runs of Katakana. `LB=SA` is Thai, Lao, Khmer, Myanmar
    and other scripts of South East Asia.
    """
    without_blanks = r"[\p{Katakana}\p{Hiragana}\p{Han}\p{LB=SA}\u30fc]+"  # the last one: the mark of a long vowel
    return regex.compile(r"\b", regex.V1 | regex.WORD), regex.compile(without_blanks)


def word_segments(text: str) -> list[tuple[int, int]]:
    """(start, end) of the word segments of a text by UAX #29, those without a visible character left out.

    Punctuation is a segment of its own. A run of a script without blanks is cut into single characters.

    Example:
        >>> text = "It aren't, 3.5"
        >>> [text[start:end] for start, end in word_segments(text)]
        ['It', "aren't", ',', '3.5']
    """
    boundary, without_blanks = _patterns()
    places = sorted({0, len(text), *(match.start() for match in boundary.finditer(text))})
    segments = []
    for start, end in pairwise(places):
        segment = text[start:end]
        if without_blanks.fullmatch(segment):
            segments += [(start + m.start(), start + m.end()) for m in regex.finditer(r"\X", segment)]
        elif segment.strip():
            segments.append((start, end))
    return segments


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without blanks at its ends; as it is where nothing else is in it.

    Example:
        >>> trimmed("I love it", 1, 6)
        (2, 6)
    """
    inner = text[start:end]
    if not inner.strip():
        return start, end
    return end - len(inner.lstrip()), start + len(inner.rstrip())


def number_words(
    text: str, offsets: Offsets, tokens: Sequence[int], tokenizer_words: Sequence[int | None] | None = None
) -> dict[int, int]:
    """The number of the word of each token of one text, in reading order.

    Tokens that share a segment belong to one word, and a token that spans several segments keeps them together. A token
    without a visible character (the blank before a word) belongs to the next one where the tokenizer counts both to
    one word, else it is a word of its own.

    Args:
        text: the text.
        offsets: (start, end) characters of every token of the input.
        tokens: indices of the tokens of this text, in reading order.
        tokenizer_words: the tokenizer's own number of the word of every token of the input.

    Returns:
        index of a token -> number of its word.

    Example:
        >>> number_words("aren't we", [(0, 4), (4, 5), (5, 6), (6, 9)], [0, 1, 2, 3])
        {0: 0, 1: 0, 2: 0, 3: 1}
    """
    segment_of = [-1] * len(text)
    for number, (start, end) in enumerate(word_segments(text)):
        segment_of[start:end] = [number] * (end - start)
    numbers: dict[int, int] = {}
    blank: list[int] = []  # tokens without a visible character since the last visible one
    last, reached = -1, -1  # the last word, and the last segment that belongs to it
    for token in tokens:
        start, end = offsets[token]
        touched = {segment for segment in segment_of[start:end] if segment >= 0}
        if not touched:
            blank.append(token)
            continue
        continued = min(touched) <= reached
        apart = [] if continued else [other for other in blank if not _same_word(other, token, tokenizer_words)]
        numbers |= {other: last + 1 + place for place, other in enumerate(apart)}
        last += 0 if continued else len(apart) + 1
        numbers |= {other: last for other in [*blank, token] if other not in numbers}
        blank, reached = [], max(reached, *touched)
    return numbers | {other: last + 1 + place for place, other in enumerate(blank)}


def _same_word(left: int, right: int, tokenizer_words: Sequence[int | None] | None) -> bool:
    if tokenizer_words is None or tokenizer_words[left] is None:
        return False
    return tokenizer_words[left] == tokenizer_words[right]
