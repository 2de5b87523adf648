"""The explained target of each input: a class, a target of `hf_attn_mi.targets`, or a function of the outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.labels import label_names, label_number
from hf_attn_mi.models.output_heads import (
    TARGET_FUNCTION,
    ExplainedTarget,
    Function,
    HeadReading,
    OutputHead,
    find_logits,
    find_output_head,
)
from hf_attn_mi.models.output_tests import output_tensors
from hf_attn_mi.models.pipelines import HYPOTHESIS, zero_shot_target
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.target_kinds.alternatives import Choice, Entails
from hf_attn_mi.models.target_kinds.base import BoundTarget, OutputRow, TargetKind
from hf_attn_mi.models.target_kinds.classes import BoundClass, Label, refuse_regression
from hf_attn_mi.models.target_kinds.defaults import default_target
from hf_attn_mi.models.target_kinds.heads import check_head, use_of_head, use_of_word
from hf_attn_mi.models.target_kinds.registry import SUMMARY, looks_like_call, parse_target
from hf_attn_mi.models.tensor_checks import plain_values
from hf_attn_mi.models.weights import nonfinite_reason

TargetFunction = Callable[..., Tensor]
NO_CLASS = ExplainedTarget(None, "no class", None)


class NothingToExplainError(InvalidInputError):
    """Raised when the outputs of a model have no class and no other default target."""


class Target:
    """The explained targets of several inputs.

    Calling it with the outputs of a forward pass gives the explained values. The first call settles what is
    explained: a target of None becomes the class that the model predicts, or the default of the model's head.

    Args:
        targets: for each input the number of its class, a bound target, or None for what the model predicts.
        model: the unwrapped model; its configuration names the classes.
        head: reads the outputs; None for the registered output head that accepts them.
        inputs: that are run, in order; needed for bound targets and for the defaults of heads that are not classifiers.
        runner: runs the model; needed in the same cases.

    Attributes:
        explained: what is explained for each input; None before the first call.
        bound: for each input its settled bound target; None for classes, and before the first call.
    """

    def __init__(
        self,
        targets: Sequence[int | BoundTarget | None],
        model: nn.Module,
        *,
        head: OutputHead | None = None,
        inputs: Sequence[EncodedInput] | None = None,
        runner: EncoderRunner | None = None,
    ) -> None:
        self.targets, self.model, self.head = tuple(targets), model, head
        self.inputs, self.runner = None if inputs is None else tuple(inputs), runner
        self.explained: tuple[ExplainedTarget, ...] | None = None
        self.bound: tuple[BoundTarget, ...] | None = None

    def __len__(self) -> int:
        """Number of inputs."""
        return len(self.targets)

    @property
    def is_function(self) -> bool:
        """Whether a function of the caller is explained instead of a class."""
        return isinstance(self.head, Function)

    @property
    def reads_rows(self) -> bool:
        """Whether one of the inputs has a bound target: then all are read row by row."""
        return any(not isinstance(target, int) and target is not None for target in self.targets)

    @property
    def alone(self) -> bool:
        """Whether inputs are run one at a time: for functions, and where targets have changed the inputs."""
        if self.is_function:
            return True
        lengths = [{k: len(v) for k, v in one.tensors.items() if k.startswith("decoder_")} for one in self._all]
        return any(one != lengths[0] for one in lengths)

    @property
    def _all(self) -> tuple[EncodedInput, ...]:
        return self.inputs or ()

    def anchors(self, index: int) -> tuple[int, ...]:
        """Tokens of an input whose outputs are read: they stay where tokens are removed. () before the first call."""
        return () if self.bound is None else self.bound[index].anchors

    def call(self, index: int) -> str | None:
        """The target of an input as a string; None for what no string writes: classes, functions, embeddings.

        Before the first call it is None, too.
        """
        return None if self.bound is None else self.bound[index].call

    def __call__(self, outputs: object) -> Tensor:
        """(batch,) float64 explained values, connected to the outputs by gradients.

        Raises:
            InvalidInputError: outputs that no output head reads, targets they do not have, or values not finite.
        """
        return self.read(outputs).values

    def read(self, outputs: object) -> HeadReading:
        """The values with their names, probabilities and the model's predictions; see `__call__`."""
        reading = self._read_rows(outputs) if self.reads_rows else self._read_classes(outputs)
        if not bool(torch.isfinite(reading.values.detach()).all()):
            if self.is_function and all(bool(one.isfinite().all()) for one in output_tensors(outputs)):
                raise InvalidInputError(
                    "target: the value of the function is not finite, though the outputs of the model are: it divides "
                    "by zero, or takes a logarithm or a root of a number that has none."
                )
            raise InvalidInputError(f"model: the explained value is not finite. {nonfinite_reason(self.model)}")
        if self.explained is None:
            self.explained = reading.explained
        return reading

    def is_linear(self, outputs: object) -> bool:
        """Whether the value of each input is a linear function of its logits, as that of a class is."""
        config = getattr(self.model, "config", None)
        logits = None if self.reads_rows else find_logits(outputs, config)
        if logits is None or self._is_no_class(logits):
            return False
        head = find_output_head(outputs, config) if self.head is None else self.head
        return bool(getattr(head, "is_linear", False))

    def select(self, inputs: Sequence[int], variants: Sequence[EncodedInput] | None = None) -> Target:
        """The target of these inputs, by their positions; positions may repeat. Settled classes stay settled.

        Args:
            inputs: positions.
            variants: the variant that is run instead of each of these inputs.
        """
        run = variants if variants is not None else None if self.inputs is None else [self.inputs[i] for i in inputs]
        kept: Sequence[int | BoundTarget | None] = self.targets if self.bound is None else self.bound
        if self.bound is None and self.explained is not None:
            kept = [one.target for one in self.explained]
        selected = Target([kept[i] for i in inputs], self.model, head=self.head, inputs=run, runner=self.runner)
        if self.explained is not None:
            selected.explained = tuple(self.explained[i] for i in inputs)
        if self.bound is not None:
            selected.bound = tuple(self.bound[i] for i in inputs)
        return selected

    def settled(self) -> Target:
        """The same target with the classes that were explained, so that further passes follow the same classes."""
        return self.select(range(len(self)))

    def unsettled(self) -> Target:
        """The same target, to be settled again by its next outputs."""
        return Target(self.targets, self.model, head=self.head, inputs=self.inputs, runner=self.runner)

    def _read_classes(self, outputs: object) -> HeadReading:
        config = getattr(self.model, "config", None)
        head = find_output_head(outputs, config) if self.head is None else self.head
        logits = find_logits(outputs, config)
        if self.head is None and (head is None or (logits is not None and self._is_no_class(logits))):
            self.targets = self._defaults(outputs)
            return self._read_rows(outputs)
        assert head is not None
        if self.head is None and logits is not None and not bool(torch.isfinite(logits.detach()).all()):
            raise InvalidInputError(f"model: the logits are not finite. {nonfinite_reason(self.model)}")
        if isinstance(head, Function) and self.inputs is not None:
            head = head.of_input(self.inputs[0])
        return head.read(outputs, [target if isinstance(target, int) else None for target in self.targets], config)

    def _is_no_class(self, logits: Tensor) -> bool:
        """Whether 2-dimensional logits are not classes: of other rows than the inputs, or one for each token."""
        labels = len(label_names(getattr(self.model, "config", None)))
        longest = max((one.token_count for one in self._all), default=0)
        return logits.shape[0] != len(self) or (logits.shape[1] == longest != labels > 0)

    def _read_rows(self, outputs: object) -> HeadReading:
        assert self.runner is not None
        assert self.inputs is not None
        rows = [OutputRow(outputs, i, one) for i, one in enumerate(self.inputs)]
        if self.bound is None:
            self.bound = tuple(
                self._as_bound(target, row).settle(row) for target, row in zip(self.targets, rows, strict=True)
            )
        readings = [one.read(row) for one, row in zip(self.bound, rows, strict=True)]
        predictions = [reading.prediction for reading in readings]
        return HeadReading(
            torch.stack([reading.value for reading in readings]),
            tuple(reading.explained for reading in readings),
            None if None in predictions else tuple(number for number in predictions if number is not None),
        )

    def _as_bound(self, target: int | BoundTarget | None, row: OutputRow) -> BoundTarget:
        if target is None or isinstance(target, int):
            assert self.runner is not None
            return BoundClass(row.one, self.runner, target)
        return target

    def _defaults(self, outputs: object) -> tuple[BoundTarget, ...]:
        """The target that the head of the model calls for, of each input.

        Raises:
            InvalidInputError: a class was requested, or no default can be determined with certainty.
        """
        kind = None if self.runner is None or self.inputs is None else default_target(outputs, self.runner)
        if kind is None or any(target is not None for target in self.targets):
            raise self._unreadable(outputs)
        assert self.runner is not None
        return tuple(kind.bind(one, self.runner) for one in self._all)

    def settle_without_class(self) -> None:
        """Mark that no class is explained: for scores that do not depend on a class."""
        self.explained = (NO_CLASS,) * len(self)

    def _unreadable(self, outputs: object) -> InvalidInputError:
        logits = getattr(outputs, "logits", outputs if isinstance(outputs, Tensor) else None)
        if logits is None and isinstance(outputs, tuple | list) and outputs:
            logits = outputs[0]
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else "none"
        use = "" if self.runner is None else use_of_head(self.runner)
        return NothingToExplainError(
            f"target: {type(self.model).__name__} has no class logits of shape (batch, classes) (logits: {shape}). "
            f"{use}{'Or load' if use else 'Load'} it with a classification head (AutoModelForSequenceClassification), "
            f"{TARGET_FUNCTION}, or one of hf_attn_mi.targets: {SUMMARY}."
        )


def read_target(
    target: Any,
    runner: EncoderRunner,
    inputs: Sequence[EncodedInput],
    *,
    places: Sequence[int] | None = None,
    count: int | None = None,
) -> tuple[Target, list[EncodedInput]]:
    """The `Target` of some inputs, from what a caller passes as `target=`, and the inputs to run.

    Args:
        target: None (what the model predicts), a class number, a label name, a target of `hf_attn_mi.targets` or a
            string that calls one, one of these for each input, or a function from the model's outputs (or the outputs
            and the `EncodedInput`) to (batch,) values.
        runner: runs the model.
        inputs: the encoded inputs.
        places: the index of each of them among the caller's inputs; None for all, in order.
        count: the number of inputs that the caller passed.

    Returns:
        The target, and the inputs, which some targets change (what a decoder writes).

    Raises:
        InvalidInputError: unknown label, number out of range, not one target for each input, or a target that does not
            fit an input.
    """
    model, head = runner.model, runner.output_head
    places = range(len(inputs)) if places is None else places
    count = len(inputs) if count is None else count
    if isinstance(target, type) and hasattr(target, "kind"):
        raise InvalidInputError(f"target is the class of {target.kind!r}; call it: targets.{target.kind}(...).")
    if callable(target) and not isinstance(target, TargetKind):
        function = Function(target, with_input=_takes_input(target))
        return Target([None] * len(inputs), model, head=function, inputs=inputs, runner=runner), list(inputs)
    target = plain_values(target, "target")  # target may be a tensor, an array, or a number of one of them
    if isinstance(target, Sequence) and not isinstance(target, str):
        if len(target) != count:
            raise InvalidInputError(
                f"target has {len(target)} entries for {count} inputs; pass one for each, or one for all "
                "(several targets of one input: targets=[...])."
            )
        items = [target[place] for place in places]
    else:
        items = [target] * len(inputs)
    bound = [_bind(item, runner, one) for item, one in zip(items, inputs)]
    run = [one if item is None or isinstance(item, int) else item.one for item, one in zip(bound, inputs)]
    return Target(bound, model, head=head, inputs=run, runner=runner), run


def zero_shot(target: Any, candidate_labels: Any, runner: EncoderRunner) -> Any:
    """The target of zero-shot classification among these labels; `target` itself without labels.

    Template and `multi_label` are those of the pipeline, where the model is one.

    Args:
        target: None for the best label, or one of the labels, by name or number.
        candidate_labels: a list of labels or a text with commas between them; None for no zero-shot classification.
        runner: runs a model of natural language inference.

    Raises:
        InvalidInputError: there are no labels, or the target is not one of them.
    """
    if candidate_labels is None:
        return target
    settings = getattr(runner.source, "_preprocess_params", {})
    multi_label = getattr(runner.source, "_postprocess_params", {}).get("multi_label", False)
    best = parse_target(
        zero_shot_target(candidate_labels, settings.get("hypothesis_template", HYPOTHESIS), multi_label)
    )
    assert isinstance(best, Entails)
    if isinstance(target, int) and not isinstance(target, bool) and 0 <= target < len(best.among):
        target = best.among[target]
    if target is not None and target not in best.among:
        raise InvalidInputError(
            f"target {shown(target)} is none of the candidate labels {list(best.among)}; pass one of them."
        )
    return replace(best, label=target)


def _bind(item: Any, runner: EncoderRunner, one: EncodedInput) -> int | BoundTarget | None:
    """A class number, None, or the target of this input."""
    if one.alternatives and (item is None or type(item) is int):
        return Choice(item).bind(one, runner)
    if item is None:
        if runner.default_target is None:
            return None
        item = runner.default_target
    names = label_names(runner.config)
    if isinstance(item, str) and item not in names.values() and looks_like_call(item):
        item = parse_target(item)
    if isinstance(item, TargetKind):
        check_head(item, runner)
    if isinstance(item, Label):
        refuse_regression("label", runner)
        item = item.name
    if isinstance(item, TargetKind):
        return item.bind(one, runner)
    if not isinstance(item, str) and (isinstance(item, bool) or not isinstance(item, int)):
        raise InvalidInputError(
            "target must be None (the predicted class), a class number, a label name, a target of hf_attn_mi.targets, "
            f"a list of these or a function; not {type(item).__name__}: {shown(item)}."
        )
    return label_number(item, runner.config, use_of_word(item, runner))


def _takes_input(function: Callable[..., Any]) -> bool:
    """Whether a function takes the encoded input beside the outputs: it has two arguments without a default."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is inspect.Parameter.empty for p in parameters) == 2
