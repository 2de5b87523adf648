"""What an estimator of mutual information receives and returns: the data of one site, and an estimate of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar, cast

import torch
from torch import Tensor

from hf_attn_mi.mi.coordinates import Coordinates, WhitenedStates
from hf_attn_mi.mi.folds import FoldSums, mean_series, sum_folds

Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class SiteData:
    """States of one site and the outputs of the same n examples.

    Attributes:
        whitened: the states, centered and scaled (`whitened.balanced`) and as uncorrelated coordinates of unit
            variance (`whitened.points`).
        outputs: (n, K) float64 class probabilities; for estimators of vectors (n, m) outputs with their noise.
        labels: (n,) long: the class of each example, for probabilities one draw from each; zeros for vectors.
        fold_of: (n,) long: the fold of each example.
        soft: whether the outputs are probabilities other than 0 and 1.
        mark: a number that differs from site to site, for random draws. It depends on what the caller passed alone: a
            number that is computed from the states would differ with the number of threads, by rounding.
    """

    whitened: WhitenedStates
    outputs: Tensor
    labels: Tensor
    fold_of: Tensor
    soft: bool
    mark: int = 0
    _results: dict[Callable[..., Any], Any] = field(default_factory=dict, init=False, repr=False)

    def once(self, function: Callable[[SiteData], Value]) -> Value:
        """Return function(self), computed once for this object: an estimator and the bounds share what both need."""
        if function not in self._results:
            self._results[function] = function(self)
        return cast(Value, self._results[function])

    @property
    def points(self) -> Tensor:
        """(n, r) float32 the states as uncorrelated coordinates of unit variance."""
        return self.whitened.points

    @property
    def sums(self) -> FoldSums:
        """The sums over folds that closed forms and discriminants need, computed once."""
        return self.once(_fold_sums)

    @property
    def share(self) -> Tensor:
        """(K,) mean class probabilities."""
        return self.outputs.mean(0)


def _fold_sums(site: SiteData) -> FoldSums:
    return sum_folds(site.points, site.outputs, site.fold_of)


@dataclass(frozen=True, eq=False)
class SiteEstimate:
    """The information of one site in nats, with what its interval is computed from.

    Attributes:
        value: nats.
        left_out: (folds,) float64: the value without each fold, for the jackknife.
        part: name of the estimator, or of the part of it that the value rests on.
        extra_variance: variance in nats squared that the jackknife does not show.
        missing: nats by which a lower bound may fall short; the interval is extended upward by as much.
        note: a warning about this estimate, or "".
    """

    value: float
    left_out: Tensor
    part: str
    extra_variance: float = 0.0
    missing: float = 0.0
    note: str = ""

    @property
    def series(self) -> Tensor:
        """(1 + folds,) float64: the value, then the values without each fold."""
        return torch.cat([torch.tensor([self.value], dtype=torch.float64), self.left_out.double()])

    @classmethod
    def from_series(
        cls, series: Tensor, part: str, *, extra_variance: float = 0.0, missing: float = 0.0, note: str = ""
    ) -> SiteEstimate:
        """Return the estimate with this `series`."""
        return cls(float(series[0]), series[1:], part, extra_variance, missing, note)

    @classmethod
    def from_pointwise(
        cls, pointwise: Tensor, fold_of: Tensor, part: str, *, extra_variance: float = 0.0, missing: float = 0.0
    ) -> SiteEstimate:
        """Return the estimate that is a mean over examples.

        Args:
            pointwise: (n,) nats of each example.
            fold_of: (n,) long.
            part: see the class.
            extra_variance: see the class.
            missing: see the class.
        """
        return cls.from_series(mean_series(pointwise, fold_of), part, extra_variance=extra_variance, missing=missing)


class Estimator(Protocol):
    """A function from the data of one site to an estimate. It must not change its argument: sites run in threads."""

    def __call__(self, site: SiteData, /) -> SiteEstimate:
        """Return the information between the states and the outputs of one site."""
        ...


@dataclass(frozen=True)
class EstimatorSpec:
    """An entry of the registry.

    Attributes:
        name: what `mutual_information(estimator=...)` calls it.
        function: the estimator.
        summary: one line for help texts.
        coordinates: the coordinates of the states: "components" (principal components), "gaussianized" (the same after
            `coordinates.gaussianize`) or "whitened" (any uncorrelated coordinates, in no order: cheaper).
        outputs: "classes" or "vectors" (continuous outputs, with or without declared noise).
        for_vectors: name of the estimator that takes its place where outputs are vectors; None: such outputs are
            refused.
        within_bounds: an estimate below the lower bound is raised to it; otherwise it is reported with a warning.
    """

    name: str
    function: Estimator
    summary: str
    coordinates: Coordinates = "components"
    outputs: Literal["classes", "vectors"] = "classes"
    for_vectors: str | None = None
    within_bounds: bool = False
