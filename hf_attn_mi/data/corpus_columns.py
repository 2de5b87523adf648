"""Which columns of a data set hold the text, the id, the label and the target of a row, and how a row is read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hf_attn_mi.data.files import FailedRow
from hf_attn_mi.data.texts import NoTextColumnError, text_columns, word_column
from hf_attn_mi.errors import InvalidInputError, shown

ROLES = ("text", "text_pair", "id", "label", "target")
_IDS, _LABELS = ("id", "idx", "guid"), ("label", "labels", "gold_label", "gold")
_LONGEST_ID = 200  # characters
_NAMED = 6  # columns that are not read


@dataclass(frozen=True)
class CorpusRow:
    """One row of a data set, as far as it is read.

    Attributes:
        number: its place in the data set, from 0.
        id: the entry of the id column, else the number, as a string.
        item: the text, the pair of texts (tuple) or the words.
        label: the gold label as the data set says it, or its name where the data set names its classes; None without.
        target: the entry of the target column; None without.
        label_number: the gold label where the data set gives a whole number and no names; None else.
    """

    number: int
    id: str
    item: Any
    label: str | None = None
    target: Any = None
    label_number: int | None = None


@dataclass(frozen=True)
class CorpusColumns:
    """The names of the columns that are read.

    Attributes:
        text: one column, or two of a pair; None for rows that are texts themselves.
        id, label, target: None for none.
        classes: names of the classes of the label column, by number; () if the data set does not name them.
    """

    text: tuple[str, ...] | None = None
    id: str | None = None
    label: str | None = None
    target: str | None = None
    classes: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """All columns, each once."""
        return list(dict.fromkeys([*(self.text or ()), *(n for n in (self.id, self.label, self.target) if n)]))

    def to_dict(self) -> dict[str, Any]:
        """JSON data, for the settings of a run."""
        text = None if self.text is None else list(self.text)
        return {"text": text, "id": self.id, "label": self.label, "target": self.target}

    def described(self, names: Sequence[str]) -> str:
        """What is read of the columns of these names, and what is not.

        Example:
            >>> CorpusColumns(("sentence",), label="label").described(["sentence", "label", "stars"])
            "text from 'sentence', gold label from 'label'; not read: 'stars'"
        """
        roles = (("id", self.id), ("gold label", self.label), ("target", self.target))
        parts = [f"text from {' and '.join(map(repr, self.text or ()))}"]
        parts += [f"{role} from {name!r}" for role, name in roles if name is not None]
        unread = [repr(name) for name in names if name not in self.names]
        more = f" and {len(unread) - _NAMED} more" if len(unread) > _NAMED else ""
        gold = "" if self.label is not None else "; no gold label"
        return f"{', '.join(parts)}{gold}" + (f"; not read: {', '.join(unread[:_NAMED])}{more}" if unread else "")

    def read(self, row: Any, number: int) -> CorpusRow:
        """One row.

        Raises:
            InvalidInputError: a row that could not be read, or without the columns; the message names the row.
        """
        if isinstance(row, FailedRow):
            raise row.error
        if not isinstance(row, Mapping):
            if self.text is not None:
                raise InvalidInputError(
                    f"dataset: row {number} is a {type(row).__name__}, not a row with the columns {self.names}: "
                    f"{shown(row, 80)}."
                )
            item = tuple(row) if isinstance(row, list) and len(row) == 2 else row
            return CorpusRow(number, str(number), item)
        if self.text is None:
            raise InvalidInputError(f"dataset: row {number} has columns, the first rows are texts; make them alike.")
        absent = [name for name in self.names if name not in row]
        if absent:
            raise InvalidInputError(f"dataset: row {number} has no {absent}; its columns are {list(row)}.")
        parts = tuple(row[name] for name in self.text)
        for name, part in zip(self.text, parts):
            if _missing(part):
                raise InvalidInputError(f"dataset: row {number} has no text in column {name!r}: it is {shown(part)}.")
        label, label_number = (None, None) if self.label is None else self._label(row[self.label])
        return CorpusRow(
            number,
            self.id_of(row, number),
            parts[0] if len(parts) == 1 else parts,
            label,
            None if self.target is None or _missing(row[self.target]) else row[self.target],
            label_number,
        )

    def id_of(self, row: Any, number: int) -> str:
        """The id of a row, also of one that cannot be read: the entry of the id column, else its number."""
        value = row.get(self.id) if self.id is not None and isinstance(row, Mapping) else None
        return str(number) if _missing(value) else written(value)[:_LONGEST_ID]

    def _label(self, value: Any) -> tuple[str | None, int | None]:
        """The label as text, and as a number where it is one without a name."""
        if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a number of numpy or torch
            value = value.item()
        if _missing(value):
            return None, None
        if isinstance(value, float) and value.is_integer():  # an integer column with gaps, as pandas reads it
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            return written(value), None
        if self.classes:
            return (self.classes[value] if 0 <= value < len(self.classes) else None), None
        return written(value), value


def find_columns(
    columns: Any,
    names: Sequence[str] | None,
    first: Any,
    features: Mapping[str, Any] | None = None,
    *,
    words: bool = False,
) -> CorpusColumns:
    """The columns to read.

    Args:
        columns: None to find them by their names; the column of the text; two columns of a pair; or a mapping from
            "text", "text_pair", "id", "label" and "target" to columns, where None switches one off.
        names: columns of the data set, as far as it names them.
        first: its first row; None if there is none.
        features: the features of a `datasets` object, whose class labels have names.
        words: whether inputs are lists of words; a column "tokens" or "words" then goes before columns of texts.

    Raises:
        InvalidInputError: another kind of argument, or a column that does not exist.

    Example:
        >>> find_columns(None, ["text", "label", "stars"], None)
        CorpusColumns(text=('text',), id=None, label='label', target=None, classes=())
    """
    chosen = _chosen(columns)
    known = list(names) if names is not None else list(map(str, first)) if isinstance(first, Mapping) else None
    if known is None:
        if columns is not None:
            raise InvalidInputError(
                f"columns={shown(columns)}: the rows of this data set are {type(first).__name__}s without columns; "
                "leave columns out."
            )
        return CorpusColumns()
    missing = sorted({name for name in chosen.values() if name is not None} - set(known))
    if missing:
        raise InvalidInputError(f"columns: {missing} are not in the data; its columns are {known}.")
    text = tuple(name for role in ROLES[:2] if (name := chosen.get(role)) is not None) or _usual_columns(known, words)

    def of_role(role: str, usual: tuple[str, ...]) -> str | None:
        return chosen[role] if role in chosen else next((name for name in usual if name in known), None)

    corpus_columns = CorpusColumns(text, of_role("id", _IDS), of_role("label", _LABELS), of_role("target", ()))
    classes = getattr((features or {}).get(corpus_columns.label or ""), "names", None)
    return replace(corpus_columns, classes=tuple(map(str, classes))) if isinstance(classes, list) else corpus_columns


def _usual_columns(names: list[str], words: bool) -> tuple[str, ...]:
    """The columns of the inputs by their names."""
    if words and (column := word_column(names)) is not None:
        return (column,)
    try:
        return text_columns(names)
    except NoTextColumnError as error:
        raise error.with_advice(columns=True) from error


def _chosen(columns: Any) -> dict[str, str | None]:
    """The column of each role that the caller names."""
    if columns is None:
        return {}
    if isinstance(columns, str):
        return {"text": columns}
    if isinstance(columns, list | tuple) and len(columns) == 2 and all(isinstance(name, str) for name in columns):
        return {"text": columns[0], "text_pair": columns[1]}
    good = isinstance(columns, Mapping) and all(
        role in ROLES and (name is None or isinstance(name, str)) for role, name in columns.items()
    )
    if not good or (columns.get("text_pair") is not None and columns.get("text") is None):
        raise InvalidInputError(
            "columns must be None, the column of the text, two columns of a pair, or a dictionary from "
            f"{', '.join(map(repr, ROLES))} to columns (a text_pair needs a text); not {shown(columns)}."
        )
    return dict(columns)


def written(value: Any) -> str:
    """A value as a text that a file can hold."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
