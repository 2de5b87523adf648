"""A list of inputs, one result for each: what is done with inputs that fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

from hf_attn_mi.errors import HfAttnMiError
from hf_attn_mi.models.encoded_input import EncodedInput, EncodedInputs, FailedInput
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target, read_target
from hf_attn_mi.results.record import Record
from hf_attn_mi.results.results import Results
from hf_attn_mi.results.skipped_input import SkippedInput
from hf_attn_mi.tasks.arguments import check_choice, check_flag, progress_bar, results_on_interrupt

AnyRecord = TypeVar("AnyRecord", bound=Record)

ERRORS = ("raise", "skip")


def check_input_options(errors: object, truncation: object, is_split_into_words: object) -> None:
    """Check the options about inputs that all tasks share."""
    check_choice("errors", errors, ERRORS)
    check_flag("truncation", truncation)
    check_flag("is_split_into_words", is_split_into_words)


def read_inputs(
    runner: EncoderRunner,
    inputs: Any,
    *,
    errors: str,
    truncation: bool,
    is_split_into_words: bool,
    special_known: bool = False,
) -> EncodedInputs:
    """The encoded inputs; with errors="skip" those of a list that cannot be encoded are kept as failures."""
    return runner.encode_each(
        inputs,
        truncation=truncation,
        special_known=special_known,
        is_split_into_words=is_split_into_words,
        skip=errors == "skip",
    )


def bind_targets(
    target: Any, runner: EncoderRunner, encoded: EncodedInputs, *, errors: str
) -> tuple[Target, EncodedInputs]:
    """The target of the inputs, and the inputs to run; with errors="skip" those that the target does not fit fail.

    Raises:
        HfAttnMiError: the target fits none of the inputs, or one of them that is not skipped.
    """

    def bind(positions: Sequence[int]) -> tuple[Target, list[EncodedInput]]:
        chosen, places = [encoded.inputs[i] for i in positions], [encoded.places[i] for i in positions]
        return read_target(target, runner, chosen, places=places, count=encoded.count)

    positions = list(range(len(encoded.inputs)))
    try:
        bound, inputs = bind(positions)
    except HfAttnMiError:
        if errors == "raise" or encoded.single:
            raise
        failures, reasons = dict(encoded.failures), {}
        for i in positions:
            try:
                bind([i])
            except HfAttnMiError as error:
                reasons[i] = error
        positions = [i for i in positions if i not in reasons]
        if not positions:
            raise
        failures |= {encoded.places[i]: FailedInput(encoded.inputs[i].texts, error) for i, error in reasons.items()}
        bound, inputs = bind(positions)
        encoded = replace(encoded, places=[encoded.places[i] for i in positions], failures=failures)
    return bound, replace(encoded, inputs=inputs)


def result_of_each(
    encoded: EncodedInputs,
    batches: Sequence[Sequence[int]],
    run: Callable[[list[int]], Sequence[AnyRecord]],
    *,
    errors: str,
    task: str,
) -> AnyRecord | Results[AnyRecord]:
    """The results of all inputs, in the caller's order.

    With errors="skip" a batch that fails is run again one input at a time, and those that fail alone come back as
    `SkippedInput`. Where every input that could be encoded fails, the first error is raised: it is not about an input.

    Args:
        encoded: the inputs.
        batches: the positions in `encoded.inputs` of each batch.
        run: returns the results of the inputs at these positions.
        errors: "raise" or "skip".
        task: its name, for the progress bar.

    Raises:
        HfAttnMiError: what `run` raises, unless it is skipped.
    """

    def run_one(positions: list[int]) -> list[Sequence[AnyRecord]]:
        return [(record,) for record in run(positions)]

    records = _records_of_each(encoded, batches, run_one, errors=errors, task=task)
    ordered = [record for i in range(encoded.count) for record in records[i]]
    return ordered[0] if encoded.single else Results(ordered)


def results_of_each(
    encoded: EncodedInputs,
    batches: Sequence[Sequence[int]],
    run: Callable[[list[int]], Sequence[Sequence[AnyRecord]]],
    *,
    errors: str,
    task: str,
) -> Results[AnyRecord]:
    """Like `result_of_each`, where `run` gives several results of each input: those of the first input come first."""
    records = _records_of_each(encoded, batches, run, errors=errors, task=task)
    return Results([record for i in range(encoded.count) for record in records[i]])


def _records_of_each(
    encoded: EncodedInputs,
    batches: Sequence[Sequence[int]],
    run: Callable[[list[int]], Sequence[Sequence[AnyRecord]]],
    *,
    errors: str,
    task: str,
) -> dict[int, Sequence[AnyRecord]]:
    """The results of each input by its index."""
    records: dict[int, Sequence[AnyRecord]] = {}
    failures = dict(encoded.failures)
    reasons: list[HfAttnMiError] = []
    queue = [list(batch) for batch in batches]
    with progress_bar(len(queue), task, "batch") as bar, results_on_interrupt(records):
        while queue:
            positions = queue.pop(0)
            try:
                results_of_batch = run(positions)
            except HfAttnMiError as error:
                if errors == "raise" or encoded.single:
                    raise
                if len(positions) > 1:
                    queue[:0] = [[position] for position in positions]
                    bar.total += len(positions) - 1
                    continue
                reasons.append(error)
                failures[encoded.places[positions[0]]] = FailedInput(encoded.inputs[positions[0]].texts, error)
            else:
                records.update(zip((encoded.places[position] for position in positions), results_of_batch))
            bar.update()
    if reasons and len(reasons) == len(encoded.inputs):
        raise reasons[0]
    for index, failed in failures.items():
        skipped = SkippedInput(index, failed.texts, type(failed.error).__name__, str(failed.error))
        records[index] = cast("Sequence[AnyRecord]", (skipped,))  # with errors="skip"
    return records
