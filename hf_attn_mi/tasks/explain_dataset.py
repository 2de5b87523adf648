"""`explain_dataset`: explain every row of a data set of any size, in shards that are neither lost nor done twice."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from hf_attn_mi.data.corpus_columns import find_columns
from hf_attn_mi.data.row_source import RowSource
from hf_attn_mi.data.run_folder import RunFolder, new_run_id
from hf_attn_mi.errors import HfAttnMiError, InvalidInputError
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.results.dataset_run import DatasetRun
from hf_attn_mi.results.information_profile import InformationProfile
from hf_attn_mi.tasks.arguments import check_choice, check_flag, check_whole_number
from hf_attn_mi.tasks.batch_explainer import BatchExplainer, ExplainOptions
from hf_attn_mi.tasks.corpus_plan import CorpusPlan, open_run
from hf_attn_mi.tasks.corpus_report import estimate_run, finish_run
from hf_attn_mi.tasks.corpus_run import CorpusRun
from hf_attn_mi.tasks.corpus_settings import corpus_settings
from hf_attn_mi.tasks.each_input import ERRORS
from hf_attn_mi.tasks.interruption import stop_requests
from hf_attn_mi.tasks.processes import Processes

LOGGER = logging.getLogger("hf_attn_mi")


def explain_dataset(
    model: Any,
    dataset: Any,
    *,
    output: Any,
    method: str = "relevance",
    options: Mapping[str, Any] | None = None,
    columns: Any = None,
    layers: str = "none",
    profile: InformationProfile | None = None,
    target: Any = None,
    targets: Any = None,
    tokenizer: Any = None,
    batch_size: int | str = "auto",
    shard_size: int = 1000,
    num_shards: int | None = None,
    limit: int | None = None,
    truncation: bool = False,
    stride: int | None = None,
    aggregation: str = "mean",
    is_split_into_words: bool = False,
    errors: str = "skip",
    dry_run: bool = False,
) -> DatasetRun:
    """Explain every row of a data set, and write the scores as numbered Parquet files.

    The work is cut into shards. Each finished shard is one file, written under a temporary name, synchronized to the
    disk and renamed. The finished shards and `run.json` are the only record of what is done: run the same call again
    after any interruption, and only the missing shards are done. Under `accelerate launch` or `torchrun` the processes
    share the shards.

    Args:
        model: as in `explain`.
        dataset: a list, a datasets.Dataset or IterableDataset, any iterable, a pandas table; a file (.txt, .jsonl,
            .json, .csv, .tsv, each also .gz; .parquet, .arrow), a folder saved by datasets, or a Hub name "name:split".
            One shard of it is in memory at a time.
        output: the folder. It may hold an unfinished run with the same settings.
        method, options, layers, profile, target, targets, tokenizer: as in `explain`. With several targets a row of the
            data set has several rows in the shards.
        columns: None finds them by their names; the column of the text; two columns of a pair; or a dictionary from
            "text", "text_pair", "id", "label" (gold) and "target" (of each row) to columns.
        batch_size: "auto", or the maximum number of inputs in one forward pass. "auto" fills batches up to a number of
            tokens that grows, and halves it when memory runs out.
        shard_size: rows of a shard.
        num_shards: the number of shards instead of `shard_size`, for data of known length.
        limit: maximum number of rows to read.
        truncation, stride, aggregation, is_split_into_words: as in `explain`.
        errors: "skip": a row that fails goes to the errors file of its shard, with the reason; "raise" stops at the
            first one.
        dry_run: write nothing; estimate time, size and memory from 50 rows.

    Returns:
        A `DatasetRun`; read the results with `load_results(output)`, or with `datasets.load_dataset("parquet", ...)`.

    Raises:
        InvalidInputError: an argument is wrong; `output` holds a run with other settings (the message names the
            difference), or another run is writing to it.
        UnsupportedModelError: the attention of this model cannot be captured exactly.
        OSError: a file cannot be written; finished shards stay.

    Example:
        >>> run = explain_dataset(model, "reviews.jsonl", output="reviews")    # doctest: +SKIP
        >>> print(run)                                                         # doctest: +SKIP
    """
    started = time.perf_counter()
    check_choice("errors", errors, ERRORS)
    check_flag("dry_run", dry_run)
    check_whole_number("shard_size", shard_size)
    for name, value in (("num_shards", num_shards), ("limit", limit)):
        if value is not None:
            check_whole_number(name, value)
    folder, processes = RunFolder(output), Processes.of_environment()
    runner = EncoderRunner.of(model, tokenizer)
    runner.require_tokenizer()
    chosen = ExplainOptions(
        method, options, layers, target, targets, truncation, stride, aggregation, is_split_into_words
    )
    explainer = BatchExplainer(runner, chosen, profile=profile, batch_size=batch_size)
    source = RowSource(dataset)
    corpus_columns = find_columns(
        columns, source.column_names, source.first_row(), source.features, words=is_split_into_words
    )
    if corpus_columns.target is not None and (target is not None or targets is not None):
        raise InvalidInputError("columns names a target column: leave out target and targets.")
    names = _column_names(source)
    source.select(corpus_columns)
    rows = source.count(limit)
    size = _shard_size(shard_size, num_shards, rows)
    about = {"model": runner.name, "method": explainer.scorer.name, "data": source.name}
    if names is not None:
        about["columns"] = corpus_columns.described(names)

    def settings() -> dict[str, Any]:
        return corpus_settings(runner, explainer, source, corpus_columns, shard_size=size, limit=limit)

    if dry_run:
        return estimate_run(folder, explainer, source, corpus_columns, settings(), size, rows, about, processes.count)
    with ExitStack() as stack, stop_requests() as stop:
        plan = _open(folder, processes, stack, settings, size, rows, about)
        run = CorpusRun(folder, plan, explainer, source, corpus_columns, processes, stop, errors=errors, limit=limit)
        run.execute()
        return finish_run(folder, run, about, time.perf_counter() - started)


def _column_names(source: RowSource) -> list[str] | None:
    """The columns of the data set, or of its first row; None if its rows are texts."""
    first = source.first_row()
    if source.column_names is not None:
        return list(source.column_names)
    return list(map(str, first)) if isinstance(first, Mapping) else None


def _shard_size(shard_size: int, num_shards: int | None, rows: int | None) -> int:
    if num_shards is None:
        return shard_size
    if rows is None:
        raise InvalidInputError(
            "num_shards needs a data set of known length; this one is read from its start. Pass shard_size."
        )
    return max(1, -(-rows // num_shards))


def _open(
    folder: RunFolder,
    processes: Processes,
    stack: ExitStack,
    settings: Any,
    size: int,
    rows: int | None,
    about: Mapping[str, Any],
) -> CorpusPlan:
    """The plan of the first process, which holds the lock until the stack ends; an error is raised in all processes."""
    answer: CorpusPlan | Exception
    if processes.first:
        run_id = new_run_id()
        try:
            folder.create()
            stack.enter_context(folder.locked(run_id))
            answer = open_run(folder, run_id, settings(), size, rows, about)
        except (HfAttnMiError, OSError) as error:
            answer = error
    else:
        answer = InvalidInputError("the first process ended before it had a plan.")
    answer = processes.from_first(answer)
    if isinstance(answer, Exception):
        raise answer
    return answer
