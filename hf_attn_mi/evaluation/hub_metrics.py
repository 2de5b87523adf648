"""The metrics as `evaluate.Metric` objects and as scripts for `evaluate.load`, without a download."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.evaluation.faithfulness import METRICS
from hf_attn_mi.evaluation.plausibility import auprc, average_precision, iou_f1, spans, token_f1
from hf_attn_mi.evaluation.statistics import estimate

Result = dict[str, Any]
SCRIPTS = Path(__file__).parent / "scripts"  # a folder with a script of its name for each metric


@dataclass(frozen=True)
class _Definition:
    """The inputs of a metric and the function that computes it."""

    inputs: str  # description of predictions and references
    prediction: str  # Arrow type of the items of a prediction
    reference: str  # Arrow type of the items of a reference
    compute: Callable[[list[Any], list[Any]], Result]


def hub_metric(name: str) -> Any:
    """Return an `evaluate.Metric` for `compute`, `add_batch` and `evaluate.combine`. Nothing is downloaded.

    Plausibility ("token_f1", "iou_f1", "auprc", "average_precision"): predictions are chosen tokens (0 or 1) or scores
    of each text, references its rationale (0 or 1), as in `token_f1`, `iou_f1` (spans are runs of ones), `auprc`,
    `average_precision`. "comprehensiveness" and "sufficiency": predictions are for each text the probabilities of the
    explained class after removing (or keeping) the tokens of each bin, references its probability on the full text.
    "deletion_area" and "insertion_area": predictions are the probabilities after each of equally large steps,
    references the probability on the full text, which must be the first (last) of them.

    Returns:
        The metric; `compute` gives the name's value (None if undefined), for means over texts with `_interval`
        (95 %, bootstrap) and `_inputs`.

    Raises:
        InvalidInputError: another name.

    Example:
        >>> metric = hub_metric("auprc")
        >>> metric.compute(predictions=[[0.9, 0.5, 0.1]], references=[[1, 0, 0]])["auprc"]
        1.0
    """
    return metric_class(name)(keep_in_memory=True)


def hub_metric_path(name: str) -> str:
    """Return the path of the metric for `evaluate.load` and `evaluate.combine`, which take no objects.

    Raises:
        InvalidInputError: another name than those of `hub_metric`.

    Example:
        >>> import evaluate                                                            # doctest: +SKIP
        >>> metric = evaluate.load(hub_metric_path("comprehensiveness"))               # doctest: +SKIP
        >>> metric.compute(predictions=[[0.5, 0.25]], references=[0.875])["comprehensiveness"]     # doctest: +SKIP
        0.5
    """
    _refuse_unknown(name)
    return str(SCRIPTS / name)


def metric_class(name: str) -> Any:
    """Return the subclass of `evaluate.Metric` of one metric.

    Raises:
        InvalidInputError: another name than those of `hub_metric`.
    """
    _refuse_unknown(name)
    import datasets
    import evaluate

    definition, metric = _DEFINITIONS[name], METRICS[name]
    better = "Higher" if metric.higher else "Lower"
    reference: Any = datasets.Value(definition.reference)
    features = datasets.Features(
        predictions=datasets.Sequence(datasets.Value(definition.prediction)),
        references=reference if definition.reference == "float64" else datasets.Sequence(reference),
    )

    class HubMetric(evaluate.Metric):  # type: ignore[misc]
        """One entry of `_DEFINITIONS`."""

        def _info(self) -> Any:
            return evaluate.MetricInfo(
                description=f"{metric.title}. {better} is better.",
                citation=metric.source,
                inputs_description=definition.inputs,
                features=features,
            )

        def _compute(self, predictions: list[Any], references: list[Any]) -> Result:
            return definition.compute(predictions, references)

    HubMetric.__name__ = HubMetric.__qualname__ = name  # `evaluate` shows the class name
    return HubMetric


def _refuse_unknown(name: str) -> None:
    if not isinstance(name, str) or name not in _DEFINITIONS:
        raise InvalidInputError(f"there is no metric {shown(name)}; there are {', '.join(_DEFINITIONS)}.")


def _tensors(rows: Sequence[Sequence[float]]) -> list[Tensor]:
    return [torch.tensor(row) for row in rows]


def _floats(rows: Sequence[Sequence[float]]) -> list[Tensor]:
    return [torch.tensor(row, dtype=torch.float64) for row in rows]


def _token_f1(predictions: list[Any], references: list[Any]) -> Result:
    result = token_f1(_tensors(references), _tensors(predictions))
    return {"token_f1": result.macro.f1, **asdict(result)}


def _iou_f1(predictions: list[Any], references: list[Any]) -> Result:
    result = iou_f1(*([spans(mask) for mask in _tensors(side)] for side in (references, predictions)))
    return {"iou_f1": result.macro.f1, **asdict(result)}


def _auprc(predictions: list[Any], references: list[Any]) -> Result:
    return _mean("auprc", auprc(_tensors(references), _floats(predictions)).values)


def _average_precision(predictions: list[Any], references: list[Any]) -> Result:
    return _mean("average_precision", average_precision(_tensors(references), _floats(predictions)).values)


def _mean(name: str, values: Sequence[float | None]) -> Result:
    result = estimate(values)
    return {name: result.mean, f"{name}_interval": result.interval, f"{name}_inputs": result.inputs}


def _mean_fall(name: str) -> Callable[[list[Any], list[Any]], Result]:
    def compute(predictions: list[Any], references: list[Any]) -> Result:
        falls = [full - sum(after) / len(after) if after else None for after, full in zip(predictions, references)]
        return _mean(name, falls)

    return compute


def _area(name: str, full_at: int) -> Callable[[list[Any], list[Any]], Result]:
    def compute(predictions: list[Any], references: list[Any]) -> Result:
        areas: list[float | None] = []
        for index, (curve, full) in enumerate(zip(predictions, references)):
            if len(curve) > 1 and abs(curve[full_at] - full) > 1e-6:
                raise InvalidInputError(
                    f"predictions[{index}][{full_at}] is {curve[full_at]}, not the reference {full}."
                )
            heights = torch.tensor(curve, dtype=torch.float64)
            areas.append(float(torch.trapezoid(heights)) / (len(curve) - 1) if len(curve) > 1 else None)
        return _mean(name, areas)

    return compute


_CHOSEN = "predictions and references: 0 or 1 for each token"
_SCORED = "predictions: scores; references: 0 or 1 for each token"
_BINS = "predictions: probabilities of each bin; references: probability of the full text"
_CURVE = "predictions: probabilities after each step; references: probability of the full text"
_DEFINITIONS = {
    "token_f1": _Definition(_CHOSEN, "int64", "int64", _token_f1),
    "iou_f1": _Definition(_CHOSEN, "int64", "int64", _iou_f1),
    "auprc": _Definition(_SCORED, "float64", "int64", _auprc),
    "average_precision": _Definition(_SCORED, "float64", "int64", _average_precision),
    "comprehensiveness": _Definition(_BINS, "float64", "float64", _mean_fall("comprehensiveness")),
    "sufficiency": _Definition(_BINS, "float64", "float64", _mean_fall("sufficiency")),
    "deletion_area": _Definition(_CURVE, "float64", "float64", _area("deletion_area", 0)),
    "insertion_area": _Definition(_CURVE, "float64", "float64", _area("insertion_area", -1)),
}
