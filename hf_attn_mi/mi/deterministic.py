"""Outputs that are a function of the states, or the reverse: their mutual information is infinite."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError

LINEAR = 1e-9  # share of variance that is rounding of float32: a direction below it has more than ten nats
LOCAL = 1e-3  # share of the variance among neighbors that quadratic fits leave: n examples cannot show less noise
MIN_POINTS = 50
MAX_LOCAL = 2  # dimensions in which neighbors are near enough to tell a curve from noise
MAX_POINTS = 2000
EXTRA = 4  # neighbors beyond the parameters of a local fit
FIX = (
    "their information is infinite, and every finite estimate of it measures the estimator. Declare noise=, the "
    "standard deviation of noise on the outputs, or pass the model's classes or probabilities"
)


def refuse_functions(points: Tensor, outputs: Tensor, name: str) -> None:
    """Refuse states and outputs whose information is infinite as far as a sample shows it.

    A direction of one that is a linear function of the other, to the rounding of float32, is found in any number of
    dimensions; a smooth curve in at most two. In more dimensions a smooth function cannot be
    distinguished from a relation with little noise.

    Args:
        points: (n, r) whitened states.
        outputs: (n, m) float64.
        name: the name of the site, for the message.

    Raises:
        InvalidInputError: outputs are a function of the states, or states are one of the outputs.
    """
    x, y = (_whiten(values.double()) for values in (points, outputs))
    n = len(x)
    if n > x.shape[1] + y.shape[1] + 2:
        # The largest canonical correlation, symmetric in the two.
        residual = y - x @ (x.T @ y) / n
        least = float(torch.linalg.eigvalsh(residual.T @ residual / n)[0])
        if least < LINEAR:
            raise InvalidInputError(
                f"{name}: a direction of the outputs is a linear function of the states (all but {least:.1e} of its "
                f"variance): {FIX}"
            )
    for of, values, known, by in (("outputs", y, x, "states"), ("states", x, y, "outputs")):
        if 0 < known.shape[1] <= MAX_LOCAL and values.shape[1] > 0:
            share = _unexplained(known[:MAX_POINTS], values[:MAX_POINTS])
            if share < LOCAL:
                raise InvalidInputError(
                    f"{name}: {of} are a smooth function of {by} (all but {share:.1e} of the variance "
                    f"of a direction among neighbors): {FIX}"
                )


def _unexplained(points: Tensor, values: Tensor) -> float:
    """Return the share of the variance among neighbors that a quadratic fit to them leaves at a point.

    A ratio within neighborhoods, so that outliers and units do not matter; the smallest of all directions of the
    values. Infinity where most neighborhoods are of equal points or equal values: repeated values are not continuous.
    """
    n, d = points.shape
    row, column = torch.triu_indices(d, d)
    count = 1 + d + len(row) + EXTRA
    if n < MIN_POINTS:
        return math.inf
    nearest = torch.cdist(points, points).topk(count + 1, largest=False).indices[:, 1:]
    offsets = points[nearest] - points[:, None]
    around = values[nearest] - values[:, None]
    around = around - around.mean(1, keepdim=True)
    radius, spread = offsets.abs().amax((1, 2)), around.square().sum(2).mean(1)
    usable = (radius > 0) & (spread > 0) & (offsets.abs().sum(2) > 0).all(1)
    if int(usable.sum()) < n / 2:
        return math.inf
    offsets = offsets[usable] / radius[usable, None, None]
    products = offsets[..., row] * offsets[..., column]
    design = torch.cat([torch.ones_like(offsets[..., :1]), offsets, products], 2)
    near = values[nearest[usable]] - values[usable, None]
    residual = (torch.linalg.pinv(design)[:, :1] @ near)[:, 0]  # (n, m): the constant is the fit at the point
    scale = spread[usable].sqrt()
    residual, around = residual / scale[:, None], around[usable] / scale[:, None, None]
    total = around.flatten(0, 1).T @ around.flatten(0, 1) / around.shape[0] / count
    variances, axes = torch.linalg.eigh(total)
    axes = axes[:, variances > 1e-12 * variances[-1]] / variances[variances > 1e-12 * variances[-1]].sqrt()
    projected = (residual @ axes).square()
    if projected.shape[1] == 1:
        return float(projected.median())  # a function may have corners
    outer = (residual @ axes).T @ (residual @ axes) / len(residual)
    return float(torch.linalg.eigvalsh(outer)[0].clamp_min(0))


def _whiten(values: Tensor) -> Tensor:
    """Return (n, r) uncorrelated directions of unit variance, those of rounding left out."""
    centered = values - values.mean(0)
    deviation = centered.square().mean(0).sqrt()
    centered = centered[:, deviation > 0] / deviation[deviation > 0]
    if centered.shape[1] == 0:
        return values.new_zeros(len(values), 0)
    variances, vectors = torch.linalg.eigh(centered.T @ centered / len(centered))
    kept = variances > 1e-7 * variances[-1]
    whitened: Tensor = centered @ vectors[:, kept] / variances[kept].sqrt()
    return whitened
