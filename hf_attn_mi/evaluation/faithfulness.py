"""The table of metrics, and all faithfulness metrics of one method on one input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation.aopc import AopcLimits, aopc, normalized_aopc
from hf_attn_mi.evaluation.probabilities import Probabilities
from hf_attn_mi.evaluation.ranking import DECILES, ERASER_BINS
from hf_attn_mi.evaluation.removal_metrics import (
    SAMPLES,
    STEPS,
    Sets,
    complements,
    comprehensiveness,
    curve_sets,
    deletion_area,
    infidelity,
    insertion_area,
    leave_one_out_correlation,
    monotonicity,
    random_sets,
    single_sets,
    sufficiency,
    top_sets,
)


@dataclass(frozen=True)
class Metric:
    """The meaning of a metric.

    Attributes:
        title: the name in tables.
        higher: whether higher is better.
        lowest: its minimum; None if it is unbounded.
        highest: its maximum; None if it is unbounded.
        source: the paper that defines it.
    """

    title: str
    higher: bool
    lowest: float | None
    highest: float | None
    source: str


_ERASER, _EDIN = "DeYoung et al. 2020, arXiv 1911.03429", "Edin et al., arXiv 2408.08137"
METRICS = {
    "comprehensiveness": Metric("comprehensiveness (1/5/10/20/50 %)", True, -1, 1, _ERASER),
    "sufficiency": Metric("sufficiency (1/5/10/20/50 %)", False, -1, 1, _ERASER),
    "comprehensiveness_deciles": Metric("comprehensiveness (10 to 90 %)", True, -1, 1, _ERASER),
    "sufficiency_deciles": Metric("sufficiency (10 to 90 %)", False, -1, 1, _ERASER),
    "deletion_area": Metric("deletion area", False, 0, 1, "Petsiuk et al. 2018, arXiv 1806.07421"),
    "insertion_area": Metric("insertion area", True, 0, 1, "Petsiuk et al. 2018, arXiv 1806.07421"),
    "monotonicity": Metric("monotonicity", True, 0, 1, "Arya et al. 2019, arXiv 1909.03012"),
    "leave_one_out": Metric("leave-one-out tau-b", True, -1, 1, "Jain and Wallace 2019, arXiv 1902.10186"),
    "infidelity": Metric("infidelity (scaled)", False, 0, None, "Yeh et al. 2019, arXiv 1901.09392"),
    "normalized_aopc": Metric("normalized AOPC, comprehensiveness", True, 0, 1, _EDIN),
    "normalized_aopc_ascending": Metric("normalized AOPC, sufficiency", False, 0, 1, _EDIN),
    "max_sensitivity": Metric("max-sensitivity", False, 0, None, "Yeh et al. 2019, arXiv 1901.09392"),
    "completeness_gap": Metric("completeness gap", False, 0, 2, "Sundararajan et al. 2017, arXiv 1703.01365"),
    "token_f1": Metric("token F1", True, 0, 1, _ERASER),
    "iou_f1": Metric("IoU F1 at 0.5", True, 0, None, _ERASER),  # above 1 where several spans cover one rationale
    "auprc": Metric("AUPRC", True, 0, 1, _ERASER),
    "average_precision": Metric("average precision", True, 0, 1, _ERASER),
}


@dataclass(frozen=True)
class MetricInputs:
    """The input of the faithfulness metrics: one method on one input.

    Attributes:
        probabilities: the probabilities of the input.
        scores: (length of the input,).
        by: "signed" or "absolute".
        limits: the limits of AOPC on this input; None: AOPC is not normalized.
        samples: random sets for infidelity.
        seed: the random seed for these.
    """

    probabilities: Probabilities
    scores: Tensor
    by: str = "signed"
    limits: AopcLimits | None = None
    samples: int = SAMPLES
    seed: int = 0

    def top_sets(self, bins: Sequence[float]) -> Sets:
        """Return the top tokens of each bin."""
        return top_sets(self.probabilities, self.scores, bins, self.by)

    def curve_sets(self, steps: int | None = None, *, by: str | None = None) -> Sets:
        """Return what is removed after each step; token by token for None."""
        steps = len(self.probabilities.tokens) if steps is None else steps
        return curve_sets(self.probabilities, self.scores, self.by if by is None else by, steps)

    def kept(self, sets: Sets) -> Sets:
        """Return what has to be removed to keep only these."""
        return complements(self.probabilities, sets)

    def normalized(self, *, ascending: bool = False) -> float | None:
        """Return the normalized AOPC of this order or of its reverse."""
        if self.limits is None:
            return None
        return normalized_aopc(aopc(self.probabilities, self.scores, by=self.by, ascending=ascending), self.limits)


@dataclass(frozen=True)
class _Rule:
    """The sets of tokens whose removal a metric needs, and the metric itself."""

    sets: Callable[[MetricInputs], Sets]
    value: Callable[[MetricInputs], float | None]


_RULES = {
    "comprehensiveness": _Rule(
        lambda x: x.top_sets(ERASER_BINS), lambda x: comprehensiveness(x.probabilities, x.scores, by=x.by).mean
    ),
    "sufficiency": _Rule(
        lambda x: x.kept(x.top_sets(ERASER_BINS)), lambda x: sufficiency(x.probabilities, x.scores, by=x.by).mean
    ),
    "comprehensiveness_deciles": _Rule(
        lambda x: x.top_sets(DECILES),
        lambda x: comprehensiveness(x.probabilities, x.scores, bins=DECILES, by=x.by).mean,
    ),
    "sufficiency_deciles": _Rule(
        lambda x: x.kept(x.top_sets(DECILES)),
        lambda x: sufficiency(x.probabilities, x.scores, bins=DECILES, by=x.by).mean,
    ),
    "deletion_area": _Rule(lambda x: x.curve_sets(STEPS), lambda x: deletion_area(x.probabilities, x.scores, by=x.by)),
    "insertion_area": _Rule(
        lambda x: x.kept(x.curve_sets(STEPS)), lambda x: insertion_area(x.probabilities, x.scores, by=x.by)
    ),
    "monotonicity": _Rule(lambda x: x.curve_sets(by="signed"), lambda x: monotonicity(x.probabilities, x.scores)),
    "leave_one_out": _Rule(
        lambda x: single_sets(x.probabilities), lambda x: leave_one_out_correlation(x.probabilities, x.scores, by=x.by)
    ),
    "infidelity": _Rule(
        lambda x: random_sets(x.probabilities, samples=x.samples, seed=x.seed),
        lambda x: infidelity(x.probabilities, x.scores, samples=x.samples, seed=x.seed) if x.samples else None,
    ),
    "normalized_aopc": _Rule(lambda x: x.curve_sets() if x.limits else [], lambda x: x.normalized()),
    "normalized_aopc_ascending": _Rule(
        lambda x: x.kept(x.curve_sets()) if x.limits else [], lambda x: x.normalized(ascending=True)
    ),
}
FAITHFULNESS = tuple(_RULES)  # metrics that need probabilities and scores only


def faithfulness(
    probabilities: Probabilities,
    scores: Tensor,
    *,
    metrics: Sequence[str] = FAITHFULNESS,
    by: str = "signed",
    limits: AopcLimits | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
) -> dict[str, float | None]:
    """Return the faithfulness metrics of one method on one input by the names of `METRICS`.

    All predictions are made in one call, without those that are known from other methods. Monotonicity and infidelity
    use the sign of scores whatever `by` is.

    Args:
        probabilities: the probabilities of the input, shared by all methods.
        scores: (length of the input,) of the method.
        metrics: names of `FAITHFULNESS`; only what they need is predicted.
        by: "signed" or "absolute"; see `ranking`.
        limits: the result of `aopc_limits`, once for all methods; without them AOPC is not normalized.
        samples: random sets for infidelity; 0 leaves it out.
        seed: the random seed for these.

    Returns:
        Numbers, None if undefined. Max-sensitivity needs the method itself and is not included.

    Raises:
        InvalidInputError: scores of another length or not finite, or another metric.

    Example:
        >>> import torch
        >>> predict = lambda examples: torch.stack([e["input_ids"].sum() / 10 for e in examples])
        >>> special = torch.tensor([True, False, False])
        >>> probabilities = Probabilities(predict, {"input_ids": torch.tensor([0, 6, 4])}, special)
        >>> values = faithfulness(probabilities, torch.tensor([0.0, 2.0, 1.0]))
        >>> round(values["comprehensiveness"], 6), values["leave_one_out"], values["normalized_aopc"]
        (0.6, 1.0, None)
    """
    inputs = MetricInputs(probabilities, scores, by, limits, samples, seed)
    probabilities.removed(faithfulness_sets(inputs, metrics))
    return {name: _RULES[name].value(inputs) for name in metrics}


def faithfulness_sets(inputs: MetricInputs, metrics: Sequence[str] = FAITHFULNESS) -> Sets:
    """Return the sets of tokens whose removal these metrics need, to predict several methods in one call.

    Raises:
        InvalidInputError: a metric that is not in `FAITHFULNESS`, or scores of another length or not finite.

    Example:
        >>> import torch
        >>> predict = lambda examples: torch.ones(len(examples))
        >>> probabilities = Probabilities(predict, {"input_ids": torch.tensor([5, 6, 4])})
        >>> inputs = MetricInputs(probabilities, torch.tensor([0.0, 2.0, 1.0]))
        >>> sorted(map(sorted, set(faithfulness_sets(inputs, ["comprehensiveness"]))))
        [[], [1], [1, 2]]
    """
    unknown = [name for name in metrics if name not in _RULES]
    if unknown:
        raise InvalidInputError(f"metrics: {unknown} are not known; allowed are {', '.join(FAITHFULNESS)}.")
    return [frozenset(), *(positions for name in metrics for positions in _RULES[name].sets(inputs))]
