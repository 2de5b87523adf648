"""One pass over states: what every closed-form estimator of the information with a class needs.

A backend is a function (states, labels, order, sizes: Tensor) -> (mean, grams, sums): states (sites, n, d), labels (K,
n) probabilities of the examples in the order of `order`, which goes through them fold after fold, and the size of each
fold; it returns means (sites, d), centered Gram matrices (sites, folds, d, d) and class sums (sites, folds, K, d).
`reference.py` defines them.
"""

from hf_attn_mi.kernels.moments.factors import ClassFactors, class_separation, factor_classes, linear_discriminant
from hf_attn_mi.kernels.moments.operation import ClassMoments, class_moments

__all__ = ["ClassFactors", "ClassMoments", "class_moments", "class_separation", "factor_classes", "linear_discriminant"]
