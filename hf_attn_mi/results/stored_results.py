"""`load_results`: the explanations of a run over a data set, read back one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hf_attn_mi.atomic_files import new_file
from hf_attn_mi.data.run_folder import DATA, DamagedRunError, RunFolder
from hf_attn_mi.errors import HfAttnMiError, InvalidInputError, shown
from hf_attn_mi.results.explanation import Explanation
from hf_attn_mi.results.explanation_rows import INFO_KEY, from_row

if TYPE_CHECKING:
    import pandas as pd

BATCH = 200  # rows that are decoded at a time


class StoredExplanation(NamedTuple):
    """An explanation with what the data set says about its row.

    Attributes:
        row: number of the row in the data set.
        id: the entry of the id column, else the number.
        label: the gold label as the data set says it; None without.
        label_name: the class of the model that it names; None where it names none.
        correct: whether the predicted class is the gold label; None where that is not known.
        explanation: the scores.
    """

    row: int
    id: str
    label: str | None
    label_name: str | None
    correct: bool | None
    explanation: Explanation


class StoredResults:
    """The results in the folder of `explain_dataset`: iterating gives one `Explanation` after the other.

    One shard is in memory at a time, in the order of the data set. `with_rows` gives row, id and label too, and
    `of_row` those of one row.

    Args:
        path: the folder.

    Raises:
        InvalidInputError: there is no run in it.
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = RunFolder(path)
        if not (self.folder.path / DATA).is_dir():
            raise InvalidInputError(
                f"path={str(path)!r} is not the folder of a run: explain_dataset(..., output=...) writes one."
            )
        self.shards = tuple(self.folder.shard_numbers())

    @property
    def path(self) -> Path:
        """The folder."""
        return self.folder.path

    @property
    def run(self) -> Mapping[str, Any]:
        """What `run.json` says: settings, rows, and each run with its rate and memory.

        Raises:
            InvalidInputError: the file is missing or damaged; running `explain_dataset` again restores it.
        """
        stored = self.folder.read_run()
        if stored is None:
            raise InvalidInputError(f"{str(self.path)!r} has no run.json; running explain_dataset again restores it.")
        return stored

    @property
    def data(self) -> str | None:
        """The name of the data set, as `run.json` has it; None where it was a list or another object without a name."""
        try:
            stored = self.folder.read_run()
        except DamagedRunError:
            return None
        name = (stored or {}).get("data")
        return name if isinstance(name, str) else None

    @property
    def failed(self) -> int:
        """Number of rows that could not be explained, by the footers of the shards; `errors` has the reasons."""
        return sum(self._info(number).failed for number in self.shards)

    @property
    def missing(self) -> int | None:
        """Number of rows that are in no finished shard; None where it is not known how many rows the data set has."""
        try:
            rows = (self.folder.read_run() or {}).get("rows")
        except DamagedRunError:
            return None
        if not isinstance(rows, int):
            return None
        finished = (self._info(number) for number in self.shards)
        done: int = sum(info.stop - info.start for info in finished)
        return rows - done

    def __repr__(self) -> str:
        try:
            left = f", {self.missing} rows missing" if self.missing else ""
            return f"StoredResults({str(self.path)!r}: {len(self)} explanations, {self.failed} failed rows{left})"
        except InvalidInputError:  # reading says which shard is damaged
            return f"StoredResults({str(self.path)!r}: a shard is damaged)"

    def of_row(self, number: int) -> tuple[StoredExplanation, ...]:
        """The explanations of one row of the data set, one for each of its targets; reads the shard that holds it.

        Args:
            number: of the row, from 0.

        Raises:
            InvalidInputError: the row failed (with the reason), or is in no finished shard.
        """
        self._refuse_other_runs()
        known = type(number) is int
        shard = next((one for one in self.shards if known and self._holds(one, number)), None)
        if shard is None:
            raise InvalidInputError(f"number={shown(number)}: there is no such row in a finished shard of {self!r}.")
        found = tuple(one for one in self._of_shard(shard) if one.row == number)
        if not found:
            reasons = [str(one.get("reason")) for one in self.folder.read_errors(shard) if one.get("row") == number]
            raise InvalidInputError(f"number={number}: this row failed: {'; '.join(reasons)}")
        return found

    def _holds(self, shard: int, number: int) -> bool:
        info = self._info(shard)
        return bool(info.start <= number < info.stop)

    def __len__(self) -> int:
        """Number of explanations, by the footers of the shards."""
        return sum(self._info(number).rows for number in self.shards)

    def __iter__(self) -> Iterator[Explanation]:
        return (one.explanation for one in self.with_rows())

    def with_rows(self) -> Iterator[StoredExplanation]:
        """The explanations with row, id and label."""
        self._refuse_other_runs()
        for number in self.shards:
            yield from self._of_shard(number)

    def _of_shard(self, number: int) -> Iterator[StoredExplanation]:
        table = self.folder.read_shard(number)
        info = json.loads((table.schema.metadata or {}).get(INFO_KEY.encode(), b"{}"))
        for batch in table.to_batches(max_chunksize=BATCH):
            for row in batch.to_pylist():
                yield self._read_row(row, info, number)

    def tables(self, columns: list[str]) -> Iterator[Any]:
        """The shards as tables (pyarrow.Table) with some columns."""
        return (self.folder.read_shard(number, columns) for number in self.shards)

    def errors(self) -> pd.DataFrame:
        """The rows that failed, of all shards, as one pandas table: row, id, error, reason, text."""
        import pandas as pd

        names = ("row", "id", "error", "reason", "text")
        records = [record for number in self.shards for record in self.folder.read_errors(number)]
        return pd.DataFrame({name: [record.get(name) for record in records] for name in names})

    def to_eraser(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the scores of the words in the format of the ERASER benchmark (arXiv 1911.03429), a line a row.

        `docid` is the id of the row; the tokens of the document are the words of the explanation, in `tokens`;
        `soft_rationale_predictions` holds the score of each word.

        Args:
            path: a file that ends in .jsonl.
            overwrite: replace an existing file.

        Raises:
            InvalidInputError: another suffix, a missing folder, or an existing file without `overwrite=True`.
        """
        if not str(path).endswith(".jsonl"):
            raise InvalidInputError(f"path={str(path)!r}: the name must end in .jsonl")
        with new_file(path, overwrite=overwrite) as temporary, open(temporary, "w", encoding="utf-8") as file:
            for one in self.with_rows():
                file.write(json.dumps(_eraser(one), allow_nan=False) + "\n")

    def _read_row(self, row: Mapping[str, Any], info: Mapping[str, Any], number: int) -> StoredExplanation:
        try:
            row_fields = {name: row[name] for name in ("row", "id", "label", "label_name", "correct")}
            return StoredExplanation(**row_fields, explanation=from_row(row, info))
        except (HfAttnMiError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidInputError(
                f"{str(self.folder.shard_path(number))!r} was changed since it was written ({type(error).__name__}: "
                f"{error}). Delete it and run explain_dataset again: only this shard is done."
            ) from error

    def _refuse_other_runs(self) -> None:
        """Refuse shards that were renamed, damaged or written by runs with different settings."""
        first: int | None = None
        for number in self.shards:
            if first is not None and self._info(number).run != self._info(first).run:
                raise InvalidInputError(
                    f"{str(self.folder.shard_path(number))!r} and {str(self.folder.shard_path(first))!r} are of runs "
                    "with different settings, and their scores cannot be read together. Move the wrong one away."
                )
            first = number if first is None else first

    def _info(self, number: int) -> Any:
        stored = self.folder.read_shard_info(number)
        if stored is None:
            raise InvalidInputError(
                f"{str(self.folder.shard_path(number))!r} is damaged, or no shard of this run with this number: run "
                "explain_dataset again, which does only this shard."
            )
        return stored[0]


def load_results(path: str | Path) -> StoredResults:
    """Open the folder that `explain_dataset` wrote.

    Args:
        path: the folder; it may be unfinished.

    Returns:
        `StoredResults`: iterate over it, or see its members for the errors, the run and exports.

    Raises:
        InvalidInputError: there is no run in it; while iterating: a shard is damaged.

    Example:
        >>> for explanation in load_results("reviews"):    # doctest: +SKIP
        ...     print(explanation.top(3))
    """
    return StoredResults(path)


def _eraser(one: StoredExplanation) -> dict[str, Any]:
    words = one.explanation.to_words()
    scores = [word.score for word in words]
    probability = one.explanation.probability
    line: dict[str, Any] = {
        "annotation_id": one.id,
        "rationales": [{"docid": one.id, "soft_rationale_predictions": scores}],
        "tokens": [word.text for word in words],
        "classification": one.explanation.target_name,
    }
    if probability is not None:
        line["classification_scores"] = {one.explanation.target_name: probability}
    return line
