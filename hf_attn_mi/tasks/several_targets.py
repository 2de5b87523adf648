"""Several targets of each input: which they are, and their explanations from one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.models.encoded_input import EncodedInput, EncodedInputs
from hf_attn_mi.models.output_heads import find_logits, find_output_head
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.target_kinds.alternatives import BoundAlternative, Choice, Entails
from hf_attn_mi.models.target_kinds.base import BoundTarget, OutputRow, TargetKind
from hf_attn_mi.models.target_kinds.defaults import default_target
from hf_attn_mi.models.target_kinds.pipeline_entity import PipelineEntity, pipeline_entities
from hf_attn_mi.models.target_kinds.registry import parse_target
from hf_attn_mi.models.target_kinds.token import Token, predicted_entities
from hf_attn_mi.models.targets import Target, zero_shot
from hf_attn_mi.results.record import Record
from hf_attn_mi.results.results import Results
from hf_attn_mi.tasks.each_input import bind_targets, results_of_each

AnyRecord = TypeVar("AnyRecord", bound=Record)

ALL = "all"
PREDICTION = "the prediction"  # a target of None in words


@dataclass(frozen=True, eq=False)
class TargetPlan:
    """The targets of each input.

    Attributes:
        inputs: the inputs as they were passed.
        targets: the k-th target of every input; inputs with fewer have their first one again.
        counts: the number of targets of each input.
    """

    inputs: tuple[EncodedInput, ...]
    targets: tuple[Target, ...]
    counts: tuple[int, ...]

    @property
    def shares_inputs(self) -> bool:
        """Whether every target reads the outputs of the inputs as they were passed."""
        kept = (target.inputs or () for target in self.targets)
        return all(one is by_place for inputs in kept for one, by_place in zip(inputs, self.inputs, strict=True))

    @property
    def alone(self) -> bool:
        """Whether inputs are run one at a time."""
        return any(target.alone for target in self.targets)

    def of(self, positions: Sequence[int]) -> list[Target]:
        """The targets of these inputs, as many as the one with the most of them has."""
        most = max(self.counts[i] for i in positions)
        return [target.select(positions) for target in self.targets[:most]]

    def rows(self, positions: Sequence[int]) -> tuple[list[tuple[int, int]], Target]:
        """(place in `positions`, number of the target) of every target of these inputs, and one target for all rows."""
        pairs = [(place, k) for place, i in enumerate(positions) for k in range(self.counts[i])]
        first = self.targets[0]
        chosen = [(self.targets[k], positions[place]) for place, k in pairs]
        inputs = [(target.inputs or ())[i] for target, i in chosen]
        items = [target.targets[i] for target, i in chosen]
        return pairs, Target(items, first.model, head=first.head, inputs=inputs, runner=first.runner)


def list_of_targets(targets: object, *, of_each_input: bool = False) -> list[Any] | None:
    """The items of the argument `targets`; None for "all".

    Args:
        targets: see `plan_targets`.
        of_each_input: whether an item may be a list.

    Raises:
        InvalidInputError: not a list, an empty list, or a list that holds a list.
    """
    if isinstance(targets, str) and targets == ALL:
        return None
    if not isinstance(targets, list | tuple) or not targets:
        raise InvalidInputError(f"targets must be a list of one or more targets, or 'all', not {shown(targets)}.")
    for item in targets:  # a list among them would be read as one target for each input
        if isinstance(item, list | tuple) and not of_each_input:
            raise InvalidInputError(
                f"targets holds a {type(item).__name__}; pass single targets, each is for every input."
            )
    return list(targets)


def plan_targets(
    targets: Any,
    candidate_labels: Any,
    runner: EncoderRunner,
    encoded: EncodedInputs,
    *,
    errors: str,
    of_each_input: bool = False,
) -> tuple[TargetPlan, EncodedInputs]:
    """The targets of each input, and the inputs that they fit.

    Args:
        targets: a list of targets, each as `read_target` takes it for one input, or "all".
        candidate_labels: the labels of zero-shot classification; None without it.
        runner: runs the model.
        encoded: the inputs.
        errors: "raise", or "skip" for inputs that one of the targets does not fit.
        of_each_input: items of the list may be lists, with one target for each input.

    Raises:
        InvalidInputError: not a list, an empty list, or a model for which "all" has no meaning.
    """
    listed = list_of_targets(targets, of_each_input=of_each_input)
    if listed is None:
        return _plan_all(candidate_labels, runner, encoded), encoded
    items = [zero_shot(item, candidate_labels, runner) for item in listed]
    by_place = dict(zip(encoded.places, encoded.inputs))
    for item in items:  # an input that one of the targets does not fit has no place among the others
        _, bound = bind_targets(item, runner, encoded, errors=errors)
        encoded = replace(bound, inputs=[by_place[place] for place in bound.places])
    bound_targets = [bind_targets(item, runner, encoded, errors=errors)[0] for item in items]
    plan = TargetPlan(tuple(encoded.inputs), tuple(bound_targets), (len(bound_targets),) * len(encoded.inputs))
    if not plan.shares_inputs and any(target.is_function for target in bound_targets):
        raise InvalidInputError(
            "targets: functions cannot be combined with targets that change the input; explain them in separate calls."
        )
    return plan, encoded


def targets_of_all_inputs(targets: Any, runner: EncoderRunner, encoded: EncodedInputs) -> list[tuple[object, Target]]:
    """(what the caller wrote, the target of all inputs) for each of several targets that all inputs share.

    Args:
        targets: as in `plan_targets`; an item of None is the prediction.
        runner: runs the model.
        encoded: the inputs.

    Raises:
        InvalidInputError: as `plan_targets`, or "all" for a model whose inputs have targets of their own.
    """
    plan, _ = plan_targets(targets, None, runner, encoded, errors="raise")
    listed = list_of_targets(targets)
    if listed is not None:
        return [(PREDICTION if item is None else item, one) for item, one in zip(listed, plan.targets)]
    shared = all(isinstance(item, int) for one in plan.targets for item in one.targets)
    zero_shot_labels = len(set(plan.counts)) == 1 and not any(one.alternatives for one in encoded.inputs)
    alternatives = all(isinstance(item, BoundAlternative) for one in plan.targets for item in one.targets)
    if not plan.targets or not (shared or (alternatives and zero_shot_labels)):
        raise InvalidInputError(
            "targets='all': the entities or choices of one input are not those of another, so that no comparison over "
            "all inputs belongs to one of them. Pass target=None for the best of each input, or a list of targets."
        )
    return [(ALL, one) for one in plan.targets]


def results_of_targets(
    targets: Any,
    runner: EncoderRunner,
    encoded: EncodedInputs,
    run: Callable[[EncodedInput, Target, int], AnyRecord],
    *,
    errors: str,
    task: str,
) -> Results[AnyRecord]:
    """The results of every target of each input, for tasks that run one input and target at a time.

    They are in the order of the inputs, and for each input in that of its targets; `info["input"]` is the number of the
    input.

    Args:
        targets: as in `plan_targets`.
        runner: runs the model.
        encoded: the inputs.
        run: returns the result of one input, its target, and its index among the caller's inputs.
        errors: "raise" or "skip".
        task: the name of the task, for the progress bar.
    """
    plan, encoded = plan_targets(targets, None, runner, encoded, errors=errors)

    def several(positions: list[int]) -> list[list[AnyRecord]]:
        bound_targets: list[list[AnyRecord]] = []
        for i in positions:
            chosen = [plan.targets[k].select([i]) for k in range(plan.counts[i])]
            records: list[Any] = [run((one.inputs or ())[0], one, encoded.places[i]) for one in chosen]
            bound_targets.append([replace(one, info={**one.info, "input": encoded.places[i]}) for one in records])
        return bound_targets

    return results_of_each(encoded, [[i] for i in range(len(encoded.inputs))], several, errors=errors, task=task)


def refuse_target_and_targets(target: object, targets: object) -> None:
    """Raise `InvalidInputError` where both are passed."""
    if target is not None and targets is not None:
        raise InvalidInputError("target and targets: pass one of them.")


def refuse_functions(target: object, targets: object, result: str) -> None:
    """Raise `InvalidInputError` where a target is a function, for results that need a probability."""
    named = targets if isinstance(targets, list | tuple) else [target]
    if any(callable(one) and not isinstance(one, TargetKind) for one in named):
        raise InvalidInputError(f"target is a function; {result} is defined for a class: pass its number or name.")


def _plan_all(candidate_labels: Any, runner: EncoderRunner, encoded: EncodedInputs) -> TargetPlan:
    """Every label, every choice or every entity of each input."""
    inputs = encoded.inputs
    kind = zero_shot(None, candidate_labels, runner)
    if kind is None and runner.default_target is not None:
        kind = parse_target(runner.default_target)
    rows: list[list[int | BoundTarget]]
    if isinstance(kind, Entails):
        rows = [list(kind.every(one, runner)) for one in inputs]
    elif any(one.alternatives for one in inputs):
        rows = [list(Choice().every(one, runner)) for one in inputs]
    else:
        rows = _of_outputs(kind, runner, inputs)
    most, targets = max(map(len, rows), default=0), []
    for k in range(most):
        items = [row[k] if k < len(row) else row[0] if row else None for row in rows]
        run = [item.one if not isinstance(item, int) and item is not None else one for item, one in zip(items, inputs)]
        targets.append(Target(items, runner.model, head=runner.output_head, inputs=run, runner=runner))
    return TargetPlan(tuple(inputs), tuple(targets), tuple(map(len, rows)))


def _of_outputs(kind: Any, runner: EncoderRunner, inputs: Sequence[EncodedInput]) -> list[list[int | BoundTarget]]:
    """Every class, or every entity that the model predicts.

    Raises:
        InvalidInputError: the model has another task.
    """
    rows: dict[int, list[int | BoundTarget]] = {}
    with runner.session(), torch.no_grad():
        batches = runner.batches(inputs[1:], len(inputs))
        for places in [[0], *([i + 1 for i in batch] for batch in batches)]:  # classes are known after the first input
            outputs = runner.forward(runner.collate([inputs[i] for i in places]))
            logits = find_logits(outputs, runner.config)
            if logits is not None and find_output_head(outputs, runner.config) is not None:
                return [list(range(logits.shape[1])) for _ in inputs]
            find = pipeline_entities if isinstance(kind, PipelineEntity) else predicted_entities
            if find is predicted_entities and not isinstance(default_target(outputs, runner), Token):
                raise InvalidInputError(
                    f"targets='all' stands for all labels, choices or entities; {runner.class_name} has none of them. "
                    "Pass a list of targets."
                )
            for row, i in enumerate(places):
                rows[i] = [*sorted(find(OutputRow(outputs, row, inputs[i]), runner), key=lambda entity: entity.anchors)]
    return [rows[i] for i in range(len(inputs))]
