"""Texts of a data set, read one at a time from a list, a `datasets` object, a file, a folder or the Hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from pathlib import Path
from typing import Any

from hf_attn_mi.data.files import FORMATS, NumberedRows, load_folder, load_hub, read_file
from hf_attn_mi.errors import InvalidInputError, shown

# Column names of texts in GLUE, SNLI, SQuAD and similar data sets; pairs before single columns that they contain.
COLUMNS = (
    ("text",),
    ("text_a", "text_b"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "context"),
    ("question", "sentence"),
    ("sentence",),
)
WORD_COLUMNS = ("tokens", "words")  # column names of lists of words
ALLOWED = (
    "a list of texts or pairs of texts, a datasets.Dataset or IterableDataset, a path to "
    f"{', '.join(FORMATS)}, a folder saved by datasets, or a Hub name such as 'name:split'"
)


_RENAME = "Rename one to 'text', or pass a list."


class NoTextColumnError(InvalidInputError):
    """No column of a data set has one of the names that texts have.

    Args:
        names: its columns.
    """

    def __init__(self, names: list[str]) -> None:
        known = ", ".join(" + ".join(columns) for columns in COLUMNS)
        super().__init__(f"dataset has columns {names}; the texts are looked for in {known}. {_RENAME}")
        self.names = names
        self.words = word_column(names)

    def with_advice(self, *, columns: bool = False) -> InvalidInputError:
        """The error for a function that takes `is_split_into_words`: where a column holds words, how to read them.

        Args:
            columns: whether the function takes `columns` as well: how to name the column of the text.
        """
        message = str(self)
        if columns and self.names:
            name = self.names[0]
            naming = f"Name the column of the text: columns={{'text': {name!r}}} (--columns text={name})."
            message = f"{message.removesuffix(_RENAME)}{naming}"
        if self.words is not None:
            message += f" The column {self.words!r} is read with is_split_into_words=True."
        return self if message == str(self) else InvalidInputError(message)


def check_encodable(text: str, name: str) -> None:
    """Refuse a text that cannot be written to a file or tokenized.

    Raises:
        InvalidInputError: a lone surrogate; the message has `name` and the place.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{name} holds the lone surrogate {text[error.start]!r} at character {error.start}, which no UTF-8 text "
            "has: read the source with errors='replace', or pass text.encode('utf-8', 'replace').decode()."
        ) from error


class TextReader:
    """Texts and pairs of texts in the order of the data set, with counts of texts read and skipped.

    Attributes:
        size: upper limit of the number of texts; None if it is not known before reading.
        seen: number of texts read so far.
        empty: number of texts skipped so far, because they are missing or have no visible character.
    """

    def __init__(self, rows: Iterable[Any], text_field: Any, limit: int | None) -> None:
        self.rows, self.limit, self.columns = rows, limit, text_field
        known = rows.size if isinstance(rows, NumberedRows) else len(rows) if isinstance(rows, Sized) else None
        self.size = limit if known is None else known if limit is None else min(known, limit)
        self.seen = self.empty = 0

    def __iter__(self) -> Iterator[str | tuple[str, str]]:
        for number, row in enumerate(self.rows):
            if self.limit is not None and self.seen >= self.limit:
                return
            parts = self._parts(row, number)
            if all(isinstance(part, str) and part.strip() for part in parts):
                for part in parts:
                    check_encodable(part, f"dataset: row {number}")
                self.seen += 1
                yield parts[0] if len(parts) == 1 else (parts[0], parts[1])
            else:
                self.empty += 1

    def _parts(self, row: Any, number: int) -> tuple[Any, ...]:
        """Return the one or two texts of a row; None for a missing one."""
        if isinstance(row, Mapping):
            if self.columns is None:
                self.columns = text_columns(list(row))
            absent = [name for name in self.columns if name not in row]
            if absent:
                raise InvalidInputError(f"dataset: row {number} has no {absent}; its columns are {list(row)}.")
            parts = tuple(row[name] for name in self.columns)
        else:
            parts = tuple(row) if isinstance(row, (list, tuple)) else (row,)
        if len(parts) not in (1, 2) or not all(part is None or isinstance(part, str) for part in parts):
            raise InvalidInputError(
                f"dataset: row {number} must be a text or a pair of texts, not {type(row).__name__}: {shown(row, 80)}."
            )
        return parts


def read_texts_of(
    dataset: Any, *, text_field: str | tuple[str, str] | None = None, limit: int | None = None
) -> TextReader:
    """Return an iterator over the texts and pairs of a data set; no text is kept in memory.

    Args:
        dataset: a list (or any iterable) of texts, of pairs or of rows with columns; a datasets.Dataset or
            IterableDataset; a path to .txt (a text a line), .jsonl, .json, .csv, .tsv (each also as .gz), .arrow or
            .parquet; a folder saved by `datasets`; or a Hub name "name", "name:split", "name/config:split" (split: by
            default "train").
        text_field: column of the text, or two columns of a pair; by default the first of `COLUMNS` that exists.
        limit: maximum number of texts to read.

    Raises:
        InvalidInputError: another kind of data, no such file or column; when rows are read, a row that is not a text.

    Example:
        >>> reader = read_texts_of([{"text": "fine"}, {"text": " "}, {"text": "dull"}])
        >>> list(reader), reader.empty
        (['fine', 'dull'], 1)
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise InvalidInputError(f"limit must be None (everything) or a positive whole number, not {shown(limit)}.")
    if isinstance(dataset, TextReader):
        return TextReader(dataset, None, limit) if limit is not None else dataset
    columns: tuple[str, ...] | None = (text_field,) if isinstance(text_field, str) else text_field
    if columns is not None and not (
        isinstance(columns, list | tuple) and 1 <= len(columns) <= 2 and all(isinstance(name, str) for name in columns)
    ):
        raise InvalidInputError(
            f"text_field must be None, the name of a column or a pair of names, not {shown(text_field)}."
        )
    rows = read_rows(dataset) if isinstance(dataset, (str, Path)) else dataset
    if hasattr(rows, "to_pylist"):  # pyarrow
        rows = rows.to_pylist()
    if isinstance(rows, Mapping):
        keys = list(map(str, rows)) or ["text"]
        raise InvalidInputError(
            f"dataset is a {type(rows).__name__} of {keys}; pass one of these, dataset[{keys[0]!r}]."
        )
    if (
        not isinstance(rows, Iterable)
        or isinstance(rows, (str, bytes))
        or (getattr(rows, "ndim", 1) != 1 and not hasattr(rows, "columns"))
    ):
        raise InvalidInputError(f"dataset must be {ALLOWED}; not {type(rows).__name__}.")
    if hasattr(rows, "columns") and not hasattr(rows, "column_names"):  # a table iterates over the names of its columns
        raise InvalidInputError(
            f"dataset is a {type(rows).__name__} with columns {list(rows.columns)}; pass one column, such as "
            "table['text'], or pairs as list(zip(table['a'], table['b']))."
        )
    names = getattr(rows, "column_names", None)  # datasets: read these columns only
    if isinstance(names, list) and hasattr(rows, "select_columns"):
        columns = text_columns(names) if columns is None else columns
        if set(columns) - set(names):
            raise InvalidInputError(f"text_field {list(columns)} is not in the data; its columns are {names}.")
        numbered = rows if isinstance(rows, NumberedRows) else NumberedRows(rows, "the data set")
        rows = numbered.select_columns(list(columns))
    return TextReader(rows, columns, limit)


def text_columns(names: list[str]) -> tuple[str, ...]:
    """Return the columns of the text or the pair of texts.

    Raises:
        NoTextColumnError: none of the known names is among them.

    Example:
        >>> text_columns(["idx", "premise", "hypothesis", "label"])
        ('premise', 'hypothesis')
    """
    for columns in COLUMNS:
        if set(columns) <= set(names):
            return columns
    raise NoTextColumnError(names)


def word_column(names: Iterable[str]) -> str | None:
    """Return the column that holds lists of words; None if none has one of the usual names.

    Example:
        >>> word_column(["id", "tokens"])
        'tokens'
    """
    known = set(names)
    return next((name for name in WORD_COLUMNS if name in known), None)


def read_rows(name: str | Path) -> Any:
    """Return the rows of a file, of a folder saved by `datasets` or of a Hub data set, with all columns.

    Raises:
        InvalidInputError: there is no data set of this name; when rows are read, content not in the file's format.
    """
    path = Path(name)
    if path.is_dir():
        return load_folder(path)
    if path.is_file():
        return read_file(path)
    if isinstance(name, Path) or any(str(name).removesuffix(".gz").endswith(suffix) for suffix in FORMATS):
        raise InvalidInputError(f"dataset: there is no file or folder {str(name)!r}.")
    return load_hub(name)
