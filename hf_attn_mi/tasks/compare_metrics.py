"""Compute the metrics of every method on every input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.evaluation import (
    FAITHFULNESS,
    MetricInputs,
    Probabilities,
    aopc,
    aopc_limits,
    auprc,
    average_precision,
    faithfulness,
    faithfulness_sets,
    iou_f1,
    spans,
    token_f1,
    top_tokens,
)
from hf_attn_mi.models.encoded_input import ORIGIN, EncodedInput
from hf_attn_mi.models.removal_predictor import RemovalPredictor
from hf_attn_mi.models.runner import EncoderRunner

PLAUSIBILITY = ("token_f1", "iou_f1", "auprc", "average_precision")
OWN = ("completeness_gap", "max_sensitivity")  # metrics of the method, not of its scores
NORMALIZED = ("normalized_aopc", "normalized_aopc_ascending")
MOST_ORDERED = 40  # tokens of an input whose AOPC is normalized: the search for its limits makes 5 n^2 predictions

Scores = Mapping[str, Sequence[Tensor | None]]  # for each method one (tokens,) tensor per input
Values = dict[str, dict[str, list[float | None]]]


class ComparedInputs:
    """The inputs of `compare` with tokens removed, as the metrics ask for them.

    Args:
        predictor: runs the model; its inputs are the whole ones, with special tokens known.
        removal: how tokens are removed; see `remove_tokens`.
        mask_id: the id of the mask token, for removal="mask".

    Raises:
        InvalidInputError: inputs without token ids, or whose special tokens are not known.
    """

    def __init__(self, predictor: RemovalPredictor, removal: str, mask_id: int | None) -> None:
        self.predictor, self.removal, self.mask_id = predictor, removal, mask_id
        for i, one in enumerate(predictor.inputs):
            _refuse_without_ids(one, i)
        free = [(~fixed).nonzero()[:, 0].tolist() for fixed in self.fixed_tokens()]
        predictor.try_shortened(free)
        predictor.settle(predictor.predict(list(enumerate(predictor.inputs))))

    def __len__(self) -> int:
        """Number of inputs."""
        return len(self.predictor.inputs)

    def fixed_tokens(self) -> list[Tensor]:
        """For each input (tokens,) bool: special tokens, those whose output is explained, and those that are masked."""
        masks = []
        for i, one in enumerate(self.predictor.inputs):
            fixed = torch.tensor(one.special)
            fixed[list(self.predictor.target.anchors(i))] = True
            if "attention_mask" in one.tensors:
                fixed = fixed | (one.tensors["attention_mask"].cpu() == 0)
            masks.append(fixed)
        return masks

    def probabilities(self, index: int) -> Probabilities:
        """The probabilities of this input, to be shared by all methods and metrics."""
        one = self.predictor.inputs[index]
        example = {**one.tensors, ORIGIN: torch.arange(one.token_count)}  # cut like every other per-token tensor

        def variant(version: dict[str, Tensor]) -> EncodedInput:
            tensors = dict(version)
            origin = tuple(tensors.pop(ORIGIN).tolist())
            return replace(one, tensors=tensors, length=len(origin), origin=origin)

        def predict(versions: Sequence[dict[str, Tensor]]) -> Tensor:
            variants = [variant(version) for version in versions]
            predictions = self.predictor.predict([(index, variant) for variant in variants])
            return torch.tensor([prediction.value for prediction in predictions], dtype=torch.float64)

        fixed = torch.tensor(one.special)
        fixed[list(self.predictor.target.anchors(index))] = True
        return Probabilities(predict, example, fixed, removal=self.removal, mask_id=self.mask_id)


def _refuse_without_ids(one: EncodedInput, index: int) -> None:
    if one.length is None:
        raise InvalidInputError(
            f"inputs[{index}] has {', '.join(one.tensors)}: the metrics of compare remove tokens from texts. For "
            "images and audio, minimal_tokens finds patches and moments that carry the prediction, and checks "
            "them by running the model."
        )
    if "input_ids" not in one.tensors:
        raise InvalidInputError(
            f"inputs[{index}] has {', '.join(one.tensors)}: tokens are removed by their ids. Pass texts, or input_ids "
            "and tokenizer=..."
        )
    if one.special is None:
        raise InvalidInputError(
            f"inputs[{index}]: which of its tokens are special is not known. Pass texts, or input_ids and tokenizer=..."
        )
    mask = one.tensors.get("attention_mask")
    if mask is not None and mask.dim() != 1:
        raise InvalidInputError(
            "inputs['attention_mask'] must be (batch, tokens) where tokens are removed, not "
            f"{mask.dim() + 1}-dimensional."
        )


def refuse_mask_removal(runner: EncoderRunner, removal: str) -> None:
    """Raise `InvalidInputError` if tokens are removed by a mask that the model does not take."""
    if removal == "attention_mask" and not runner.takes("attention_mask"):
        raise InvalidInputError(
            f"removal='attention_mask': {runner.class_name}.forward has no attention_mask; use 'delete' or 'mask'."
        )


def read_metrics(metrics: Any, default: Sequence[str], rationales: bool) -> tuple[str, ...]:
    """The metrics by name, the deciding one first.

    Raises:
        InvalidInputError: names that do not exist, or metrics of rationales without any.
    """
    of_rationales = PLAUSIBILITY if rationales else ()
    if isinstance(metrics, str) and metrics == "all":
        return (*FAITHFULNESS, "completeness_gap", *of_rationales)
    names = (metrics,) if isinstance(metrics, str) else metrics
    known = (*FAITHFULNESS, *OWN, *PLAUSIBILITY)
    listed = isinstance(names, list | tuple)
    wrong = [name for name in names if not (isinstance(name, str) and name in known)] if listed else names
    if not listed or not names or wrong:
        raise InvalidInputError(
            f"metrics: {shown(wrong)} is not known; allowed are 'all' or some of {', '.join(known)}."
        )
    if len(set(names)) < len(names):
        raise InvalidInputError(f"metrics names one twice: {shown(list(names))}.")
    if not rationales and (refused := [name for name in names if name in PLAUSIBILITY]):
        raise InvalidInputError(f"metrics {refused} need human rationales: pass rationales=..., or leave them out.")
    return (*default, *of_rationales) if tuple(names) == tuple(default) else tuple(names)


@dataclass(frozen=True)
class Measured:
    """The metrics of FAITHFULNESS.

    Attributes:
        values: for each method and metric one number per input; None for inputs that were not measured.
        count: the number of inputs that were measured: the first ones.
        interrupt: Ctrl-C, if it came before the last one.
    """

    values: Values
    count: int
    interrupt: KeyboardInterrupt | None = None


def faithfulness_values(
    metric_inputs: ComparedInputs,
    scores: Scores,
    metrics: Sequence[str],
    *,
    by: str,
    seed: int,
    advance: Callable[[int], Any],
) -> Measured:
    """The metrics of FAITHFULNESS among these: one input after another, its predictions shared by all methods."""
    chosen_metrics = [name for name in metrics if name in FAITHFULNESS]
    rows: list[dict[str, dict[str, float | None]]] = []
    interrupt: KeyboardInterrupt | None = None
    try:
        for i in range(len(metric_inputs) if chosen_metrics else 0):
            of_input = {method: column[i] for method, column in scores.items()}
            rows.append(_of_input(metric_inputs.probabilities(i), of_input, chosen_metrics, by, seed))
            advance(1)
    except KeyboardInterrupt as stop:
        interrupt = stop
    missing: list[float | None] = [None] * (len(metric_inputs) - len(rows))
    values: Values = {
        method: {name: [*(row[method][name] for row in rows), *missing] for name in chosen_metrics} for method in scores
    }
    return Measured(values, len(rows) if chosen_metrics else len(metric_inputs), interrupt)


def _of_input(
    probabilities: Probabilities, scores: Mapping[str, Tensor | None], metrics: Sequence[str], by: str, seed: int
) -> dict[str, dict[str, float | None]]:
    removal_inputs = {
        name: MetricInputs(probabilities, one, by, seed=seed) for name, one in scores.items() if one is not None
    }
    probabilities.removed(
        [positions for one in removal_inputs.values() for positions in faithfulness_sets(one, metrics)]
    )
    limits = None
    if len(probabilities.tokens) <= MOST_ORDERED and any(name in NORMALIZED for name in metrics):
        limits = aopc_limits(probabilities)
        if limits is not None:
            probabilities.removed([s for one in removal_inputs.values() for s in one.curve_sets()])
            ways = [(one, ascending) for one in removal_inputs.values() for ascending in (False, True)]
            limits = limits.widened(
                [aopc(probabilities, one.scores, by=by, ascending=reverse) for one, reverse in ways]
            )
    nothing: dict[str, float | None] = dict.fromkeys(metrics)
    return {
        name: nothing
        if one is None
        else faithfulness(probabilities, one, metrics=metrics, by=by, limits=limits, seed=seed)
        for name, one in scores.items()
    }


@dataclass(frozen=True)
class Plausible:
    """Agreement with human rationales.

    Attributes:
        values: for each metric one number per input.
        pooled: ERASER's own averages of token and IoU F1, which are not means over inputs.
    """

    values: dict[str, list[float | None]]
    pooled: dict[str, dict[str, float | None]]


def plausibility_values(
    scores: Sequence[Tensor | None], truths: Sequence[Tensor | None], special: Sequence[Tensor], *, by: str
) -> Plausible:
    """The metrics of PLAUSIBILITY of one method.

    Hard rationales are the ceil(share * tokens) highest scores, the share being the mean share of tokens that the human
    rationales hold, as in ERASER. Special tokens are in neither.

    Args:
        scores: (tokens,) scores of each input; None if the method failed.
        truths: (tokens,) bool of each input; None if there is no rationale.
        special: (tokens,) bool of each input.
        by: "absolute" takes magnitudes.
    """
    shares = [float(t[~s].double().mean()) for t, s in zip(truths, special) if t is not None]
    share = sum(shares) / len(shares) if shares else 0.0
    places = [i for i, (one, truth) in enumerate(zip(scores, truths)) if one is not None and truth is not None]
    values: dict[str, list[float | None]] = {name: [None] * len(scores) for name in PLAUSIBILITY}
    if not places or share == 0:
        return Plausible(values, {})
    true, soft, chosen = [], [], []
    for i in places:
        one, truth = scores[i], truths[i]
        assert one is not None
        assert truth is not None
        one = one.double().abs() if by == "absolute" else one.double()
        ordinary = (~special[i]).nonzero()[:, 0].tolist()
        chosen.append(top_tokens(one, share, tokens=ordinary))
        true.append(truth)
        soft.append(one[ordinary])
    bare = [truth[~special[i]] for i, truth in zip(places, true)]
    tokens, pieces = token_f1(true, chosen), iou_f1([spans(t) for t in true], [spans(c) for c in chosen])
    probabilities = {
        "token_f1": tokens.values,
        "iou_f1": pieces.values,
        "auprc": auprc(bare, soft).values,
        "average_precision": average_precision(bare, soft).values,
    }
    for name, column in probabilities.items():
        for i, value in zip(places, column):
            values[name][i] = value
    pooled = {
        "token_f1": {"micro": tokens.micro.f1, "macro": tokens.macro.f1},
        "iou_f1": {"micro": pieces.micro.f1, "macro": pieces.macro.f1},
    }
    return Plausible(values, pooled)


def ordinary_scores(scores: Scores, special: Sequence[Tensor]) -> dict[str, list[Tensor | None]]:
    """The scores without special tokens, for rank correlations."""
    return {
        method: [None if one is None else one[~fixed] for one, fixed in zip(column, special)]
        for method, column in scores.items()
    }


def too_long_to_normalize(metric_inputs: ComparedInputs) -> int:
    """The number of inputs with too many tokens for the limits of AOPC."""
    return sum(int((~fixed).sum()) > MOST_ORDERED for fixed in metric_inputs.fixed_tokens())
