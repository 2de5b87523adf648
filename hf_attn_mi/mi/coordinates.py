"""Coordinates of a site's states: balanced, gaussianized, whitened, and principal components."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hf_attn_mi.kernels.neighbors.torch import ordinary
from hf_attn_mi.kernels.products import gram, product

MAX_COMPONENTS_OF_N = 0.6  # with more components than this share of n, covariances are not worth inverting
KEPT_OF_N = 4  # with too many components, n / 4 of them are kept
MIN_PIVOT = 1e-4  # share of a feature's variance that the features before it leave unexplained
ROWS_AT_A_TIME = 256  # with more rows at a time, memory access for the squares would cost more than the arithmetic
SMALLEST = 1e-7  # variances below this share of the largest are rounding error of float32 states
MOST_UNEQUAL = 1000.0  # ratio of a standard deviation to the median up to which features keep half of it
HEAVY = 4.0  # fourth moment of a standardized coordinate: 3 for a normal one, 6 for a Laplacian
FEW_VALUES = 8  # states are discrete if no coordinate has more distinct values
MAX_FEATURES_OF_N = 0.5  # squares are added if there are then at most so many features for each example
Coordinates = Literal["components", "gaussianized", "whitened"]


@dataclass(frozen=True, eq=False)
class WhitenedStates:
    """States of one site as uncorrelated coordinates of unit variance, principal components in order of variance.

    Attributes:
        balanced: (n, d) float32: the states before; see `balance`.
        points: (n, r) float32: uncorrelated, unit variance.
        variances: (r,) float64: of the components of the balanced states.
        axes: (d, r) float32: points = balanced @ axes.
        rank: number of components; r is smaller where n is too small for all of them.
    """

    balanced: Tensor
    points: Tensor
    variances: Tensor
    axes: Tensor
    rank: int

    def leading(self, count: int) -> Tensor:
        """Return (n, count) the first components in the units of the balanced states; all if there are fewer."""
        points = self.points[:, :count]
        return points * self.variances[:count].sqrt().to(points.dtype)


def balance(states: Tensor) -> tuple[Tensor, Tensor]:
    """Return float32 states (n, d), centered and with more equal variances of features, and (d,) divisors.

    A feature is divided by sqrt(its standard deviation times the median standard deviation): half of standardization
    on a logarithmic scale. The few features of a network that are a hundred times larger than the others then do not
    dominate all distances and components, and a feature that is large because it is informative stays larger, at most
    about thirty times. A constant feature becomes zero; its divisor is infinity.
    """
    exact = states if states.dtype == torch.float64 else states.float()
    low, high = exact.aminmax()
    largest = float(torch.maximum(low.abs(), high.abs()))
    scale = 1.0
    if not ordinary(largest):  # squares could overflow or vanish
        exact = exact.double()
        scale = 2.0 ** -max(-1000, min(1000, math.frexp(largest)[1]))
        exact = exact * scale
    mean = exact.mean(0)
    centered = exact - mean
    parts = centered.split(ROWS_AT_A_TIME)  # type: ignore[no-untyped-call]
    deviation = (torch.stack([part.square().sum(0) for part in parts]).sum(0) / len(exact)).sqrt()
    # Sufficient for both limits below: no entry is further from the mean than sqrt(n) deviations.
    varying = deviation > 1e-4 * mean.abs()
    if not bool(varying.all()) or len(exact) > 10**10:
        # Rounding gives a constant feature a tiny variance, which must not be scaled up.
        lows, highs = exact.aminmax(dim=0)
        varying = (highs > lows) & (deviation > 1e-6 * torch.maximum(lows.abs(), highs.abs()))
    if not bool(varying.any()):
        return torch.zeros_like(centered, dtype=torch.float32), torch.full_like(deviation, torch.inf)
    median = deviation[varying].median()
    divisor = (deviation * median).sqrt()
    # Half of standardization is not enough for features whose components would be lost to the rounding of the largest.
    divisor = torch.where(deviation > MOST_UNEQUAL * median, deviation / MOST_UNEQUAL**0.5, divisor)
    divisor = torch.where(deviation < median / MOST_UNEQUAL, deviation * MOST_UNEQUAL**0.5, divisor)
    divisor = torch.where(varying, divisor, torch.inf)
    if scale != 1.0:
        return (centered / divisor).float(), divisor / scale
    return centered.div_(divisor).float(), divisor


def whiten(balanced: Tensor) -> WhitenedStates | None:
    """Return states whitened by a Cholesky factor, or by principal components where the factor is ill-conditioned.

    Five times faster than `principal_components`, for estimators that need no order of the coordinates.
    """
    n, d = balanced.shape
    if d > MAX_COMPONENTS_OF_N * n:
        return principal_components(balanced)
    covariance = gram(balanced) / n
    factor, failed = torch.linalg.cholesky_ex(covariance)
    pivots = factor.diagonal().square() / covariance.diagonal().clamp_min(1e-30)
    if int(failed) or not float(pivots.min()) > MIN_PIVOT:
        return principal_components(balanced)
    axes = torch.linalg.solve_triangular(factor, torch.eye(d), upper=False).T.contiguous()
    return WhitenedStates(balanced, product(balanced, axes), torch.ones(d, dtype=torch.float64), axes, d)


def principal_components(balanced: Tensor) -> WhitenedStates | None:
    """Return the whitened principal components of balanced states (n, d); None if they are constant.

    The map is linear and, except for components that are left out, one to one: it keeps the information. It does not
    use the outputs, so that cross-fitting and permutation tests on its result remain valid.
    """
    n = balanced.shape[0]
    values, vectors = torch.linalg.eigh(gram(balanced).double() / n)
    values, vectors = values.flip(0), vectors.flip(1)
    if not float(values[0]) > 0:
        return None
    rank = int((values > SMALLEST * values[0]).sum())
    kept = max(1, n // KEPT_OF_N) if rank > MAX_COMPONENTS_OF_N * n else rank
    axes = (vectors[:, :kept] / values[:kept].sqrt()).float()
    return WhitenedStates(balanced, product(balanced, axes), values[:kept], axes, rank)


def gaussianize(balanced: Tensor) -> Tensor:
    """Return balanced states (n, d) in coordinates that are closer to normal and carry the same information.

    Where coordinates have heavy tails (median fourth moment above 4) they are replaced by the normal quantiles of their
    ranks, since a discriminant is not robust; ranks are a one-to-one map. Where every coordinate takes few values, the
    squares are added: a class that changes the frequency of the middle one of three values may change no mean.
    """
    n, d = balanced.shape
    squares = balanced.square()
    if 2 * d <= MAX_FEATURES_OF_N * n and _few_values(balanced):
        return balance(torch.cat([balanced, squares], 1))[0]
    variance = squares.mean(0)
    fourth = squares.square_().mean(0) / variance.square().clamp_min(1e-30)
    if float(fourth[variance > 0].median() if bool((variance > 0).any()) else 0) > HEAVY:
        return rank_normal(balanced) * variance.sqrt()
    return balanced


def rank_normal(states: Tensor) -> Tensor:
    """Return the normal quantile of each entry's rank within its column; equal entries share their mean rank."""
    n = len(states)
    values, order = states.sort(0)
    position = torch.arange(n, dtype=torch.float64)[:, None].expand(values.shape)
    is_first = torch.ones_like(values, dtype=torch.bool)
    is_first[1:] = values[1:] > values[:-1]
    first = torch.where(is_first, position, 0).cummax(0).values
    is_last = torch.ones_like(is_first)
    is_last[:-1] = is_first[1:]
    last = torch.where(is_last, position, n - 1.0).flip(0).cummin(0).values.flip(0)
    mean_rank = torch.empty_like(first).scatter_(0, order, (first + last) / 2)
    quantiles: Tensor = torch.special.ndtri((mean_rank + 0.5) / n)
    return quantiles.to(states.dtype)


def _few_values(states: Tensor) -> bool:
    """Whether every coordinate takes at most eight values, judged by the first rows before all of them."""
    for rows in (states[:50], states):
        changes = rows.sort(0).values.diff(dim=0) != 0
        if int(changes.sum(0).max()) >= FEW_VALUES:
            return False
    return True


def site_coordinates(balanced: Tensor, coordinates: Coordinates) -> WhitenedStates | None:
    """Return balanced states in the coordinates that an estimator asks for; None if they are constant."""
    if coordinates == "whitened":
        return whiten(balanced)
    return principal_components(gaussianize(balanced) if coordinates == "gaussianized" else balanced)
