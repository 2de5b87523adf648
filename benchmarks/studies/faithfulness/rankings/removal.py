"""Leave-one-out, LIME and kernel SHAP that remove tokens as the metric does: deleted, by [MASK], or by the mask.

The methods of Captum replace the embedding of a token by that of [PAD] or [MASK]. Here f is the probability of the
class as the metric computes it (`Probabilities`), so that a method is judged by the removal that it was computed with.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hf_attn_mi.evaluation import Probabilities
from hf_attn_mi.methods.captum.linear_surrogate import WeightedRidge
from hf_attn_mi.methods.captum.perturbation import LIME_WIDTH
from hf_attn_mi.methods.captum.rng import seeded

SAMPLES = 1000  # as the methods of the package
PENALTY = 1.0


def leave_one_out(probabilities: Probabilities) -> Tensor:
    """p(x) - p(x without the token) of the removable tokens, (k,)."""
    return probabilities.full() - probabilities.removed([(token,) for token in probabilities.tokens])


def lime(probabilities: Probabilities) -> Tensor:
    """Coefficients of Captum's LIME with the settings of the package, (k,)."""
    from captum.attr import Lime
    from captum.attr._core.lime import get_exp_kernel_similarity_function

    similarity = get_exp_kernel_similarity_function("cosine", LIME_WIDTH)
    method = Lime(_value(probabilities), WeightedRidge(PENALTY), similarity)
    return _attributions(method, probabilities)


def kernel_shap(probabilities: Probabilities) -> Tensor:
    """Captum's kernel SHAP with the settings of the package, (k,)."""
    from captum.attr import KernelShap

    method = KernelShap(_value(probabilities))
    method.interpretable_model = WeightedRidge(0.0)
    return _attributions(method, probabilities)


def _value(probabilities: Probabilities) -> Callable[[Tensor], Tensor]:
    """The probability of the class as a function of which tokens are present, (rows, k) of 0 and 1."""
    tokens = torch.tensor(probabilities.tokens)

    def value(presence: Tensor) -> Tensor:
        rows, places = presence.unique(dim=0, return_inverse=True)
        return probabilities.removed([tuple(tokens[row == 0].tolist()) for row in rows])[places]

    return value


def _attributions(method: object, probabilities: Probabilities) -> Tensor:
    present = torch.ones(1, len(probabilities.tokens))
    with seeded(0, present.device):
        found: Tensor = method.attribute(present, n_samples=SAMPLES, perturbations_per_eval=SAMPLES)  # type: ignore[attr-defined]
    return found.detach().double().reshape(-1)


METHODS = {"leave-one-out": leave_one_out, "LIME": lime, "kernel SHAP": kernel_shap}
