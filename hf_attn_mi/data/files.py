"""Rows of a data set from a file, from a folder saved by `datasets`, or from the Hub."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from hf_attn_mi.errors import InvalidInputError

FORMATS = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".arrow")
HUB_NAME = re.compile(r"(?P<name>[\w.-]+(/[\w.-]+){0,2})(:(?P<split>[\w.]+(\[[\w:%-]+\])?))?")


@dataclass(frozen=True)
class FileRows:
    """The rows of one text file; each iteration opens the file again."""

    path: Path
    suffix: str

    def __iter__(self) -> Iterator[Any]:
        opened: Any = gzip.open if self.path.suffix == ".gz" else open
        try:
            lines = "" if self.suffix in (".csv", ".tsv") else None  # csv reads line breaks inside quotes itself
            with opened(self.path, "rt", encoding="utf-8-sig", newline=lines) as file:
                yield from _ROWS[self.suffix](file)
        except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, csv.Error, json.JSONDecodeError) as error:
            raise InvalidInputError(
                f"dataset: {str(self.path)!r} is no {self.suffix} file in UTF-8: {error}."
            ) from error


def _lines(file: TextIO) -> Iterator[str]:
    for line in file:
        yield line.rstrip("\r\n")


def _json_lines(file: TextIO) -> Iterator[Any]:
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise InvalidInputError(f"dataset: line {number} of {file.name!r} is not JSON: {error}.") from error


def _json(file: TextIO) -> Iterator[Any]:
    rows = json.load(file)
    if not isinstance(rows, list):
        raise InvalidInputError(
            f"dataset: {file.name!r} holds a {type(rows).__name__}; a list of texts or rows is needed."
        )
    yield from rows


_ROWS: dict[str, Any] = {
    ".txt": _lines,
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": csv.DictReader,
    ".tsv": lambda file: csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE),
}


def read_file(path: Path) -> Iterable[Any]:
    """Return the rows of a file; one whose name also ends in .gz is decompressed while reading.

    Raises:
        InvalidInputError: another suffix, or (when rows are read) content that is not in this format.
    """
    suffix = Path(path.name.removesuffix(".gz")).suffix
    if suffix == ".arrow":
        from datasets import Dataset

        try:
            rows: Iterable[Any] = Dataset.from_file(str(path))
        except Exception as error:
            raise InvalidInputError(f"dataset: {str(path)!r} is no Arrow file of datasets: {error}.") from error
        return rows
    if suffix not in _ROWS:
        raise InvalidInputError(f"dataset: {str(path)!r} must end in one of {', '.join(FORMATS)} (or these with .gz).")
    return FileRows(path, suffix)


def load_folder(path: Path) -> Any:
    """Return the data set that `Dataset.save_to_disk` wrote.

    Raises:
        InvalidInputError: the folder contains no data set.
    """
    from datasets import load_from_disk

    try:
        return one_split(load_from_disk(str(path)), str(path), None)
    except FileNotFoundError as error:
        raise InvalidInputError(
            f"dataset: the folder {str(path)!r} was not saved by datasets (save_to_disk)."
        ) from error


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
        InvalidInputError: several splits, and none of them is `default`.

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
