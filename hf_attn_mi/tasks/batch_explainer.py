"""`BatchExplainer`: explain many inputs, batch by batch; an input that fails does not stop the others."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from hf_attn_mi.errors import HfAttnMiError, InvalidInputError
from hf_attn_mi.methods import TokenScorer, find_method, read_options
from hf_attn_mi.methods.layer_statistics import LEVELS
from hf_attn_mi.methods.scoring import check_method
from hf_attn_mi.models.encoded_input import EncodedInput, EncodedInputs, FailedInput
from hf_attn_mi.models.memory import out_of_memory
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.results.explanation import Explanation
from hf_attn_mi.results.information_profile import InformationProfile
from hf_attn_mi.tasks.arguments import check_choice
from hf_attn_mi.tasks.each_input import bind_targets, check_input_options, read_inputs
from hf_attn_mi.tasks.explain import explain_batch, explain_several
from hf_attn_mi.tasks.several_targets import plan_targets
from hf_attn_mi.tasks.token_budget import TokenBudget, check_batch_size
from hf_attn_mi.tasks.token_information import read_profile
from hf_attn_mi.tasks.windows import (
    AGGREGATIONS,
    WindowExplainer,
    class_targets,
    encode_long_texts,
    refuse_with_stride,
    several_class_targets,
)

Run = Callable[[list[int]], Sequence[Sequence[Explanation]]]
Answer = tuple[int, "list[Explanation] | FailedInput"]  # the index of an input, and its explanations or its error


@dataclass(frozen=True)
class ExplainOptions:
    """The options of `explain` that a run over many inputs shares; see there."""

    method: str = "relevance"
    options: Mapping[str, Any] | None = None
    layers: str = "none"
    target: Any = None
    targets: Any = None
    truncation: bool = False
    stride: int | None = None
    aggregation: str = "mean"
    is_split_into_words: bool = False


@dataclass(frozen=True)
class _Job:
    """Inputs that are ready to run.

    Attributes:
        inputs: the inputs of the passes, for their lengths.
        places: the index of each among the caller's.
        run: explains the inputs at some positions.
        alone: whether inputs run one at a time.
    """

    inputs: Sequence[EncodedInput]
    places: Sequence[int]
    run: Run
    alone: bool


class BatchExplainer:
    """Explains lists of inputs with fixed options.

    Args:
        runner: runs the model.
        options: as in `explain`.
        profile: as in `explain`.
        batch_size: "auto" or a number; see `TokenBudget`.

    Attributes:
        scorer: the method.
        settings: the options of the method, with defaults.
        budget: chooses the batches.

    Raises:
        InvalidInputError, UnsupportedModelError: an option is wrong, or the method does not support the model.
    """

    def __init__(
        self,
        runner: EncoderRunner,
        options: ExplainOptions,
        *,
        profile: InformationProfile | None = None,
        batch_size: int | str = "auto",
    ) -> None:
        self.runner, self.options = runner, options
        self.scorer: TokenScorer = find_method(options.method)
        self.settings = read_options(self.scorer, options.options)
        check_choice("layers", options.layers, LEVELS)
        check_input_options("skip", options.truncation, options.is_split_into_words)
        check_choice("aggregation", options.aggregation, AGGREGATIONS)
        check_batch_size(batch_size)
        self.profile = read_profile(profile, runner)
        self.budget = TokenBudget(batch_size, runner.device)
        self.windows: WindowExplainer | None = None
        if options.targets is not None and options.target is not None:
            raise InvalidInputError("target and targets: pass one of them.")
        if options.stride is not None:
            refuse_with_stride(
                truncation=options.truncation, profile=profile, candidate_labels=None, layers=options.layers
            )
            size = 16 if batch_size == "auto" else int(batch_size)
            self.windows = WindowExplainer(
                runner, self.scorer, self.settings, stride=options.stride, aggregation=options.aggregation,
                batch_size=size,
            )  # fmt: skip
        check_method(runner, self.scorer, self.settings)

    def explain_each(self, items: Sequence[Any], targets: Sequence[Any] | None = None) -> Iterator[list[Answer]]:
        """The explanations of each input, or why there are none, batch by batch; the shortest inputs come first.

        Args:
            items: texts, pairs of texts (tuples) or lists of words.
            targets: the target of each input; None for that of the options.

        Yields:
            For each input of a batch its index and its explanations: one, or one for each of several targets.
        """
        self.budget.restart()
        with torch.inference_mode(False), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one for each text that is cut; the explanation says it
            strings = [i for i, item in enumerate(items) if self.options.is_split_into_words and isinstance(item, str)]
            if strings:
                yield [(i, FailedInput((items[i],), _no_words(i))) for i in strings]
                kept = sorted({*range(len(items))}.difference(strings))
                if kept:
                    of_kept = None if targets is None else [targets[i] for i in kept]
                    for answers_of_kept in self.explain_each([items[i] for i in kept], of_kept):
                        yield [(kept[place], answer) for place, answer in answers_of_kept]
                return
            job, failures = self._prepare(list(items), targets)
            if failures:
                yield list(failures.items())
            if job is None:
                return
            alone = job.alone or not job.inputs or not self.runner.takes_batches(job.inputs[0])
            mixed = not alone and self.runner.mixes_lengths(job.inputs)
            queue = sorted(range(len(job.inputs)), key=lambda i: _order(job.inputs[i], mixed))
            start = 0
            while start < len(queue):
                rest = queue[start : start + self.budget.inputs]
                batch = rest[:1] if alone else self.budget.take(rest, job.inputs, mixed=mixed)
                batch = self.runner.apart(job.inputs, [batch])[0]
                answers = self._run(batch, job)
                if answers is None:  # memory ran out: the same inputs again, in smaller batches
                    continue
                start += len(batch)
                yield [(job.places[position], result) for position, result in answers]

    def _prepare(self, items: list[Any], targets: Sequence[Any] | None) -> tuple[_Job | None, dict[int, FailedInput]]:
        """What is to run, and the inputs that cannot be encoded or do not have the target."""
        options, runner = self.options, self.runner
        if self.windows is not None:
            return self._prepare_windows(self.windows, items, targets)
        encoded = read_inputs(
            runner, items, errors="skip", truncation=options.truncation,
            is_split_into_words=options.is_split_into_words,
        )  # fmt: skip
        failures = dict(encoded.failures)
        if not encoded.inputs:
            return None, failures
        try:
            if options.targets is not None:
                plan, encoded = plan_targets(options.targets, None, runner, encoded, errors="skip")
                several = partial(
                    explain_several, runner, plan, self.scorer, self.settings, options.layers, self.profile, 16
                )
                return _Job(encoded.inputs, encoded.places, several, plan.alone), dict(encoded.failures)
            target = options.target if targets is None else list(targets)
            bound, encoded = bind_targets(target, runner, encoded, errors="skip")
        except HfAttnMiError as error:  # the target fits none of the inputs
            failed = {place: FailedInput(one.texts, error) for place, one in zip(encoded.places, encoded.inputs)}
            return None, failures | failed

        def run(positions: list[int]) -> list[list[Explanation]]:
            batch = [encoded.inputs[i] for i in positions]
            chosen = [bound.select(positions)]
            answers = explain_batch(
                runner, batch, self.scorer, chosen, self.settings, options.layers, self.profile
            )[0]  # fmt: skip
            return [[one] for one in answers]

        return _Job(encoded.inputs, encoded.places, run, bound.alone), dict(encoded.failures)

    def _prepare_windows(
        self, windows: WindowExplainer, items: list[Any], targets: Sequence[Any] | None
    ) -> tuple[_Job | None, dict[int, FailedInput]]:
        encoded: EncodedInputs = encode_long_texts(
            self.runner, items, is_split_into_words=self.options.is_split_into_words, skip=True
        )
        if not encoded.inputs:
            return None, dict(encoded.failures)
        if targets is None and self.options.targets is not None:
            columns = several_class_targets(self.runner, self.options.targets, encoded)

            def several(positions: list[int]) -> list[list[Explanation]]:
                return [windows.explain_several(encoded.inputs[i], columns, i, encoded.places[i]) for i in positions]

            return _Job(encoded.inputs, encoded.places, several, True), dict(encoded.failures)
        classes = class_targets(self.runner, self.options.target if targets is None else list(targets), encoded)

        def run(positions: list[int]) -> list[list[Explanation]]:
            return [[windows.explain(encoded.inputs[i], classes[i], encoded.places[i])] for i in positions]

        return _Job(encoded.inputs, encoded.places, run, True), dict(encoded.failures)

    def _run(self, batch: list[int], job: _Job) -> list[Answer] | None:
        """The results of one batch; None if memory ran out and a smaller batch may fit.

        A batch that fails for another reason is halved until the inputs that fail are alone.
        """
        try:
            return [(position, list(answers)) for position, answers in zip(batch, job.run(batch))]
        except HfAttnMiError as error:
            failure: HfAttnMiError = error
        except Exception as error:  # an error of one input must not end a run over millions
            if out_of_memory(error):
                failure = InvalidInputError(
                    f"memory ran out for one input of {job.inputs[batch[0]].token_count} tokens. Pass truncation=True "
                    "or stride=..., or use a device with more memory."
                )
            else:
                failure = HfAttnMiError(f"a defect of this program: {type(error).__name__}: {error}")
            failure.__cause__ = error
        if isinstance(failure.__cause__, BaseException) and out_of_memory(failure.__cause__):
            self._free(len(batch), len(batch) * max(job.inputs[i].token_count for i in batch))
            if len(batch) > 1:
                return None
        if len(batch) == 1:
            return [(batch[0], FailedInput(job.inputs[batch[0]].texts, failure))]
        half = len(batch) // 2
        answers: list[Answer] = []
        for part in (batch[:half], batch[half:]):
            results = self._run(part, job)
            while results is None:  # memory ran out in the half: take it apart further
                results = []
                for position in part:
                    results += self._run([position], job) or []
            answers += results
        return answers

    def _free(self, count: int, tokens: int) -> None:
        """Give memory back and take smaller batches from now on."""
        self.budget.exhausted(count, tokens)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _no_words(index: int) -> InvalidInputError:
    """The error of a string among lists of words, which alone would be one input: a list of strings is one text."""
    return InvalidInputError(
        f"inputs[{index}] is one string, but is_split_into_words=True: it must be the list of its words."
    )


def _order(one: EncodedInput, mixed: bool) -> tuple[Any, ...]:
    return (one.token_count,) if mixed else (one.token_count, one.shape_key)
