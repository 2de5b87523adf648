"""Principal components of a site's states: whitened points that every estimator here starts from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.kernels.moments.products import gram, product

MOST_OF_N = 0.6  # more components than this share of n, and covariances are not worth inverting
KEPT_OF_N = 4  # then n / 4 components are kept
LEAST_PIVOT = 1e-4  # share of a feature's variance that the features before it do not explain
SQUARED_AT_A_TIME = 256  # examples: fresh memory for all of them would cost more than the squares
SMALLEST = 1e-7  # variances below this share of the largest are rounding error of float32 states


@dataclass(frozen=True, eq=False)
class Principal:
    """Balanced states of one site in the axes of their covariance, largest first."""

    balanced: Tensor  # (n, d) float32
    points: Tensor  # (n, r) float32: unit variance, uncorrelated
    variances: Tensor  # (r,) float64, of the balanced states
    axes: Tensor  # (d, r) float32: points = balanced @ axes
    rank: int  # components there are; r < rank where n is too small for all of them

    def leading(self, count: int) -> Tensor:
        """Return (n, count) the first components in the units of the balanced states, or all of fewer."""
        points = self.points[:, :count]
        return points * self.variances[:count].sqrt().to(points.dtype)


def balance(states: Tensor) -> tuple[Tensor, Tensor]:
    """Return float32 states (n, d), centered and with features brought half way to equal variance, and (d,) divisors.

    A feature is divided by the root of its standard deviation (times that of a typical one): where variances are equal
    that is to standardize. A few features of a network that are a hundred times as large as the others then do not
    make up all distances and components; a feature that is large because it matters stays large. A constant one
    becomes zero and is divided by infinity.
    """
    exact = states if states.dtype == torch.float64 else states.float()
    mean = exact.mean(0)
    centered = exact - mean
    parts = centered.split(SQUARED_AT_A_TIME)  # type: ignore[no-untyped-call]
    deviation = (torch.stack([part.square().sum(0) for part in parts]).sum(0) / len(exact)).sqrt()
    # Far beyond both limits below: no entry is further from the mean than sqrt(n) deviations.
    moving = deviation > 1e-4 * mean.abs()
    if not bool(moving.all()) or len(exact) > 10**10:
        # Rounding leaves a constant feature with a tiny variance: it must not become a feature like others.
        low, high = exact.aminmax(dim=0)
        moving = (high > low) & (deviation > 1e-6 * torch.maximum(low.abs(), high.abs()))
    if not bool(moving.any()):
        return torch.zeros_like(centered, dtype=torch.float32), torch.full_like(deviation, torch.inf)
    divisor = torch.where(moving, (deviation * deviation[moving].median()).sqrt(), torch.inf)
    return centered.div_(divisor).float(), divisor


def whiten(balanced: Tensor) -> Principal | None:
    """Return uncorrelated points by Cholesky's factor where that exists, in no order; else principal components.

    A fifth of the time, for what needs any whitened points but no components.
    """
    n, d = balanced.shape
    if d > MOST_OF_N * n:
        return principal_components(balanced)
    covariance = gram(balanced) / n
    factor, failed = torch.linalg.cholesky_ex(covariance)
    pivots = factor.diagonal().square() / covariance.diagonal().clamp_min(1e-30)
    if int(failed) or not float(pivots.min()) > LEAST_PIVOT:
        return principal_components(balanced)
    axes = torch.linalg.solve_triangular(factor, torch.eye(d), upper=False).T.contiguous()
    return Principal(balanced, product(balanced, axes), torch.ones(d, dtype=torch.float64), axes, d)


def principal_components(balanced: Tensor) -> Principal | None:
    """Return the whitened principal components of balanced states (n, d); None where they are constant.

    The map is linear and, but for components that are left out, one to one: it keeps the information. It does not
    look at outputs, so that whatever is cross-fitted or permuted on it stays so.
    """
    n = balanced.shape[0]
    values, vectors = torch.linalg.eigh(gram(balanced).double() / n)
    values, vectors = values.flip(0), vectors.flip(1)
    if not float(values[0]) > 0:
        return None
    rank = int((values > SMALLEST * values[0]).sum())
    kept = max(1, n // KEPT_OF_N) if rank > MOST_OF_N * n else rank
    axes = (vectors[:, :kept] / values[:kept].sqrt()).float()
    return Principal(balanced, product(balanced, axes), values[:kept], axes, rank)
