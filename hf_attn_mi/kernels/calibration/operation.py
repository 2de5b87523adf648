"""The temperature and class offsets that turn scores into probabilities."""

from __future__ import annotations

from torch import Tensor

from hf_attn_mi.kernels.dispatch import choose_backend, implementation
from hf_attn_mi.kernels.large_calls import is_worth_loading

MOST_CLASSES = 8  # with more of them products in PyTorch are faster than loops


def class_calibration(scores: Tensor, target: Tensor, *, backend: str = "auto") -> tuple[Tensor, float, Tensor]:
    """Return t and b that maximize the mean of sum_k P_k log_softmax(t s + b)_k, by Newton's method.

    A penalty of 1e-4 |b|^2 keeps the offset of a class finite that is absent.

    Args:
        scores: (K, n) float64.
        target: (K, n) float64 probabilities P.
        backend: "torch", "numba" (extra `fast`, tensors on the CPU) or "auto": numba in a call that is large
            enough for it, see `neighbor_counts`, up to eight classes.

    Returns:
        (1 + K,) t and b; minus the maximum, plus the penalty; and (K, n) softmax of t s + b.

    Raises:
        BackendUnavailableError: the requested backend is not installed, or cannot do this call.

    Example:
        >>> import torch
        >>> scores = torch.tensor([[1.0, -1.0, 1.0, -1.0], [-1.0, 1.0, -1.0, 1.0]], dtype=torch.float64)
        >>> target = torch.tensor([[0.9, 0.1, 0.9, 0.1], [0.1, 0.9, 0.1, 0.9]], dtype=torch.float64)
        >>> round(class_calibration(scores, target)[0][0].item(), 3)  # log(9) / 2
        1.099
    """
    avoid = () if is_worth_loading() and len(scores) <= MOST_CLASSES else ("numba",)
    chosen = choose_backend("class_calibration", backend, scores.device, avoid=avoid)
    parameters, loss, posterior = implementation("class_calibration", chosen)(scores, target)
    return parameters, float(loss), posterior
