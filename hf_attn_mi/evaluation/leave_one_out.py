"""Do scores rank tokens as leaving each of them out does?"""

from __future__ import annotations

from torch import Tensor

from hf_attn_mi.evaluation.areas import defined
from hf_attn_mi.evaluation.probabilities import Probabilities
from hf_attn_mi.mi.ranks import rank_correlations


def leave_one_out_correlation(found: Probabilities, scores: Tensor, *, by: str = "signed") -> float | None:
    """Return Kendall's tau-b of the scores with the fall of p when each token alone is removed. Higher is better.

    tau-b(scores_i, p(x) - p(x without i)), in [-1, 1]; ties count as tau-b counts them (Jain and Wallace 2019,
    arXiv 1902.10186). It measures agreement with one method, leave-one-out, not the truth.

    Args:
        found: probabilities of the input.
        scores: (length of the input,).
        by: "absolute" compares the magnitudes of both.

    Returns:
        None for fewer than two tokens, or where all scores or all falls are equal.

    Example:
        >>> import torch
        >>> predict = lambda examples: torch.stack([e["input_ids"].sum() / 10 for e in examples])
        >>> found = Probabilities(predict, {"input_ids": torch.tensor([1, 2, 3, 4])})
        >>> round(leave_one_out_correlation(found, torch.tensor([0.1, 0.3, 0.2, 0.4])), 4)
        0.6667
    """
    values = found.values(scores, by=by)
    falls = found.full() - found.removed(single_sets(found))
    if bool(falls.isnan().any()):
        return None
    # Fewer than two tokens have no pairs, and their tau-b is NaN like that of constant vectors.
    tau, _ = rank_correlations(values, falls.abs() if by == "absolute" else falls)
    return defined(tau[None])[0]


def single_sets(found: Probabilities) -> list[frozenset[int]]:
    """Return the sets of one token each."""
    return [frozenset([token]) for token in found.tokens]
