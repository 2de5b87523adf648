"""All faithfulness metrics of one method on one input, and what each of them means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation.areas import comprehensiveness, sufficiency, top_sets
from hf_attn_mi.evaluation.curves import STEPS, curve_sets, deletion_area, insertion_area, monotonicity
from hf_attn_mi.evaluation.fidelity import SAMPLES, infidelity, random_sets
from hf_attn_mi.evaluation.leave_one_out import leave_one_out_correlation, single_sets
from hf_attn_mi.evaluation.limits import AopcLimits, aopc, normalized_aopc
from hf_attn_mi.evaluation.probabilities import Probabilities
from hf_attn_mi.evaluation.ranking import DECILES, ERASER_BINS


@dataclass(frozen=True)
class Metric:
    """How to read a metric.

    Attributes:
        title: for tables.
        higher: whether higher is better.
        lowest: the least it can be; None where nothing bounds it.
        highest: the most.
        source: where it is defined.
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
    "iou_f1": Metric("IoU F1 at 0.5", True, 0, None, _ERASER),  # more than 1 where spans halve a rationale
    "auprc": Metric("AUPRC", True, 0, 1, _ERASER),
    "average_precision": Metric("average precision", True, 0, 1, _ERASER),
}


@dataclass(frozen=True)
class Question:
    """What the metrics are asked about: one method on one input.

    Attributes:
        found: probabilities of the input.
        scores: (length of the input,).
        by: "signed" or "absolute".
        limits: of AOPC on this input; None where nothing is normalized.
        samples: random sets for infidelity.
        seed: of these.
    """

    found: Probabilities
    scores: Tensor
    by: str = "signed"
    limits: AopcLimits | None = None
    samples: int = SAMPLES
    seed: int = 0

    def tops(self, bins: Sequence[float]) -> list[frozenset[int]]:
        """Return the top tokens of each bin."""
        return top_sets(self.found, self.scores, bins, self.by)

    def curve(self, steps: int, *, by: str | None = None) -> list[frozenset[int]]:
        """Return what is removed after each step."""
        return curve_sets(self.found, self.scores, self.by if by is None else by, steps)

    def others(self, sets: Sequence[frozenset[int]]) -> list[frozenset[int]]:
        """Return what has to be removed to keep only these."""
        everything = frozenset(self.found.tokens)
        return [everything - positions for positions in sets]

    def random(self) -> list[frozenset[int]]:
        """Return the sets of infidelity."""
        return random_sets(self.found, samples=self.samples, seed=self.seed)

    def each(self) -> list[frozenset[int]]:
        """Return the sets of an order token by token, where it is normalized."""
        return [] if self.limits is None else self.curve(len(self.found.tokens))

    def normalized(self, ascending: bool) -> float | None:
        """Return the normalized AOPC of this order or of its reverse."""
        if self.limits is None:
            return None
        return normalized_aopc(aopc(self.found, self.scores, by=self.by, ascending=ascending), self.limits)


@dataclass(frozen=True)
class _Rule:
    """The sets of tokens that a metric wants predicted, and how it is made of them."""

    sets: Callable[[Question], list[frozenset[int]]]
    value: Callable[[Question], float | None]


_RULES = {
    "comprehensiveness": _Rule(
        lambda q: q.tops(ERASER_BINS), lambda q: comprehensiveness(q.found, q.scores, by=q.by).mean
    ),
    "sufficiency": _Rule(
        lambda q: q.others(q.tops(ERASER_BINS)), lambda q: sufficiency(q.found, q.scores, by=q.by).mean
    ),
    "comprehensiveness_deciles": _Rule(
        lambda q: q.tops(DECILES), lambda q: comprehensiveness(q.found, q.scores, bins=DECILES, by=q.by).mean
    ),
    "sufficiency_deciles": _Rule(
        lambda q: q.others(q.tops(DECILES)), lambda q: sufficiency(q.found, q.scores, bins=DECILES, by=q.by).mean
    ),
    "deletion_area": _Rule(lambda q: q.curve(STEPS), lambda q: deletion_area(q.found, q.scores, by=q.by)),
    "insertion_area": _Rule(lambda q: q.others(q.curve(STEPS)), lambda q: insertion_area(q.found, q.scores, by=q.by)),
    "monotonicity": _Rule(
        lambda q: q.curve(len(q.found.tokens), by="signed"), lambda q: monotonicity(q.found, q.scores)
    ),
    "leave_one_out": _Rule(
        lambda q: single_sets(q.found), lambda q: leave_one_out_correlation(q.found, q.scores, by=q.by)
    ),
    "infidelity": _Rule(
        lambda q: q.random(),
        lambda q: infidelity(q.found, q.scores, samples=q.samples, seed=q.seed) if q.samples else None,
    ),
    "normalized_aopc": _Rule(lambda q: q.each(), lambda q: q.normalized(False)),
    "normalized_aopc_ascending": _Rule(lambda q: q.others(q.each()), lambda q: q.normalized(True)),
}
FAITHFULNESS = tuple(_RULES)  # what can be had from probabilities and scores alone


def faithfulness(
    found: Probabilities,
    scores: Tensor,
    *,
    metrics: Sequence[str] = FAITHFULNESS,
    by: str = "signed",
    limits: AopcLimits | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
) -> dict[str, float | None]:
    """Return the faithfulness metrics of one method on one input by the names of `METRICS`.

    Everything that has to be predicted is predicted in one call, and only what other methods have not asked for yet.
    Monotonicity and infidelity read the sign of scores whatever `by` says.

    Args:
        found: probabilities of the input, shared by all methods.
        scores: (length of the input,) of the method.
        metrics: names of `FAITHFULNESS`; only what they need is predicted.
        by: "signed" or "absolute"; see `ranking`.
        limits: from `aopc_limits`, once for all methods; without them nothing is normalized.
        samples: random sets for infidelity; 0 leaves it out.
        seed: of these.

    Returns:
        Numbers, None where undefined. Max-sensitivity needs the method itself and is not among them.

    Raises:
        InvalidInputError: scores of another length or not finite, or another metric.

    Example:
        >>> import torch
        >>> predict = lambda examples: torch.stack([e["input_ids"].sum() / 10 for e in examples])
        >>> found = Probabilities(predict, {"input_ids": torch.tensor([0, 6, 4])}, torch.tensor([True, False, False]))
        >>> values = faithfulness(found, torch.tensor([0.0, 2.0, 1.0]))
        >>> round(values["comprehensiveness"], 6), values["leave_one_out"], values["normalized_aopc"]
        (0.6, 1.0, None)
    """
    question = Question(found, scores, by, limits, samples, seed)
    found.removed(faithfulness_sets(question, metrics))
    return {name: _RULES[name].value(question) for name in metrics}


def faithfulness_sets(question: Question, metrics: Sequence[str] = FAITHFULNESS) -> list[frozenset[int]]:
    """Return the sets of tokens whose removal these metrics need, for methods that are predicted in one call.

    Raises:
        InvalidInputError: a metric that is not in `FAITHFULNESS`, or scores of another length or not finite.

    Example:
        >>> import torch
        >>> found = Probabilities(lambda examples: torch.ones(len(examples)), {"input_ids": torch.tensor([5, 6, 4])})
        >>> question = Question(found, torch.tensor([0.0, 2.0, 1.0]))
        >>> sorted(map(sorted, set(faithfulness_sets(question, ["comprehensiveness"]))))
        [[], [1], [1, 2]]
    """
    unknown = [name for name in metrics if name not in _RULES]
    if unknown:
        raise InvalidInputError(f"metrics: {unknown} are not known; allowed are {', '.join(FAITHFULNESS)}.")
    return [frozenset(), *(positions for name in metrics for positions in _RULES[name].sets(question))]
