"""The linear model that LIME and kernel SHAP fit, in double precision and without scikit-learn."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class WeightedRidge:
    """Weighted least squares with a free intercept and a penalty on the squared coefficients.

    minimize sum_i w_i (y_i - a - <x_i, c>)^2 + penalty ||c||^2; without a penalty, the solution of least norm.

    Args:
        penalty: the weight of the penalty, 0 or more.

    Example:
        >>> model = WeightedRidge(0.0)
        >>> model.fit([(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([1.0, 3.0, 5.0]), torch.ones(3))])
        >>> round(float(model.representation()), 6)
        2.0
    """

    def __init__(self, penalty: float) -> None:
        self.penalty = penalty
        self.coefficients = torch.empty(0)

    def fit(self, train_data: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Fit to batches of inputs (n, features), outputs (n,) and weights (n,)."""
        parts = [torch.cat([part.cpu().double() for part in column]) for column in zip(*train_data)]
        inputs, outputs, weights = parts[0], parts[1].reshape(-1), parts[2].reshape(-1)
        share = weights / weights.sum()
        root = weights.sqrt()[:, None]
        centered = root * (inputs - share @ inputs)
        targets = root * (outputs - share @ outputs)[:, None]
        if self.penalty > 0:
            gram = centered.t() @ centered + self.penalty * torch.eye(inputs.shape[1], dtype=torch.float64)
            self.coefficients = torch.linalg.solve(gram, centered.t() @ targets)[:, 0]
        else:
            self.coefficients = torch.linalg.lstsq(centered, targets, driver="gelsd").solution[:, 0]

    def representation(self) -> Tensor:
        """The coefficients, (1, features)."""
        return self.coefficients[None]
