"""Texts drawn from a data set, with the rationales that stand beside them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from hf_attn_mi.data.texts import read_rows, read_texts_of
from hf_attn_mi.errors import InvalidInputError

Item = TypeVar("Item")
Spans = list[tuple[int, int]]


@dataclass(frozen=True)
class Sample:
    """What was drawn from a data set.

    Attributes:
        texts: texts or pairs of texts, in the order of the data set.
        rationales: for each text the character spans of the words a person marked; None where none were asked for.
        found: texts that there were to draw from.
        empty: rows without a text, passed over.
    """

    texts: list[str | tuple[str, str]]
    rationales: list[Spans] | None
    found: int
    empty: int


def draw_texts(data: str, most: int, *, rationales: str | None = None, seed: int = 0) -> Sample:
    """Return at most `most` texts of a data set, drawn at random without repetition.

    Args:
        data: a file, a folder or a Hub name, as `read_texts_of` takes them.
        most: how many, 1 or more.
        rationales: column with 0 or 1 for each word of the column "tokens"; None for texts alone.
        seed: of the draw.

    Raises:
        InvalidInputError: `most` below 1, data that cannot be read, no texts, or rationales that do not fit their words.
    """
    if most < 1:
        raise InvalidInputError(f"--n must be 1 or more, not {most}.")
    if rationales is None:
        reader = read_texts_of(data)
        texts, found = _draw(reader, most, seed)
        sample = Sample(texts, None, found, reader.empty)
    else:
        marked = _Marked(data, rationales)
        pairs, found = _draw(marked, most, seed)
        sample = Sample([text for text, _ in pairs], [spans for _, spans in pairs], found, marked.empty)
    if not sample.texts:
        raise InvalidInputError(f"--data {data}: there is no text in it.")
    return sample


def _draw(items: Iterable[Item], most: int, seed: int) -> tuple[list[Item], int]:
    """At most `most` items in their order, each equally likely, and how many there were (Vitter's algorithm R)."""
    generator, kept, count = random.Random(seed), list[tuple[int, Item]](), 0
    for count, item in enumerate(items, 1):
        if len(kept) < most:
            kept.append((count, item))
        elif (place := generator.randrange(count)) < most:
            kept[place] = (count, item)
    return [item for _, item in sorted(kept, key=lambda numbered: numbered[0])], count


class _Marked:
    """Texts and the spans of their marked words; counts the rows without a word."""

    def __init__(self, data: str, column: str) -> None:
        self.rows, self.column, self.empty = read_rows(data), column, 0

    def __iter__(self) -> Iterator[tuple[str, Spans]]:
        for number, row in enumerate(self.rows):
            absent = [name for name in ("tokens", self.column) if not isinstance(row, Mapping) or name not in row]
            if absent:
                columns = list(row) if isinstance(row, Mapping) else type(row).__name__
                raise InvalidInputError(
                    f"--rationales {self.column}: row {number} of the data has no {absent}, but {columns}; 'tokens' "
                    f"(words) and {self.column!r} (0 or 1 for each of them) are needed."
                )
            words, flags = row["tokens"], row[self.column]
            if not words:
                self.empty += 1
                continue
            yield _marked_text(row.get("text"), words, flags, f"--rationales {self.column}: row {number} of the data")


def _marked_text(text: Any, words: Any, flags: Any, place: str) -> tuple[str, Spans]:
    """The text (by default the words with blanks between them) and the spans of the words with flag 1."""
    if not isinstance(words, list) or not all(isinstance(word, str) and word.strip() for word in words):
        raise InvalidInputError(f"{place}: 'tokens' must be a list of words that are not empty.")
    if not isinstance(flags, list) or len(flags) != len(words) or any(flag not in (0, 1) for flag in flags):
        count = f"{len(flags)} entries" if isinstance(flags, list) else type(flags).__name__
        raise InvalidInputError(f"{place}: 0 or 1 for each of {len(words)} words is needed, not {count}.")
    text = text if isinstance(text, str) and text.strip() else " ".join(words)
    spans, end = [], 0
    for word, flag in zip(words, flags):
        start = len(text) - len(text[end:].lstrip())
        if not text.startswith(word, start):
            raise InvalidInputError(f"{place}: character {start} of its text does not begin the word {word[:40]!r}.")
        end = start + len(word)
        if flag:
            spans.append((start, end))
    return text, spans
