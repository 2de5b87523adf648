"""The end of a run over a data set, and the estimate of a dry run."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Mapping
from typing import Any

from hf_attn_mi.data.corpus_columns import CorpusColumns
from hf_attn_mi.data.row_source import RowSource
from hf_attn_mi.data.run_folder import DamagedRunError, RunFolder, new_run_id
from hf_attn_mi.errors import InvalidInputError, counted, shown
from hf_attn_mi.results.dataset_run import DatasetRun
from hf_attn_mi.tasks.batch_explainer import BatchExplainer
from hf_attn_mi.tasks.corpus_plan import CorpusPlan, read_plan
from hf_attn_mi.tasks.corpus_run import CorpusRun
from hf_attn_mi.tasks.corpus_shard import ShardExplainer, ShardResult, peak_memory

LOGGER = logging.getLogger("hf_attn_mi")
SAMPLE = 50  # rows that a dry run explains
SHORT = 2.0  # seconds: a sample that takes less is repeated
REPEATS = 5


def finish_run(folder: RunFolder, run: CorpusRun, about: Mapping[str, Any], seconds: float) -> DatasetRun:
    """Report the run, and add it to `run.json`; waits for the other processes.

    A process that was stopped does not wait for the others.
    """
    processes, mine = run.processes, (run.done, peak_memory(), run.stopped, run.rows)
    try:
        together = [mine] if run.stopped else processes.gathered(mine)
    except RuntimeError as error:  # another process has ended: its shards are missing
        LOGGER.warning("another process ended before its last shard: %s", error)
        together = [(*mine[:2], True, mine[3])]
    plan = run.plan
    rows = next((one[3] for one in together if one[3] is not None), None)
    finished = {
        number: shard_info[0] for number in folder.shard_numbers() if (shard_info := folder.read_shard_info(number))
    }
    shards = None if rows is None else -(-rows // plan.size)
    report = DatasetRun(
        output=str(folder.path),
        run_id=plan.run_id,
        rows=rows,
        failed=sum(info.failed for info in finished.values()),
        shards=len(finished),
        missing=None if shards is None else shards - len(finished),
        done=sum(one[0] for one in together),
        seconds=seconds,
        peak_memory=max(one[1] for one in together),
        size=sum(folder.shard_path(number).stat().st_size for number in finished),
        processes=processes.count,
        stopped=any(one[2] for one in together),
        info={**about, "versions": json.loads(plan.settings)["versions"]},
    )
    if processes.first:
        _note(folder, report)
    if report.stopped:
        done = sum(info.stop - info.start for info in finished.values())
        LOGGER.warning(
            "stopped after %s; %s in %s %s finished: run the same call again to do the rest.",
            counted(report.done, "row"),
            counted(done, "row") if rows is None else f"{done:,} of {counted(rows, 'row')}",
            folder.path,
            "is" if done == 1 else "are",
        )
    elif run.stop.made:
        LOGGER.warning("every row in %s is finished; the signal came during the last shard.", folder.path)
    return report


def _note(folder: RunFolder, report: DatasetRun) -> None:
    """Add the run to `run.json`."""
    try:
        known = folder.read_run()
    except DamagedRunError:
        known = None
    if known is None:  # removed or damaged during the run; the next run writes it again from the shards
        LOGGER.warning("%s is gone or damaged; the next run restores it.", folder.path / "run.json")
        return
    entry = {
        "run_id": report.run_id,
        "ended": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seconds": round(report.seconds, 3),
        "rows": report.done,
        "rows_per_second": None if report.rate is None else round(report.rate, 3),
        "peak_memory_bytes": report.peak_memory,
        "processes": report.processes,
        "stopped": report.stopped,
    }
    folder.write_run({**known, "rows": report.rows, "failed": report.failed, "runs": [*known.get("runs", []), entry]})


def estimate_run(
    folder: RunFolder,
    explainer: BatchExplainer,
    source: RowSource,
    columns: CorpusColumns,
    settings: Mapping[str, Any],
    size: int,
    rows: int | None,
    about: Mapping[str, Any],
    processes: int,
) -> DatasetRun:
    """What a run would do, from a few rows; nothing is written.

    Raises:
        InvalidInputError: there is no row, or the folder holds another run.
        HfAttnMiError: none of the rows can be explained.
    """
    plan = read_plan(folder, new_run_id(), settings, size, rows, about)
    sample = source.sample(SAMPLE)
    if not sample:
        raise InvalidInputError("dataset has no rows.")
    shard = ShardExplainer(explainer, columns, plan.settings_id)
    shard.explain(0, 0, [row for _, row in sample[:2]])  # what is computed once for a model
    started = time.perf_counter()
    sample_answers = shard.explain(0, 0, [row for _, row in sample])
    seconds = time.perf_counter() - started
    each = seconds / len(sample)
    if seconds < SHORT:  # a few short texts fill no batch, and their time is mostly that of a first pass
        shard.explain(0, 0, [row for _, row in sample] * REPEATS)
        each = (time.perf_counter() - started - seconds) / (REPEATS * len(sample))
    if sample_answers.first_error is not None and sample_answers.info.rows == 0:
        raise sample_answers.first_error
    left = plan.missing_rows
    return DatasetRun(
        output=str(folder.path),
        run_id=plan.run_id,
        rows=rows,
        failed=0,
        shards=len(plan.finished),
        missing=plan.missing,
        done=left or 0,
        seconds=each * (left or 0) / processes,
        peak_memory=peak_memory(),
        size=round(_bytes_of(sample_answers.table) / len(sample) * (left or 0)),
        processes=processes,
        dry_run=True,
        info={**about, "warnings": _remarks(plan, sample_answers, len(sample), each)},
    )


def _remarks(plan: CorpusPlan, answers: ShardResult, sample: int, each: float) -> list[str]:
    remarks, failed = [], answers.info.failed
    labels = [label for label in answers.table.column("label").to_pylist() if label is not None]
    if labels and not any(answers.table.column("label_name").to_pylist()):
        remarks.append(
            f"gold labels such as {shown(labels[0], 40)} name no class of the model: nothing will count as correct or "
            "as an error."
        )
    if failed:
        verb = "fails" if failed == 1 else "fail"
        remarks.append(
            f"{failed} of the {counted(sample, 'row')} that were tried {verb}; the errors files will say why."
        )
    if plan.rows is None:
        remarks.append(f"the number of rows is not known before they are read; one row takes {each:.3g} s.")
    return remarks


def _bytes_of(table: Any) -> int:
    """Size of a table as Parquet."""
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, compression="zstd")
    return buffer.tell()
