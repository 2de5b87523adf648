"""`DatasetRun`: what `explain_dataset` did, or in a dry run would do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from hf_attn_mi.errors import InvalidInputError, counted
from hf_attn_mi.results.document import Block, Facts, Heading
from hf_attn_mi.results.plots.dataset_runs import draw_progress
from hf_attn_mi.results.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MEBIBYTE = 2**20


@dataclass(frozen=True, eq=False, repr=False)
class DatasetRun(Record):
    """What a run over a data set has done; of a dry run an estimate.

    Attributes:
        output: the folder.
        run_id: identifier of the run.
        rows: rows of the data set; None if the run ended before that was known.
        failed: rows with an error, in the whole folder.
        shards: finished shards of the folder.
        missing: shards that are not finished; None if that is not known.
        done: rows that this run did, all processes together; of a dry run those that a run would do.
        seconds: duration of this run; of a dry run the estimate for all missing rows.
        peak_memory: bytes, the largest of one process; of a dry run that of the sample, a lower bound.
        size: bytes of the finished shards; of a dry run the estimate.
        processes: number of processes.
        dry_run: whether nothing was written, and these are estimates.
        stopped: whether a signal ended the run before the last shard.
        info: model, method, versions and other facts.

    Example:
        >>> run = DatasetRun("out", "1f2e", 2000, 1, 2, 0, 2000, 10.0, 2**30, 2**20, 1)
        >>> run.rate
        200.0
    """

    TYPE: ClassVar[str] = "hf_attn_mi.DatasetRun"
    NOUN: ClassVar[str] = "run over a data set"

    output: str
    run_id: str
    rows: int | None
    failed: int
    shards: int
    missing: int | None
    done: int
    seconds: float
    peak_memory: int
    size: int
    processes: int
    dry_run: bool = False
    stopped: bool = False
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float | None:
        """Rows a second of this run; None if it did none."""
        return self.done / self.seconds if self.done and self.seconds else None

    @property
    def complete(self) -> bool:
        """Whether every row is in a finished shard."""
        return self.missing == 0 and not self.dry_run

    def _check(self) -> None:
        counts = ("rows", "failed", "shards", "missing", "done", "peak_memory", "size", "processes")
        for name in counts:
            value = getattr(self, name)
            if value is not None and value < 0:
                raise InvalidInputError(f"{name} must be 0 or more, got {value}")
        if not 0 <= self.seconds < math.inf:
            raise InvalidInputError(f"seconds must be a finite number of 0 or more, got {self.seconds}")

    def _blocks(self) -> list[Block]:
        details = {key: str(self.info[key]) for key in ("model", "method") if self.info.get(key) is not None}
        rows = "an unknown number of rows" if self.rows is None else counted(self.rows, "row")
        processes = counted(self.processes, "process")
        if self.dry_run:
            rate = "" if self.rate is None else f" at {_rough(self.rate)} rows/s in {processes}"
            left = "an unknown number of shards" if self.missing is None else counted(self.missing, "shard")
            return [
                Heading(f"Dry run: {rows}", details),
                Facts(
                    [
                        f"To do: {left}; {self.shards:,} {'is' if self.shards == 1 else 'are'} finished.",
                        *self._columns_read(),
                        f"Estimate from a sample: about {duration(self.seconds)}{rate}, {_bytes(self.size)} on the "
                        f"disk. Memory a process: more than {_bytes(self.peak_memory)}, which the sample took.",
                        *self._warnings(),
                    ]
                ),
            ]
        state = "complete" if self.complete else "stopped by a signal" if self.stopped else "not complete"
        rate = "nothing to do" if self.rate is None else f"{counted(self.done, 'row')} in {duration(self.seconds)}"
        rate += "" if self.rate is None else f", {self.rate:,.4g} rows/s in {processes}"
        verb = "is" if self.missing == 1 else "are"
        left = f"{counted(self.missing, 'shard')} {verb} missing: run the same command again. " if self.missing else ""
        return [
            Heading(f"{rows}, {state}", details),
            Facts(
                [
                    f"{self.output}: {counted(self.shards, 'shard')}, {_bytes(self.size)}. {left}".rstrip(),
                    f"This run ({self.run_id}): {rate}; peak memory {_bytes(self.peak_memory)} a process.",
                    f"{counted(self.failed, 'row')} failed; the reasons are in {self.output}/errors."
                    if self.failed
                    else "No row failed.",
                    *self._columns_read(),
                    *self._warnings(),
                ]
            ),
        ]

    def _columns_read(self) -> list[str]:
        columns = self.info.get("columns")
        return [f"Columns: {columns}."] if columns else []

    def _warnings(self) -> list[str]:
        return [f"Warning: {text}" for text in self.info.get("warnings", ())]

    def _plots(self) -> dict[str, Callable[[Axes | None], Figure]]:
        return {"progress": lambda ax: draw_progress(self, ax)}

    def _columns(self) -> dict[str, list[Any]]:
        names = ("rows", "failed", "shards", "missing", "done", "seconds", "rate", "peak_memory", "size", "processes")
        return {name: [getattr(self, name)] for name in names}

    def _summary(self) -> dict[str, object]:
        return {
            "output": self.output,
            "rows": self.rows,
            "failed": self.failed,
            "shards": self.shards,
            "missing": self.missing,
            "dry_run": self.dry_run,
        }


def duration(seconds: float) -> str:
    """A duration for readers.

    Example:
        >>> duration(4.21), duration(75), duration(7260)
        ('4.2 s', '1 min 15 s', '2 h 01 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _rough(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def _bytes(size: int) -> str:
    if size < _MEBIBYTE:
        return f"{size / 1024:,.1f} KiB"
    return f"{size / _MEBIBYTE:,.1f} MiB" if size < 1024 * _MEBIBYTE else f"{size / 1024 / _MEBIBYTE:,.2f} GiB"
