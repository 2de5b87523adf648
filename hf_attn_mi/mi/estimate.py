"""An estimate of one site before it is reported: its value, and with each fold left out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.mi.principal import Principal


@dataclass(frozen=True, eq=False)
class Estimate:
    """A value in nats with each fold left out, and the part of an estimator that it rests on."""

    value: float
    left_out: Tensor  # (folds,) float64
    part: str
    extra_variance: float = 0.0  # that no fold shows
    missing: float = 0.0  # nats that a lower bound may have missed: the interval reaches up that much more

    @property
    def series(self) -> Tensor:
        """(1 + folds,) the value and the values with each fold left out: arithmetic on it is arithmetic on all."""
        return torch.cat([torch.tensor([self.value], dtype=torch.float64), self.left_out.double()])


@dataclass(frozen=True, eq=False)
class Site:
    """What an estimator is given: states of one site, whitened, and the outputs."""

    principal: Principal
    probabilities: Tensor  # (n, K) float64
    labels: Tensor  # (n,) long
    fold_of: Tensor  # (n,) long
    soft: bool


def from_series(series: Tensor, part: str, *, extra_variance: float = 0.0, missing: float = 0.0) -> Estimate:
    """Return the estimate of a series, see `Estimate.series`."""
    return Estimate(float(series[0]), series[1:], part, extra_variance, missing)
