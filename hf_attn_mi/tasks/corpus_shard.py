"""One shard of a run over a data set: its rows explained, as a table, with the errors of the rows that failed."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_attn_mi.data.corpus_columns import CorpusColumns, CorpusRow, written
from hf_attn_mi.data.files import FailedRow
from hf_attn_mi.data.row_source import digest_of
from hf_attn_mi.data.run_folder import ShardInfo
from hf_attn_mi.errors import HfAttnMiError, InvalidInputError, shown
from hf_attn_mi.models.encoded_input import FailedInput
from hf_attn_mi.models.labels import label_names
from hf_attn_mi.results.explanation import Explanation
from hf_attn_mi.results.explanation_rows import INFO_KEY, common_info, schema, to_columns, to_table
from hf_attn_mi.tasks.batch_explainer import BatchExplainer

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment,unused-ignore]

_PLACE = re.compile(r"\binput(?:s\[(\d+)\]| (\d+)\b)")  # how messages name an input of a list
_LONGEST_TEXT = 500  # characters of a text in the errors file


class StopNowError(Exception):
    """Raised to leave a shard that is not finished."""


@dataclass(frozen=True)
class ShardResult:
    """A shard that is ready to be written.

    Attributes:
        table: a pyarrow.Table, a row an explanation, in the order of the data set.
        errors: one record for each row that failed.
        first_error: the error of the first of them; None without.
        none_explained: whether there are rows and all of them failed.
        info: the footer.
    """

    table: Any
    errors: list[dict[str, Any]]
    first_error: HfAttnMiError | None
    none_explained: bool
    info: ShardInfo


class ShardExplainer:
    """Explains the rows of shards.

    Args:
        explainer: explains lists of inputs.
        columns: of the data set.
        run: identifier of the settings.
        errors: "raise" or "skip".
        progress: called with the number of rows after each batch; may raise `StopNowError`.
    """

    def __init__(
        self,
        explainer: BatchExplainer,
        columns: CorpusColumns,
        run: str,
        *,
        errors: str = "skip",
        progress: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.explainer, self.columns, self.run = explainer, columns, run
        self.errors, self.progress = errors, progress
        self.names = label_names(explainer.runner.config)
        problem = getattr(explainer.runner.config, "problem_type", None)
        self.has_classes = problem != "regression" and len(self.names) > 1
        self.one_class = self.has_classes and problem != "multi_label_classification"

    def explain(self, number: int, start: int, rows: Sequence[Any]) -> ShardResult:
        """Explain the rows of one shard.

        Args:
            number: of the shard.
            start: number of its first row in the data set.
            rows: as the data set gives them.

        Raises:
            HfAttnMiError: of a row, with errors="raise"; the message names the row.
            StopNowError: `progress` raised it.
        """
        started = time.perf_counter()
        read, failures = self._read(start, rows)
        digest = _digest(read)
        tables: list[Any] = []
        common: dict[str, Any] = {}
        for batch in self._batches(read):
            good: list[tuple[CorpusRow, Explanation, int]] = []
            for one, answer in batch:
                if isinstance(answer, FailedInput):
                    failures[one.number] = FailedInput(answer.texts, renamed(answer.error, one.number))
                    self._refuse(failures[one.number].error)
                else:
                    good += [(one, explanation, place) for place, explanation in enumerate(answer)]
            if good:
                common = common or common_info(good[0][1])
                tables.append(self._table(good, common))
            self.progress(len(batch))
        self.progress(len(rows) - len(read))
        table = _sorted(tables).replace_schema_metadata({INFO_KEY: json.dumps(common)})
        errors = [self._record(place, failures[place], rows[place - start]) for place in sorted(failures)]
        statistics = {"seconds": time.perf_counter() - started, "peak_memory": float(peak_memory())}
        info = ShardInfo(
            number=number,
            start=start,
            stop=start + len(rows),
            rows=table.num_rows,
            failed=len(errors),
            digest=digest,
            run=self.run,
            statistics=statistics,
        )
        first = failures[min(failures)].error if failures else None
        return ShardResult(table, errors, first, not table.num_rows and bool(errors), info)

    def digest(self, start: int, rows: Sequence[Any]) -> str:
        """SHA-256 of what is read of these rows."""
        return _digest([one for one, _ in _each_row(self.columns, start, rows) if one is not None])

    def _read(self, start: int, rows: Sequence[Any]) -> tuple[list[CorpusRow], dict[int, FailedInput]]:
        """The rows that can be read, and the failures of the others by their number."""
        read, failures = list[CorpusRow](), dict[int, FailedInput]()
        for number, (one, error) in enumerate(_each_row(self.columns, start, rows), start):
            if one is not None:
                read.append(one)
            elif error is not None:
                self._refuse(error)
                failures[number] = FailedInput((), error)
        return read, failures

    def _batches(self, read: Sequence[CorpusRow]) -> Iterator[list[tuple[CorpusRow, list[Explanation] | FailedInput]]]:
        items = [one.item for one in read]
        targets = [one.target for one in read] if self.columns.target is not None else None
        for batch in self.explainer.explain_each(items, targets) if items else ():
            yield [(read[place], answer) for place, answer in batch]

    def _refuse(self, error: HfAttnMiError) -> None:
        if self.errors == "raise":
            raise error

    def _table(self, good: Sequence[tuple[CorpusRow, Explanation, int]], common: Mapping[str, Any]) -> Any:
        """The table of some explanations, with the row of each."""
        columns = to_columns([explanation for _, explanation, _ in good], common)
        columns["warnings"] = [
            [_renamed(text, one.number) for text in texts] for (one, _, _), texts in zip(good, columns["warnings"])
        ]
        columns |= {
            "row": [one.number for one, _, _ in good],
            "place": [place for _, _, place in good],
            "id": [one.id for one, _, _ in good],
            "label": [one.label for one, _, _ in good],
            "label_name": [self._label_name(one, explanation) for one, explanation, _ in good],
            "correct": [self._correct(one, explanation) for one, explanation, _ in good],
        }
        return to_table(columns)

    def _record(self, number: int, failed: FailedInput, row: Any) -> dict[str, Any]:
        """A line of the errors file."""
        text = " | ".join(failed.texts) if failed.texts else "" if isinstance(row, FailedRow) else shown(row)
        return {
            "row": number,
            "id": self.columns.id_of(row, number),
            "error": type(failed.error).__name__,
            "reason": written(str(failed.error)),
            "text": written(text[:_LONGEST_TEXT]),
        }

    def _class(self, one: CorpusRow, explanation: Explanation) -> int | None:
        """The class of the model that the gold label names; None where the explained target is no class of the input.

        The target of a token, a mask or an answer has another name than the class of its number.
        """
        if one.label is None or explanation.target is None or not self.has_classes:
            return None
        of_input = explanation.target_name == self.names.get(explanation.target)
        return class_of(one.label, self.names, one.label_number) if of_input else None

    def _label_name(self, one: CorpusRow, explanation: Explanation) -> str | None:
        """The name of the class of the model that the gold label names."""
        number = self._class(one, explanation)
        return None if number is None else self.names[number]

    def _correct(self, one: CorpusRow, explanation: Explanation) -> bool | None:
        """Whether the predicted class is the gold label; None where the model predicts no single class."""
        options = self.explainer.options
        predicted = options.target is None and options.targets is None and self.columns.target is None
        number = self._class(one, explanation)
        if number is None or explanation.target is None or not predicted or not self.one_class:
            return None
        return number == explanation.target


def _each_row(
    columns: CorpusColumns, start: int, rows: Sequence[Any]
) -> Iterator[tuple[CorpusRow | None, InvalidInputError | None]]:
    """Each row, or why it cannot be read."""
    for number, row in enumerate(rows, start):
        try:
            yield columns.read(row, number), None
        except InvalidInputError as error:
            yield None, error


def _digest(rows: Sequence[CorpusRow]) -> str:
    return digest_of((one.number, one.id, one.item, one.label, one.target) for one in rows).hex()


def class_of(label: str, names: Mapping[int, str], number: int | None = None) -> int | None:
    """The number of the class that a label of a data set names; None if it names none.

    A whole number of the data set is the number of a class. A text is a name as the model writes it, in other letter
    case where that is unique; or a number, where no class has a number for its name.

    Args:
        label: as the data set says it.
        names: of the classes of the model.
        number: the label, where the data set gives a whole number without a name.

    Example:
        >>> class_of("Positive", {0: "negative", 1: "positive"}), class_of("0", {0: "negative", 1: "positive"})
        (1, 0)
        >>> stars = {0: "1", 1: "2", 2: "3"}
        >>> class_of("1", stars), class_of("1", stars, 1), class_of("0", stars), class_of("0", stars, 0)
        (0, 1, None, 0)
    """
    if number is not None:
        return number if number in names else None
    exact = [number for number, name in names.items() if name == label]
    loose = [number for number, name in names.items() if name.lower() == label.lower()]
    matches = exact or loose
    if len(matches) == 1:
        return matches[0]
    numbered = _is_number(label) and not any(_is_number(name) for name in names.values())
    return int(label) if numbered and int(label) in names else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def renamed(error: HfAttnMiError, number: int) -> HfAttnMiError:
    """The same error with a message that names the row of the data set."""
    message = str(error)
    if _PLACE.search(message):
        return type(error)(_renamed(message, number))
    return error


def _renamed(text: str, number: int) -> str:
    return _PLACE.sub(f"row {number}", text)


def _sorted(tables: Sequence[Any]) -> Any:
    """One table in the order of the data set."""
    import pyarrow as pa

    if not tables:
        return schema().empty_table()
    together = pa.concat_tables(tables).combine_chunks()
    return together.sort_by([("row", "ascending"), ("place", "ascending")])


def peak_memory() -> int:
    """The most memory that this process has had, in bytes; 0 where the system does not say (Windows)."""
    if resource is None:
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
