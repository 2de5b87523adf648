"""Rows of a data set from a file, from a folder saved by `datasets`, or from the Hub."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any, TextIO

from hf_attn_mi.errors import InvalidInputError

FORMATS = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".arrow", ".parquet")
HUB_NAME = re.compile(r"(?P<name>[\w.-]+(/[\w.-]+){0,2})(:(?P<split>[\w.]+(\[[\w:%-]+\])?))?")
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # bytes that were read with errors="surrogateescape"
_LONGEST_CELL = 2**31 - 1  # characters of a CSV cell; the csv module refuses more than 131,072 by default


class NumberedRows:
    """The rows of a data set whose errors name the row.

    Args:
        rows: any iterable of rows, such as a `datasets` object.
        name: the name of the data set, for messages.
        unit: what a row is called: "row", counted from 0, or "line", counted from 1.
    """

    def __init__(self, rows: Iterable[Any], name: str, unit: str = "row") -> None:
        self.rows, self.name, self.unit = rows, name, unit
        self.column_names = getattr(rows, "column_names", None)
        self.size = len(rows) if isinstance(rows, Sized) else None

    def select_columns(self, columns: list[str]) -> NumberedRows:
        """Return the rows of a `datasets` object with these columns only."""
        rows: Any = self.rows
        return NumberedRows(rows.select_columns(columns), self.name, self.unit)

    def __iter__(self) -> Iterator[Any]:
        rows, first = iter(self.rows), int(self.unit == "line")
        number = first - 1
        while True:
            number += 1
            try:
                row = next(rows)
            except StopIteration:
                return
            except InvalidInputError:
                raise
            except Exception as error:  # pyarrow, zlib, gzip, csv, json and datasets each have their own
                raise InvalidInputError(
                    f"dataset: {self.unit} {number} of {self.name} cannot be read: {_in_words(error)}."
                ) from error
            yield row


@dataclass(frozen=True)
class FailedRow:
    """A row of a file that cannot be read, while those after it can.

    Attributes:
        error: the reason, with the line or row.
    """

    error: InvalidInputError


@dataclass(frozen=True)
class FileRows:
    """The rows of one text file; each iteration opens the file again."""

    path: Path
    suffix: str

    def __iter__(self) -> Iterator[Any]:
        unit = "line" if self.suffix in (".txt", ".jsonl") else "row"
        return iter(NumberedRows(_readable(self._read()), f"{str(self.path)!r}", unit))

    def tolerant(self) -> Iterator[Any]:
        """The rows, with a `FailedRow` in the place of each one that cannot be read.

        Raises:
            InvalidInputError: the file cannot be read any further.
        """
        unit = "line" if self.suffix in (".txt", ".jsonl") else "row"
        return iter(NumberedRows(self._read(), f"{str(self.path)!r}", unit))

    def count(self, most: int | None = None) -> int:
        """The number of rows, those that cannot be read included; counting ends at `most`.

        Raises:
            InvalidInputError: the file cannot be read to its end.
        """
        if self.suffix not in (".txt", ".jsonl"):
            return sum(1 for _ in islice(self.tolerant(), most))
        opened: Any = gzip.open if self.path.suffix == ".gz" else open
        with opened(self.path, "rt", encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = NumberedRows(file, f"{str(self.path)!r}", "line")
            return sum(1 for _ in islice((line for line in lines if self.suffix == ".txt" or line.strip()), most))

    def _read(self) -> Iterator[Any]:
        opened: Any = gzip.open if self.path.suffix == ".gz" else open
        newline = "" if self.suffix in (".csv", ".tsv") else None  # csv reads line breaks inside quotes itself
        # What is not UTF-8 is kept as lone surrogates until its row is known.
        with opened(self.path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline=newline) as file:
            yield from _ROWS[self.suffix](file)


def _readable(rows: Iterator[Any]) -> Iterator[Any]:
    """The rows up to the first that cannot be read, which raises its error."""
    for row in rows:
        if isinstance(row, FailedRow):
            raise row.error
        yield row


def _lines(file: TextIO) -> Iterator[Any]:
    for number, line in enumerate(file, 1):
        try:
            yield _in_utf8(line).rstrip("\r\n")
        except ValueError as error:
            yield _failed(f"line {number} of {file.name!r} cannot be read: {_in_words(error)}.", error)


def _json_lines(file: TextIO) -> Iterator[Any]:
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                row = json.loads(_in_utf8(line))
            except (ValueError, RecursionError) as error:
                yield _failed(f"line {number} of {file.name!r} is not JSON: {_in_words(error)}.", error)
            else:
                yield row


def _failed(message: str, cause: Exception) -> FailedRow:
    error = InvalidInputError(f"dataset: {message}")
    error.__cause__ = cause
    return FailedRow(error)


def _json(file: TextIO) -> Iterator[Any]:
    try:
        rows = json.loads(_in_utf8(file.read()))
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"dataset: {file.name!r} is not JSON: {_in_words(error)}.") from error
    if not isinstance(rows, list):
        raise InvalidInputError(
            f"dataset: {file.name!r} holds a {type(rows).__name__}; a list of texts or rows is needed."
        )
    yield from rows


def _table(file: TextIO, **form: Any) -> Iterator[Any]:
    reader = csv.DictReader(file, **form)
    for number in count():
        limit = csv.field_size_limit(_LONGEST_CELL)  # of the whole process, so only while a row is read
        try:
            row = next(reader, None)
        finally:
            csv.field_size_limit(limit)
        names = reader.fieldnames or ()
        _in_utf8("".join(names))
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidInputError(
                f"dataset: {file.name!r} has several columns of the name {twice[0]!r}; rename them."
            )
        if row is None:
            return
        if None in row or None in row.values():
            more = "more" if None in row else "fewer"
            message = (
                f"dataset: the row before line {reader.line_num + 1} of {file.name!r} has {more} cells than the "
                f"{len(names)} columns; a quotation mark may be missing."
            )
            yield FailedRow(InvalidInputError(message))
            continue
        try:
            for cell in row.values():
                _in_utf8(cell)
        except ValueError as error:
            yield _failed(f"row {number} of {file.name!r} cannot be read: {_in_words(error)}.", error)
        else:
            yield row


def _in_utf8(text: str) -> str:
    """Return a text as it is.

    Raises:
        ValueError: it was read from bytes that are not UTF-8.
    """
    match = _NOT_UTF8.search(text)
    if match:
        raise ValueError(f"byte 0x{ord(match[0]) - 0xDC00:02x} is not UTF-8")
    return text


def _in_words(error: Exception) -> str:
    """What is wrong with a row, in one sentence."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    text = str(error).partition("; use sys.set_int_max_str_digits")[0].rstrip(".")
    name = type(error).__name__
    return text if name in ("ValueError", "Error", "error") else f"{name}: {text}"


_ROWS: dict[str, Any] = {
    ".txt": _lines,
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _table,
    ".tsv": lambda file: _table(file, delimiter="\t", quoting=csv.QUOTE_NONE),
}


def read_file(path: Path) -> Iterable[Any]:
    """Return the rows of a file; a text file whose name also ends in .gz is decompressed while reading.

    Raises:
        InvalidInputError: another suffix, or (when rows are read) content that is not in this format; the message names
            the row.
    """
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix in (".arrow", ".parquet"):
        return NumberedRows(_load_table(path, suffix), repr(str(path)))
    if suffix not in _ROWS:
        raise InvalidInputError(f"dataset: {str(path)!r} must end in one of {', '.join(FORMATS)} (or these with .gz).")
    return FileRows(path, suffix)


def _load_table(path: Path, suffix: str) -> Any:
    """The `datasets` object of an Arrow or Parquet file."""
    from datasets import Dataset

    try:
        if suffix == ".arrow":
            return Dataset.from_file(str(path))
        import pyarrow.parquet

        return Dataset(pyarrow.parquet.read_table(path, memory_map=True))
    except Exception as error:
        kind = "Arrow file of datasets" if suffix == ".arrow" else "Parquet file"
        raise InvalidInputError(f"dataset: {str(path)!r} is no {kind}: {_in_words(error)}.") from error


def load_folder(path: Path) -> Any:
    """Return the data set that `Dataset.save_to_disk` wrote.

    Raises:
        InvalidInputError: the folder contains no data set, or a damaged one.
    """
    from datasets import load_from_disk

    try:
        loaded = load_from_disk(str(path))
    except Exception as error:
        raise InvalidInputError(
            f"dataset: the folder {str(path)!r} was not saved by datasets (save_to_disk), or is damaged: "
            f"{_in_words(error)}."
        ) from error
    return NumberedRows(one_split(loaded, str(path), None), repr(str(path)))


def load_hub(name: str) -> Any:
    """Return the data set "name", "name:split" or "name/config:split" of the Hub.

    A name of two parts is tried as owner/name first, then as name/config.

    Raises:
        InvalidInputError: a name in another form, or a data set that cannot be loaded.
    """
    from datasets import load_dataset

    match = HUB_NAME.fullmatch(name)
    if match is None:
        raise InvalidInputError(
            f"dataset {name[:80]!r} is neither a file, a folder nor a Hub name; pass a list of texts."
        )
    path, split = match["name"], match["split"]
    owner, _, config = path.rpartition("/")
    candidates = [(owner, config)] if path.count("/") == 2 else [(path, None)] + [(owner, config)] * path.count("/")
    errors = []
    for repository, chosen in candidates:
        try:
            loaded = load_dataset(repository, chosen, split=split)
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")
        else:
            return one_split(loaded, name, "train")
    raise InvalidInputError(
        f"dataset {name!r} is no file here and could not be loaded from the Hub ({'; '.join(errors)})."
    )


def one_split(data: Any, name: str, default: str | None) -> Any:
    """Return the split `default`, or the only one.

    Raises:
        InvalidInputError: there are several splits, and none of them is `default`.

    Example:
        >>> one_split({"test": ["a text"]}, "name", "train")
        ['a text']
    """
    if not isinstance(data, Mapping):
        return data
    if default in data:
        return data[default]
    if len(data) == 1:
        return next(iter(data.values()))
    splits = [str(split) for split in data]
    raise InvalidInputError(
        f"dataset {name!r} has the splits {splits}; name one: load it and pass data[{splits[0]!r}]."
    )
