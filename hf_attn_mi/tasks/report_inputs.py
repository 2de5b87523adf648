"""What a report is about: the targets of each input, the inputs that can be used, and how a task is run on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from hf_attn_mi.errors import HfAttnMiError, Interrupted, InvalidInputError
from hf_attn_mi.methods import find_method
from hf_attn_mi.methods.kept_passes import KeptPasses
from hf_attn_mi.models.dual_encoders import by_text_labels, tower_of
from hf_attn_mi.models.encoded_input import EncodedInput, EncodedInputs
from hf_attn_mi.models.labels import label_names
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.target_kinds.alternatives import Entails
from hf_attn_mi.models.target_kinds.base import TargetKind
from hf_attn_mi.models.targets import zero_shot
from hf_attn_mi.results.explanation import Explanation
from hf_attn_mi.results.record import Record
from hf_attn_mi.results.results import Results
from hf_attn_mi.results.skipped_input import SkippedInput
from hf_attn_mi.tasks.each_input import read_inputs
from hf_attn_mi.tasks.explain import explain_sharing
from hf_attn_mi.tasks.several_targets import ALL, list_of_targets, refuse_target_and_targets
from hf_attn_mi.tasks.windows import encode_long_texts

RecordT = TypeVar("RecordT", bound=Record)
LONG = "This part runs the whole text at once, which is explained by windows here. "


@dataclass(frozen=True)
class ReportTargets:
    """The targets of a report.

    Attributes:
        main: the target that every part of the page is about, as `explain` takes it.
        others: further targets, which have scores only.
        every: whether every label, choice or entity is explained in addition.
        labels: the candidate labels of zero-shot classification; None without it.
        named: whether the caller named several targets: then further classes are not chosen by their probability.
    """

    main: Any
    others: tuple[Any, ...] = ()
    every: bool = False
    labels: Any = None
    named: bool = False

    @property
    def is_function(self) -> bool:
        """Whether the main target is a function of the outputs."""
        return callable(self.main) and not isinstance(self.main, TargetKind)

    def names(self, runner: EncoderRunner) -> dict[int, str]:
        """The names that `labels=` may hold, by their numbers: candidate labels, or the classes of the model."""
        return dict(enumerate(self.main.among)) if isinstance(self.main, Entails) else label_names(runner.config)


def read_report_targets(target: Any, targets: Any, labels: Any, runner: EncoderRunner) -> ReportTargets:
    """The targets of a report, from the arguments `target`, `targets` and `candidate_labels`.

    Raises:
        InvalidInputError: target and targets together, no list, or an empty one.
    """
    if targets is None:
        return ReportTargets(zero_shot(target, labels, runner), labels=labels)
    refuse_target_and_targets(target, targets)
    listed = list_of_targets(targets)
    if listed is None:
        return ReportTargets(zero_shot(None, labels, runner), every=True, labels=labels, named=True)
    main, *others = [zero_shot(item, labels, runner) for item in listed]
    return ReportTargets(main, tuple(others), labels=labels, named=True)


def model_of_report(
    model: Any, inputs: Any, targets: Sequence[Any], tokenizer: Any, processor: Any, sampling_rate: int | None
) -> tuple[Any, EncoderRunner]:
    """The model that a report is about, and its runner: the tower that reads the inputs of a model of two towers."""
    whole = EncoderRunner.of(model, tokenizer, processor=processor, sampling_rate=sampling_rate)
    runner = tower_of(whole, inputs, *targets)
    return (model if runner is whole else runner.model), runner


class ReportRun:
    """Runs tasks on the inputs of a report, and keeps those that can be used.

    Args:
        runner: runs the model.
        candidate_labels: of zero-shot classification; those of a model of images and texts become its classes.
        inputs: as the caller passed them.
        reading: truncation, is_split_into_words and sampling_rate, as `explain` takes them.
        stride, aggregation: of windows over long texts; a stride of None for no windows.
        errors: "raise" or "skip".

    Attributes:
        runner: as above.
        labels: the candidate labels that targets are made of; None without them.
        encoded: every input that can be encoded.
        kept: the index of each input of the report among the caller's inputs.
        skipped: the other inputs, with the reasons.
        interrupt: Ctrl-C, once it came: then what is left is not computed.
        kept_passes: passes over the inputs that several explanations read; None to share none.
    """

    def __init__(
        self,
        model: Any,
        runner: EncoderRunner,
        inputs: Any,
        *,
        candidate_labels: Any,
        reading: Mapping[str, Any],
        stride: int | None,
        aggregation: str,
        errors: str,
    ) -> None:
        self.runner, self.labels = by_text_labels(runner, candidate_labels)
        prepared = {"tokenizer": self.runner.tokenizer, "processor": self.runner.processor}
        inputs = list(inputs) if isinstance(inputs, Iterator) else inputs  # every task reads them once
        source = model if self.runner is runner else self.runner.model
        self.options = {"model": source, "inputs": inputs, **prepared, **reading}
        self.stride, self.errors = stride, errors
        self.windows = {} if stride is None else {"stride": stride, "aggregation": aggregation}
        split, truncation = reading["is_split_into_words"], reading["truncation"]
        if stride is None:
            self.encoded = read_inputs(
                self.runner, inputs, errors=errors, truncation=truncation, is_split_into_words=split
            )
        else:
            skip = errors == "skip"
            self.encoded = encode_long_texts(self.runner, inputs, is_split_into_words=split, skip=skip)
        self.kept: list[int] = list(range(self.encoded.count))
        self.skipped: tuple[SkippedInput, ...] = ()
        self.interrupt: KeyboardInterrupt | None = None
        self.kept_passes: KeptPasses | None = None

    @property
    def interruption(self) -> list[str]:
        """The warning that the report was interrupted, if it was."""
        return [] if self.interrupt is None else ["Interrupted: parts that were not finished are left out."]

    @contextmanager
    def keeping(self, first: Sequence[Explanation]) -> Iterator[None]:
        """Inside, Ctrl-C becomes an `Interrupted` error that holds these explanations of the kept inputs."""
        try:
            yield
        except KeyboardInterrupt as stop:
            raise Interrupted(Results(first), self.kept) from stop

    def explain_targets(
        self, targets: ReportTargets, options: Mapping[str, Any], profile: Any, methods: Sequence[str]
    ) -> tuple[list[Explanation], list[list[Explanation]]]:
        """The explanations of the main target, and those of the other named targets of each input.

        An input that one of the targets does not fit is skipped, or refused.

        Args:
            targets: the targets of the report.
            options: of `explain`.
            profile: shows what each token tells about the output; None for none.
            methods: every method of the report; what they read of the input's pass is kept for them.
        """
        self.kept_passes = KeptPasses(self.runner, [find_method(name) for name in methods])
        columns = [self._explain(target=targets.main, profile=profile, **options)]
        try:
            for item in targets.others:
                columns.append(self._explain(target=item, layers="none", **options))
        except KeyboardInterrupt as stop:
            self.interrupt = stop
        failed = {i: one for column in columns for i, one in enumerate(column) if isinstance(one, SkippedInput)}
        self.kept = [i for i in range(self.encoded.count) if i not in failed]
        if not self.kept:
            raise InvalidInputError(f"inputs: none of them can be used. {next(iter(failed.values())).reason}")
        self.skipped = tuple(failed[i] for i in sorted(failed))
        rows = [[one for one in row if isinstance(one, Explanation)] for row in zip(*columns)]
        rows = [rows[i] for i in self.kept]
        self._with_layers(rows, targets.main, profile, options)
        refuse_other_tokens([row[0] for row in rows], [row[1:] for row in rows])
        return [row[0] for row in rows], [row[1:] for row in rows]

    def _with_layers(
        self, rows: Sequence[list[Explanation]], main: Any, profile: Any, options: Mapping[str, Any]
    ) -> None:
        """Put statistics of layers into the first explanations of inputs of a single window."""
        if self.stride is None or self.interrupt is not None or all(self.is_long(row[0]) for row in rows):
            return
        arguments: dict[str, Any] = {**self.options, **options, "errors": "skip"}
        try:
            found: list[Any] = _all(explain_sharing(None, **arguments, target=main, profile=profile))
        except KeyboardInterrupt as stop:
            self.interrupt = stop
            return
        for i, row in zip(self.kept, rows):
            if not self.is_long(row[0]) and isinstance(found[i], Explanation):
                windows = {"windows": row[0].info["windows"]}
                row[0] = replace(found[i], info={**found[i].info, **windows})

    def explain(self, targets: Any, **options: Any) -> list[Explanation]:
        """The explanations of the kept inputs; `targets` is one for each of them, or a function."""
        spread: Any = targets
        if isinstance(targets, Sequence) and not isinstance(targets, str):
            by_place = dict(zip(self.kept, targets))
            spread = [by_place.get(i) for i in range(self.encoded.count)]
        found = self._explain(target=spread, **options)
        return [one for one in map(found.__getitem__, self.kept) if isinstance(one, Explanation)]

    def explain_columns(self, columns: Sequence[Sequence[Any]], **options: Any) -> list[list[Explanation]]:
        """For each of the kept inputs its explanations for several targets, which share forward passes.

        Args:
            columns: the targets of all kept inputs, as many times as there are targets of an input.
            options: of `explain`.
        """
        if not columns:
            return [[] for _ in self.kept]
        if self.stride is not None:  # windows share nothing
            return [list(row) for row in zip(*(self.explain(column, **options) for column in columns), strict=True)]
        spread = []
        for column in columns:
            by_place = dict(zip(self.kept, column))
            spread.append([by_place.get(i) for i in range(self.encoded.count)])
        rows = self._of_kept_inputs(self._explain(targets=spread, of_each_input=True, **options))
        return [[replace(one, info={k: v for k, v in one.info.items() if k != "input"}) for one in row] for row in rows]

    def explain_all(self, labels: Any, **options: Any) -> list[list[Explanation]]:
        """For each of the kept inputs the explanations of all its labels, choices or entities."""
        return self._of_kept_inputs(self._explain(targets=ALL, candidate_labels=labels, **options))

    def _of_kept_inputs(self, results: Sequence[Explanation | SkippedInput]) -> list[list[Explanation]]:
        """The results of several targets, by input."""
        found: dict[int, list[Explanation]] = {i: [] for i in self.kept}
        for one in results:
            place = one.info.get("input") if isinstance(one, Explanation) else None
            if isinstance(one, Explanation) and place in found:
                found[place].append(one)
        return [found[i] for i in self.kept]

    def of_kept(self, encoded: EncodedInputs) -> list[EncodedInput]:
        """The kept inputs, encoded."""
        by_place = dict(zip(encoded.places, encoded.inputs))
        return [by_place[i] for i in self.kept]

    def is_long(self, one: Explanation) -> bool:
        """Whether an input is explained by more than one window."""
        return self.stride is not None and bool(one.info["windows"]["count"] > 1)

    def part(
        self, task: Callable[..., RecordT | Results[RecordT]], longs: Sequence[bool], **options: Any
    ) -> list[RecordT | str]:
        """The results of a task on the kept inputs, or the reason why there is none.

        Args:
            task: a task of the package.
            longs: for each kept input whether it is explained by several windows.
            options: of the task.
        """
        errors = self.errors if self.stride is None else "skip"
        try:
            found = _all(task(**self.options, **options, errors=errors))
        except HfAttnMiError as error:
            if not all(longs):
                raise
            raise type(error)(LONG + str(error)) from error
        results: list[RecordT | str] = []
        for i, long in zip(self.kept, longs):
            one: Any = found[i]
            results.append((LONG * long + one.reason) if isinstance(one, SkippedInput) else one)
        return results

    def _explain(self, **options: Any) -> list[Explanation | SkippedInput]:
        arguments: dict[str, Any] = {**self.options, **self.windows, **options, "errors": self.errors}
        found: list[Any] = _all(explain_sharing(self.kept_passes, **arguments))
        return found


def refuse_other_tokens(first: Sequence[Explanation], others: Sequence[Sequence[Explanation]]) -> None:
    """Raise `InvalidInputError` where further targets of an input have scores of other tokens than its first one."""
    for one, row in zip(first, others):
        for other in row:
            if other.tokens != one.tokens:
                raise InvalidInputError(
                    f"targets: {other.target_name!r} is explained on other tokens than {one.target_name!r} (each label "
                    "or choice is a pair of texts of its own), so that they cannot share a page. Call report once for "
                    "each target=, or explain with targets=."
                )


def _all(results: RecordT | Results[RecordT]) -> list[RecordT]:
    return list(results) if isinstance(results, Results) else [results]
