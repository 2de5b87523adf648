"""The texts in which a word contributes most: the largest of a stream, with some characters around the word."""

from __future__ import annotations

import heapq

from hf_attn_mi.results.stored_results import StoredExplanation

EXAMPLES = 3
AROUND = 40  # characters on each side of an example

Examples = list[tuple[float, int, str]]  # (size, negated row, text), a heap


def remember(heap: Examples, size: float, one: StoredExplanation, word: str) -> None:
    """Keep the largest examples.

    Args:
        heap: of those so far.
        size: how large this one is.
        one: the explanation.
        word: the word, in lower case.
    """
    if len(heap) == EXAMPLES and size <= heap[0][0]:
        return
    entry = (size, -one.row, _context(one, word))
    if len(heap) < EXAMPLES:
        heapq.heappush(heap, entry)
    else:
        heapq.heapreplace(heap, entry)


def _context(one: StoredExplanation, word: str) -> str:
    """Some characters around the first occurrence of a word."""
    for word_scores in one.explanation.to_words():
        if word_scores.text.casefold().strip() != word:
            continue
        if (
            word_scores.start is None
            or word_scores.end is None
            or word_scores.sequence is None
            or not one.explanation.texts
        ):
            return word_scores.text
        text = one.explanation.texts[word_scores.sequence]
        start, end = _whole_words(text, word_scores.start, word_scores.end)
        middle = " ".join(text[start:end].split())
        return f"{'...' if start else ''}{middle}{'...' if end < len(text) else ''}"
    return ""


def _whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    """The place of a word with up to `AROUND` characters on each side, cut at blanks where there are any."""
    first, last = max(0, start - AROUND), min(len(text), end + AROUND)
    before = text.find(" ", first, start) if first else -1
    after = text.rfind(" ", end, last) if last < len(text) else -1
    return (first if before < 0 else before + 1), (last if after < 0 else after)


def largest_first(heap: Examples) -> tuple[str, ...]:
    """The different texts of the heap, the largest first."""
    return tuple(dict.fromkeys(text for _, _, text in sorted(heap, reverse=True)))
