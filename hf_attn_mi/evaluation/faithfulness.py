"""All faithfulness metrics of one method on one input, and what each of them means."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from hf_attn_mi.evaluation.areas import comprehensiveness, sufficiency, top_sets
from hf_attn_mi.evaluation.curves import STEPS, curve_sets, deletion_area, insertion_area, monotonicity
from hf_attn_mi.evaluation.fidelity import SAMPLES, infidelity, random_sets
from hf_attn_mi.evaluation.leave_one_out import leave_one_out_correlation, single_sets
from hf_attn_mi.evaluation.limits import AopcLimits, aopc, normalised_aopc
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
    "normalised_aopc": Metric("normalised AOPC, comprehensiveness", True, 0, 1, _EDIN),
    "normalised_aopc_ascending": Metric("normalised AOPC, sufficiency", False, 0, 1, _EDIN),
    "max_sensitivity": Metric("max-sensitivity", False, 0, None, "Yeh et al. 2019, arXiv 1901.09392"),
    "completeness_gap": Metric("completeness gap", False, 0, 2, "Sundararajan et al. 2017, arXiv 1703.01365"),
    "token_f1": Metric("token F1", True, 0, 1, _ERASER),
    "iou_f1": Metric("IoU F1 at 0.5", True, 0, None, _ERASER),  # more than 1 where spans halve a rationale
    "auprc": Metric("AUPRC", True, 0, 1, _ERASER),
    "average_precision": Metric("average precision", True, 0, 1, _ERASER),
}


def faithfulness(
    found: Probabilities,
    scores: Tensor,
    *,
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
        by: "signed" or "absolute"; see `ranking`.
        limits: from `aopc_limits`, once for all methods; without them nothing is normalised.
        samples: random sets for infidelity; 0 leaves it out.
        seed: of these.

    Returns:
        Numbers, None where undefined. Max-sensitivity needs the method itself and is not among them.

    Raises:
        InvalidInput: scores of another length or not finite.

    Example:
        >>> import torch
        >>> predict = lambda examples: torch.stack([e["input_ids"].sum() / 10 for e in examples])
        >>> found = Probabilities(predict, {"input_ids": torch.tensor([0, 6, 4])}, torch.tensor([True, False, False]))
        >>> values = faithfulness(found, torch.tensor([0.0, 2.0, 1.0]))
        >>> round(values["comprehensiveness"], 6), values["leave_one_out"], values["normalised_aopc"]
        (0.6, 1.0, None)
    """
    everything = frozenset(found.tokens)
    tops = top_sets(found, scores, (*ERASER_BINS, *DECILES), by) + curve_sets(found, scores, by, STEPS)
    wanted = [*tops, *(everything - top for top in tops), *single_sets(found)]
    wanted += curve_sets(found, scores, "signed", len(everything))
    if limits is not None:
        every = curve_sets(found, scores, by, len(everything))
        wanted += [*every, *(everything - top for top in every)]
    found.removed([*wanted, *random_sets(found, samples=samples, seed=seed)])
    values = {
        "comprehensiveness": comprehensiveness(found, scores, by=by).mean,
        "sufficiency": sufficiency(found, scores, by=by).mean,
        "comprehensiveness_deciles": comprehensiveness(found, scores, bins=DECILES, by=by).mean,
        "sufficiency_deciles": sufficiency(found, scores, bins=DECILES, by=by).mean,
        "deletion_area": deletion_area(found, scores, by=by),
        "insertion_area": insertion_area(found, scores, by=by),
        "monotonicity": monotonicity(found, scores),
        "leave_one_out": leave_one_out_correlation(found, scores, by=by),
        "infidelity": infidelity(found, scores, samples=samples, seed=seed) if samples else None,
    }
    for name, ascending in (("normalised_aopc", False), ("normalised_aopc_ascending", True)):
        area = aopc(found, scores, by=by, ascending=ascending) if limits is not None else None
        values[name] = normalised_aopc(area, limits)
    return values
