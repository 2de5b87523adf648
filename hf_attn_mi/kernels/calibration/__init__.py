"""The temperature and class offsets that turn scores into probabilities, by Newton's method.

A backend of `class_calibration` is a function (scores: Tensor, target: Tensor) -> (parameters, loss, posterior): (K, n)
float64 scores and probabilities of the classes; it returns (1 + K,) temperature t and offsets b, the loss as a tensor
of one number, and (K, n) softmax of t s + b. `reference.py` defines them.
"""

from hf_attn_mi.kernels.calibration.operation import class_calibration
from hf_attn_mi.kernels.calibration.torch import RIDGE, curvature, evaluate

__all__ = ["RIDGE", "class_calibration", "curvature", "evaluate"]
