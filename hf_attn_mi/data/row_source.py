"""The rows of any data set in runs of a fixed size, read once from the start and never all at the same time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from hf_attn_mi.data.corpus_columns import CorpusColumns
from hf_attn_mi.data.files import FailedRow, FileRows, NumberedRows, read_file
from hf_attn_mi.data.texts import ALLOWED, read_rows
from hf_attn_mi.errors import InvalidInputError, shown

_PARQUET_ROWS = 1000  # rows of a Parquet file that are decoded at a time
_GENERATION = 10_000  # rows that are read at a time for the digest of a data set


class RowSource:
    """The rows of a data set, in runs of a fixed size.

    A container with a length and slices (a list, a datasets.Dataset) is read by slices, everything else from its start.
    At most one run is in memory.

    Args:
        dataset: as in `read_texts_of`.

    Attributes:
        size: number of rows; None if it is not known before they are read. See `count`.
        path: the path of the file that is read; None for other containers.
        name: of the file, the folder or the Hub data set; None for other containers.
        column_names: as far as the container names them.

    Raises:
        InvalidInputError: no data set.

    Example:
        >>> source = RowSource(["a", "b", "c"])
        >>> source.size, [(number, rows) for number, rows in source.runs(2)]
        (3, [(0, ['a', 'b']), (1, ['c'])])
    """

    def __init__(self, dataset: Any) -> None:
        rows: Any = dataset
        self.path: Path | None = None
        self.name: str | None = None
        if isinstance(dataset, str | Path):
            path = Path(dataset)
            self.name = path.resolve().name if path.exists() else str(dataset)
            self.path = path if path.is_file() else None
            rows = _file_rows(path) if path.is_file() else read_rows(dataset)
        rows = rows.rows if isinstance(rows, NumberedRows) else rows
        if isinstance(rows, Mapping):
            raise InvalidInputError(
                f"dataset is a {type(rows).__name__} of {list(map(str, rows))}; pass one of its entries, such as "
                "dataset['train']."
            )
        if hasattr(rows, "with_format") and (getattr(rows, "format", None) or {}).get("type") != "custom":
            rows = rows.with_format(None)  # plain values, not arrays or tables; a transform of the caller stays
        if hasattr(rows, "iloc") and hasattr(rows, "columns"):
            rows = _FrameRows(rows)
        elif hasattr(rows, "slice") and hasattr(rows, "to_pylist"):
            rows = _ArrowRows(rows)
        if not isinstance(rows, Iterable) or isinstance(rows, str | bytes):
            raise InvalidInputError(f"dataset must be {ALLOWED}; not {type(rows).__name__}: {shown(rows, 80)}.")
        self._rows: Any = rows
        names = getattr(rows, "column_names", None)
        self.column_names = [str(name) for name in names] if isinstance(names, list) else None
        self._sliced = hasattr(rows, "__len__") and hasattr(rows, "__getitem__")
        count = len(rows) if isinstance(rows, Sized) else getattr(rows, "size", None)
        self.size: int | None = count if isinstance(count, int) else None
        self._stream: Iterator[Any] | None = None if self._sliced or not isinstance(rows, Iterator) else iter(rows)

    def count(self, limit: int | None = None) -> int | None:
        """The number of rows, at most `limit`; None for what can only be read once. Files are read for it."""
        if isinstance(self._rows, FileRows):
            self.size = self._rows.count(limit)
        return self.size if self.size is None or limit is None else min(self.size, limit)

    @property
    def features(self) -> Mapping[str, Any]:
        """The features of a `datasets` object by the name of the column; empty for other containers."""
        features = getattr(self._rows, "features", None)
        return features if isinstance(features, Mapping) else {}

    def first_row(self) -> Any:
        """The first row that can be read; None if there is none."""
        for row in self._head(100):
            if not isinstance(row, FailedRow):
                return row
        return None

    def sample(self, count: int) -> list[tuple[int, Any]]:
        """At most `count` rows with their numbers: evenly spaced where rows can be read by number, else the first."""
        if self._sliced and self.size is not None and self.size > count:
            places = [i * self.size // count for i in range(count)]
            return [(place, self._slice(place, place + 1)[0]) for place in places]
        return list(enumerate(self._head(count)))

    def select(self, columns: CorpusColumns) -> None:
        """Read only these columns from now on, where the container can leave the others out."""
        if hasattr(self._rows, "select_columns") and self.column_names is not None:
            self._rows = self._rows.select_columns([name for name in columns.names if name in self.column_names])

    def runs(
        self, size: int, limit: int | None = None, wanted: Callable[[int], bool] = lambda number: True
    ) -> Iterator[tuple[int, list[Any]]]:
        """The numbered runs of `size` rows; the last one may be shorter.

        Args:
            size: rows of a run.
            limit: maximum number of rows of all runs together.
            wanted: called once with the number of each run, in order; a run that is not wanted is left out.
        """
        if self._sliced and self.size is not None:
            count = self.size if limit is None else min(self.size, limit)
            for number, start in enumerate(range(0, count, size)):
                if wanted(number):
                    yield number, self._slice(start, min(start + size, count))
            return
        stream, number = islice(self._iterate(), limit), 0
        while True:
            first = list(islice(stream, 1))
            if not first:
                return
            rest = islice(stream, size - 1)
            if wanted(number):
                yield number, [*first, *rest]
            else:
                for _ in rest:
                    pass
            number += 1

    def digest(self, read: Callable[[Any, int], object], limit: int | None) -> str | None:
        """SHA-256 of the data: of the bytes of a file, or of what `read` takes from each row.

        None for a container that can only be read once, or whose length is not known: its runs have digests of
        their own.
        """
        if self.path is not None:
            with open(self.path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        if not self._sliced:
            return None
        total = hashlib.sha256()
        for number, rows in self.runs(_GENERATION, limit):
            total.update(digest_of(read(row, number * _GENERATION + place) for place, row in enumerate(rows)))
        return total.hexdigest()

    def _slice(self, start: int, stop: int) -> list[Any]:
        part = self._rows[start:stop]
        if hasattr(part, "to_pylist"):
            return list(part.to_pylist())
        if isinstance(part, Mapping):  # datasets gives columns
            names = list(part)
            return [dict(zip(names, values)) for values in zip(*part.values())]
        return list(part)

    def _iterate(self) -> Iterator[Any]:
        """The rows from the start; of an iterator those that are left."""
        if self._stream is not None:
            return self._stream
        return self._rows.tolerant() if isinstance(self._rows, FileRows) else iter(self._rows)

    def _head(self, count: int) -> list[Any]:
        if self._sliced:
            return self._slice(0, min(count, self.size or 0))
        head = list(islice(self._iterate(), count))
        if self._stream is not None:  # an iterator: put them back
            self._stream = chain(head, self._stream)
        return head


class _ParquetRows:
    """The rows of a Parquet file, decoded a few at a time."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet

        self.path = path
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                self.size, self.column_names = file.metadata.num_rows, list(file.schema_arrow.names)
                self.features = _class_labels(file.schema_arrow)
        except Exception as error:
            raise InvalidInputError(f"dataset: {str(path)!r} is no Parquet file: {error}") from error
        self.chosen = list(self.column_names)

    def select_columns(self, names: list[str]) -> _ParquetRows:
        """The same rows with fewer columns."""
        self.chosen = names
        return self

    def __iter__(self) -> Iterator[Any]:
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(self.path) as file:
            batches = file.iter_batches(batch_size=_PARQUET_ROWS, columns=self.chosen)
            while True:
                try:
                    batch = next(batches, None)
                except Exception as error:
                    raise InvalidInputError(f"dataset: {str(self.path)!r} is damaged: {error}") from error
                if batch is None:
                    return
                yield from batch.to_pylist()


class _FrameRows:
    """The rows of a pandas table."""

    def __init__(self, frame: Any) -> None:
        self.frame, self.column_names = frame, [str(name) for name in frame.columns]

    def __len__(self) -> int:
        return len(self.frame)

    def __iter__(self) -> Iterator[Any]:
        return iter(self[0 : len(self)])

    def __getitem__(self, part: slice) -> list[Any]:
        records = self.frame.iloc[part].to_dict("records")
        return [{str(name): value for name, value in record.items()} for record in records]


class _ArrowRows:
    """The rows of a pyarrow.Table, or the entries of a column of one."""

    def __init__(self, table: Any) -> None:
        self.table, self.column_names = table, getattr(table, "column_names", None)
        self.features = _class_labels(getattr(table, "schema", None))

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Any]:
        return iter(self[0 : len(self)])

    def __getitem__(self, part: slice) -> list[Any]:
        rows: list[Any] = self.table.slice(part.start, part.stop - part.start).to_pylist()
        return rows


@dataclass(frozen=True)
class _ClassLabel:
    """The names of the classes of a column, as `datasets.ClassLabel` has them."""

    names: list[str]


def _class_labels(schema: Any) -> dict[str, _ClassLabel]:
    """The columns of class numbers whose names `datasets` wrote into an Arrow schema."""
    try:
        features = json.loads((getattr(schema, "metadata", None) or {})[b"huggingface"])["info"]["features"]
        labels = {name: one["names"] for name, one in features.items() if one.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
    return {name: _ClassLabel(names) for name, names in labels.items() if isinstance(names, list)}


def _file_rows(path: Path) -> Any:
    return _ParquetRows(path) if path.suffix.lower() == ".parquet" else read_file(path)


def digest_of(rows: Iterable[object]) -> bytes:
    """SHA-256 of some rows: of the `repr` of plain values, so that equal rows give equal digests.

    Example:
        >>> digest_of(["a", ("b", 1)]) == digest_of(iter(["a", ("b", 1)]))
        True
    """
    total = hashlib.sha256()
    for row in rows:
        total.update(repr(row).encode("utf-8", "backslashreplace"))
        total.update(b"\0")
    return total.digest()


def as_rows(batch: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """The rows of a batch of columns, as `datasets.Dataset.map(batched=True)` and Ray pass it.

    Example:
        >>> as_rows({"text": ["a", "b"], "label": [0, 1]})
        [{'text': 'a', 'label': 0}, {'text': 'b', 'label': 1}]
    """
    columns = {name: values.tolist() if hasattr(values, "tolist") else values for name, values in batch.items()}
    return [dict(zip(columns, values)) for values in zip(*columns.values())]
