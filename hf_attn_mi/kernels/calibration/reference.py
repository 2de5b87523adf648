"""The definition of `class_calibration`: the minimum of a convex function, by L-BFGS."""

from __future__ import annotations

import torch
from torch import Tensor


def reference_class_calibration(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the parameters (1 + K,), the loss and the posterior (K, n) at the minimum over t and b.

    The loss is minus the mean of sum_k P_k log_softmax(t s + b)_k, plus 1e-4 |b|^2.

    Args:
        scores: (K, n) float64.
        target: (K, n) float64 probabilities.
    """
    parameters = torch.zeros(1 + len(scores), dtype=torch.float64, requires_grad=True)

    def loss() -> Tensor:
        log_posterior = (parameters[0] * scores + parameters[1:, None]).log_softmax(0)
        return -(target * log_posterior).sum(0).mean() + 1e-4 * parameters[1:].square().sum()

    optimizer = torch.optim.LBFGS(
        [parameters], max_iter=500, tolerance_grad=1e-12, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        optimizer.zero_grad()
        with torch.enable_grad():
            value = loss()
            value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return parameters.detach(), loss(), (parameters[0] * scores + parameters[1:, None]).softmax(0)
