"""The texts that a command works on: those of the command line, or a sample of a data set with its rationales."""

from __future__ import annotations

import codecs
import random
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from hf_attn_mi.cli.loading import names_missing_path
from hf_attn_mi.cli.output import complain
from hf_attn_mi.errors import InvalidInputError, counted, shown

Item = TypeVar("Item")
Words = list[str]
Text = str | tuple[str, str] | Words | tuple[Words, Words]
Spans = list[tuple[int, int]]


def read_texts(
    texts: list[str] | None, file: Path | None, pair: str | None, *, is_split_into_words: bool = False
) -> list[Text]:
    """Return the texts of the command line, of --file and of standard input, in this order; pairs with --pair.

    Standard input is read for the text "-", and also if nothing else is named and it is not a terminal.

    Args:
        texts, file, pair: what the user wrote.
        is_split_into_words: return the words of each text, which blanks separate; those of a table may be lists.

    Raises:
        InvalidInputError: a file that cannot be read, or no text at all.
    """
    for number, text in enumerate(texts or (), 1):
        _check_argument(text, f"TEXT {number}")
    _check_argument(pair or "", "--pair")
    lines: list[Text] = [text for text in texts or () if text != "-"]
    if file is not None:
        if not file.exists():
            raise InvalidInputError(f"--file {file}: there is no such file.")
        if file.is_dir():
            raise InvalidInputError(f"--file {file}: it is a folder; name a file.")
        try:
            lines += _texts_of_file(file, is_split_into_words)
        except OSError as error:
            raise InvalidInputError(
                f"--file {file}: {error}; a UTF-8 file with one text on each line is needed."
            ) from error
    if "-" in (texts or ()) or (not texts and file is None and not (sys.stdin and sys.stdin.isatty())):
        lines += _lines(_read_stdin(), "standard input")
    if not lines:
        raise InvalidInputError("no text: pass TEXT, --file FILE, or lines on standard input.")
    if pair is not None and any(isinstance(text, tuple) for text in lines):
        raise InvalidInputError("--pair: the rows of --file are pairs already.")
    if is_split_into_words:
        lines = [_split(text) for text in lines]
    if pair is None:
        return lines
    second: Any = _split(pair) if is_split_into_words else pair
    return [(text, second) for text in lines]  # type: ignore[misc]


def _split(text: Text) -> Text:
    """The words of a text or of both texts of a pair; lists of words as they are."""
    if isinstance(text, tuple):
        first, second = map(_split, text)
        return (first, second)  # type: ignore[return-value]
    return text.split() if isinstance(text, str) else text


TABLE_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".arrow", ".parquet")
TEXT_SUFFIXES = (".txt", "", ".text", ".md", ".log")


def _texts_of_file(file: Path, is_split_into_words: bool) -> list[Text]:
    """The texts or pairs of a file: by its suffix, one a line where it has none that is known."""
    suffix = Path(file.name.removesuffix(".gz")).suffix.lower()
    if suffix not in (*TABLE_SUFFIXES, *TEXT_SUFFIXES) or (file.name.endswith(".gz") and suffix in TEXT_SUFFIXES[2:]):
        raise InvalidInputError(
            f"--file {file}: files of the suffix {suffix!r} are not read; rows are read from "
            f"{', '.join(TABLE_SUFFIXES)}, and one text on each line from .txt or a file without a suffix."
        )
    if suffix in TABLE_SUFFIXES or file.name.endswith(".gz"):
        from hf_attn_mi.data import NoTextColumnError, read_rows, read_texts_of

        if is_split_into_words and (lists := _lists_of_words(read_rows(file), file)):
            return lists
        reader = read_texts_of(str(file))
        try:
            texts: list[Text] = list(reader)
        except NoTextColumnError as error:
            raise error.with_advice() from error
        if reader.empty:
            count = f"{counted(reader.empty, 'row')} without a text {'was' if reader.empty == 1 else 'were'}"
            complain(f"--file {file}: {count} left out; the others keep their order.", "warning: ")
        return texts
    return list(_lines(file.read_bytes(), f"--file {file}"))


def _lists_of_words(rows: Iterable[object], file: Path) -> list[Text]:
    """The lists of words in a column of a table; [] where its rows have no column for them.

    Raises:
        InvalidInputError: a row without a list of words, though the first one has a column for it.
    """
    from hf_attn_mi.data import word_column

    lists: list[Text] = []
    column: str | None = None
    for number, row in enumerate(rows):
        column = column or (word_column(row) if isinstance(row, Mapping) else None)
        if column is None:
            return []
        lists.append(_words_of(row, column, f"--file {file}: row {number}"))
    return lists


def _words_of(row: object, column: str, place: str) -> Words:
    """The list of words in this column of a row.

    Raises:
        InvalidInputError: there is none.
    """
    words: Any = row[column] if isinstance(row, Mapping) and column in row else None
    words = words.tolist() if hasattr(words, "tolist") else words
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise InvalidInputError(f"{place}: {column!r} must be a list of one or more words, not {shown(words, 80)}.")
    return words


def _read_stdin() -> bytes:
    if sys.stdin is None:
        raise InvalidInputError("standard input is closed: pass TEXT or --file FILE.")
    buffer = getattr(sys.stdin, "buffer", None)
    return sys.stdin.read().encode("utf-8", "surrogatepass") if buffer is None else bytes(buffer.read())


def _lines(content: bytes, place: str) -> list[str]:
    """The lines of a UTF-8 file; blank ones are left out, with a warning: no model says anything about them.

    Raises:
        InvalidInputError: a line is not UTF-8.
    """
    lines, blank = [], list[int]()
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        try:
            text = line.decode("utf-8").rstrip("\r")  # not splitlines(), which would also cut at U+2028
        except UnicodeDecodeError as error:
            raise InvalidInputError(
                f"{place}: line {number}: {error}; UTF-8 with one text on each line is needed."
            ) from error
        if "\0" in text:
            raise InvalidInputError(f"{place}: line {number} holds a zero byte: this is no file of texts.")
        if text.strip():
            lines.append(text)
        else:
            blank.append(number)
    if content.endswith(b"\n"):  # what follows the last line break is no line
        blank = blank[:-1]
    if blank and lines:  # if there is no text at all, the caller raises an error
        count = f"{counted(len(blank), 'blank line')} {'was' if len(blank) == 1 else 'were'}"
        complain(f"{place}: {count} left out, the first is line {blank[0]}; the others keep their order.", "warning: ")
    return lines


def _check_argument(text: str, place: str) -> None:
    """Refuse an argument with bytes that are not UTF-8, which Python represents as lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"{place}: character {error.start} is not UTF-8; pass text in UTF-8.") from error


@dataclass(frozen=True)
class Sample:
    """Texts drawn from a data set.

    Attributes:
        texts: texts or pairs of texts, or lists of words, in the order of the data set.
        rationales: for each text the character spans of the words that a person marked; None without --rationales.
        available: texts in the data set.
        empty: rows without a text, which were skipped.
    """

    texts: list[Text]
    rationales: list[Spans] | None
    available: int
    empty: int


def check_data(data: str) -> None:
    """Refuse a path that does not exist, which would otherwise be looked for on the Hub.

    Raises:
        InvalidInputError: there is nothing at this path.
    """
    if names_missing_path(data, parts=3):
        raise InvalidInputError(f"--data {data}: there is no file or folder of this name.")


def draw_texts(
    data: str, count: int, *, rationales: str | None = None, is_split_into_words: bool = False, seed: int = 0
) -> Sample:
    """Return at most `count` texts of a data set, drawn at random without repetition.

    Args:
        data: a file, a folder or a Hub name, as `read_texts_of` takes them.
        count: how many, 1 or more.
        rationales: column with 0 or 1 for each word of the column "tokens"; None for texts alone.
        is_split_into_words: return the words of each text, as `read_texts` does.
        seed: the random seed for the draw.

    Raises:
        InvalidInputError: `count` below 1, data that cannot be read, no texts, or rationales that do not fit the words.
    """
    from hf_attn_mi.data import NoTextColumnError, read_texts_of

    if count < 1:
        raise InvalidInputError(f"--n must be 1 or more, not {count}.")
    check_data(data)
    if rationales is None:
        reader: Any = _RowsOfWords(data) if is_split_into_words else read_texts_of(data)
        try:
            texts, available = _draw(reader, count, seed)
        except NoTextColumnError as error:
            raise error.with_advice() from error
        sample = Sample(texts, None, available, reader.empty)
    else:
        rows = _RowsWithRationales(data, rationales, words=is_split_into_words)
        pairs, available = _draw(rows, count, seed)
        sample = Sample([text for text, _ in pairs], [spans for _, spans in pairs], available, rows.empty)
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


class _RowsOfWords:
    """The words of each row: a list in the column of words, else those of its text; counts the rows without a word."""

    def __init__(self, data: str) -> None:
        self.data, self.empty = data, 0

    def __iter__(self) -> Iterator[Text]:
        from hf_attn_mi.data import read_rows, read_texts_of, word_column

        rows: Iterator[object] = iter(read_rows(self.data))
        first = next(rows, None)
        column = word_column(first) if isinstance(first, Mapping) else None
        if column is None:
            reader = read_texts_of(self.data)
            for text in reader:
                self.empty = reader.empty
                yield _split(text)
            self.empty = reader.empty
            return
        for number, row in enumerate(chain([first], rows)):
            words: Any = row.get(column, 0) if isinstance(row, Mapping) else 0
            if words is None or (hasattr(words, "__len__") and len(words) == 0):
                self.empty += 1
                continue
            yield _words_of(row, column, f"--data {self.data}: row {number}")


class _RowsWithRationales:
    """The texts of a data set, or their words, with the spans of the marked words; counts the rows without a word."""

    def __init__(self, data: str, column: str, *, words: bool = False) -> None:
        from hf_attn_mi.data import read_rows

        self.rows: Iterable[object] = read_rows(data)
        self.column, self.words, self.empty = column, words, 0

    def __iter__(self) -> Iterator[tuple[Text, Spans]]:
        for number, row in enumerate(self.rows):
            place = f"--rationales {self.column}: row {number} of the data"
            columns = list(row) if isinstance(row, Mapping) else type(row).__name__
            absent = [name for name in ("tokens", self.column) if not isinstance(row, Mapping) or name not in row]
            if absent or not isinstance(row, Mapping):
                raise InvalidInputError(
                    f"{place} has no {absent}, but {columns}; 'tokens' (words) and {self.column!r} (0 or 1 for each of "
                    "them) are needed."
                )
            words, flags = row["tokens"], row[self.column]
            if not words:
                self.empty += 1
                continue
            text, spans = _text_and_spans(None if self.words else row.get("text"), words, flags, place)
            yield (list(words) if self.words else text), spans


def _text_and_spans(text: object, words: object, flags: object, place: str) -> tuple[str, Spans]:
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
