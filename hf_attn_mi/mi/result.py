"""What `mutual_information` returns: plain fields, frozen."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class MutualInformation:
    """Information between the states of each site and the output, in nats, with what is known about its error.

    Tensors are float64 of shape (sites,), or () for states (n, d). An estimate is signed: around zero where there is
    nothing to find, so that it may be slightly negative.
    """

    nats: Tensor
    lower: Tensor  # 95 % interval
    upper: Tensor
    p_value: Tensor  # of each site alone, from permuted outputs
    family_p_value: Tensor  # of the site among all sites: the same permutations in each, largest statistic of all
    null_mean: Tensor  # mean estimate on permuted outputs, over up to eight sites: reported, not subtracted
    ceiling: float | None  # I(input; output) in nats, exact: no site has more. None for vector outputs
    n: int
    estimator: str
    parts: tuple[str, ...]  # for each site the part of `auto` that the estimate rests on; else the estimator
    warnings: tuple[str, ...]

    @property
    def bits(self) -> Tensor:
        """The estimate in bits."""
        return self.nats / math.log(2)

    @property
    def interval(self) -> Tensor:
        """(..., 2) lower and upper end of the 95 % interval, nats."""
        return torch.stack([self.lower, self.upper], -1)

    @property
    def share(self) -> Tensor | None:
        """The estimate over the ceiling; None without one, NaN where the ceiling is zero."""
        return None if self.ceiling is None else self.nats / (self.ceiling if self.ceiling > 0 else math.nan)

    def to_dict(self) -> dict[str, Any]:
        """The fields as numbers, strings and lists, with `share` and `bits`, for JSON."""
        found = {item.name: getattr(self, item.name) for item in fields(self)} | {
            "share": self.share,
            "bits": self.bits,
        }
        plain = {name: value.tolist() if isinstance(value, Tensor) else value for name, value in found.items()}
        return plain | {"parts": list(self.parts), "warnings": list(self.warnings)}
