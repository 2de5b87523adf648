"""The work of one process in a run over a data set: its share of the missing shards."""

from __future__ import annotations

import logging
import time
from typing import Any

from hf_attn_mi.data.corpus_columns import CorpusColumns
from hf_attn_mi.data.row_source import RowSource
from hf_attn_mi.data.run_folder import RunFolder
from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError, counted
from hf_attn_mi.models.memory import give_back_memory
from hf_attn_mi.results.dataset_run import duration
from hf_attn_mi.tasks.batch_explainer import BatchExplainer
from hf_attn_mi.tasks.corpus_plan import CorpusPlan
from hf_attn_mi.tasks.corpus_progress import Progress
from hf_attn_mi.tasks.corpus_shard import ShardExplainer, ShardResult, StopNowError
from hf_attn_mi.tasks.interruption import StopRequest
from hf_attn_mi.tasks.processes import Processes

LOGGER = logging.getLogger("hf_attn_mi")
NOTICED = 1.0  # seconds: where a stopped run needs longer to end, a message states the expected time
GRACE = 15.0  # seconds: a shard that is finished sooner is finished after a request to stop


class CorpusRun:
    """The share of one process in the missing shards.

    The missing shards are dealt in turn to the processes. The share of one that dies is done by the next run.

    Args:
        folder: where shards are written.
        plan: the state of the folder, the same in all processes.
        explainer: explains lists of inputs.
        source: the data set.
        columns: of the data set.
        processes: this process and how many there are.
        stop: noted signals.
        errors: "raise" or "skip".
        limit: maximum number of rows to read.

    Attributes:
        done: rows that this process has written.
        rows: rows of the data set; None until they are known.
        stopped: whether a signal ended the work before the last shard.
    """

    def __init__(
        self,
        folder: RunFolder,
        plan: CorpusPlan,
        explainer: BatchExplainer,
        source: RowSource,
        columns: CorpusColumns,
        processes: Processes,
        stop: StopRequest,
        *,
        errors: str,
        limit: int | None,
    ) -> None:
        self.folder, self.plan, self.source = folder, plan, source
        self.processes, self.stop, self.limit = processes, stop, limit
        self.shard = ShardExplainer(explainer, columns, plan.settings_id, errors=errors, progress=self._progress)
        self.done, self.rows, self.stopped = 0, plan.rows, False
        self._turn, self._mine = 0, set[int]()  # missing shards so far, and those of this process
        self._begun, self._size, self._in_shard = 0.0, 0, 0
        self._announced = False
        left = plan.missing_rows
        self.progress = Progress(None if left is None else left // processes.count, processes.rank, processes.count)

    def execute(self) -> None:
        """Do the share of this process.

        Raises:
            HfAttnMiError: of a row, with errors="raise"; or every row fails for the same reason.
            OSError: a shard cannot be written.
        """
        read = 0
        try:
            for number, rows in self.source.runs(self.plan.size, self.limit, self._wanted):
                if self.stop.made:
                    self.stopped = True
                    return
                start = number * self.plan.size
                read = start + len(rows)
                if number in self.plan.finished:
                    self._check_digest(number, start, rows)
                if number not in self._mine:
                    continue
                self._begin(len(rows))
                try:
                    result = self.shard.explain(number, start, rows)
                except StopNowError:
                    self.stopped = True
                    return
                self._refuse_hopeless(result)
                self._write(result)
        finally:
            self.progress.close()
        self._check_end(read)

    def _wanted(self, number: int) -> bool:
        """Whether this process reads the rows of a shard; called for each shard in order."""
        if number not in self.plan.finished:
            if self._turn % self.processes.count == self.processes.rank:
                self._mine.add(number)
            self._turn += 1
        return number in self._mine or self.source.size is None  # a stream is read to its end by all

    def _begin(self, size: int) -> None:
        self._begun, self._size, self._in_shard = time.perf_counter(), size, 0

    def _progress(self, count: int) -> None:
        """Note rows; leave the shard after a request to stop, unless it is soon finished."""
        self._in_shard += count
        self.progress.update(count)
        if self.stop.made and self._in_shard:
            each = (time.perf_counter() - self._begun) / self._in_shard
            left = each * (self._size - self._in_shard)
            if left > GRACE:
                raise StopNowError
            if left > NOTICED and not self._announced:
                self._announced = True
                LOGGER.warning(
                    "stopping: this shard is finished in about %s; a second signal stops at once, and loses it.",
                    duration(left),
                )

    def _refuse_hopeless(self, result: ShardResult) -> None:
        """Raise the error of the first shard if every input failed in it: it is not about an input."""
        first = result.first_error
        if not result.none_explained or self.done or self.plan.finished or first is None:
            return
        if result.info.failed > 1 or isinstance(first, UnsupportedModelError):
            raise first

    def _write(self, result: ShardResult) -> None:
        self.folder.write_shard(result.table, result.errors, result.info, self.plan.settings)
        self.done += result.info.stop - result.info.start
        self._mine.discard(result.info.number)
        give_back_memory()

    def _check_digest(self, number: int, start: int, rows: list[Any]) -> None:
        """Refuse a stream whose rows are others than those that were explained."""
        if self.shard.digest(start, rows) != self.plan.finished[number].digest:
            raise InvalidInputError(
                f"dataset: rows {start} to {start + len(rows) - 1} are not those that "
                f"{str(self.folder.shard_path(number))!r} was made from: the data has changed, or comes in another "
                "order. Name another folder."
            )

    def _check_end(self, rows: int) -> None:
        """Note the number of rows of a stream; refuse one that is shorter than the finished shards."""
        if self.source.size is not None:
            return
        self.rows = rows
        last = max((one.stop for one in self.plan.finished.values()), default=0)
        if last > rows:
            raise InvalidInputError(
                f"dataset has {counted(rows, 'row')} now, but finished shards hold rows up to {last - 1}: the data has "
                "changed. Name another folder."
            )
