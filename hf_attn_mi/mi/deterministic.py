"""Outputs that are a function of the states, or the reverse: their mutual information is infinite."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError

LINEAR = 1e-9  # share of variance that is rounding of float32: a direction below it has more than ten nats
LOCAL = 1e-6  # the same for local quadratic fits, which also err by the third derivative
MAX_LOCAL = 2  # dimensions in which neighbors are near enough to tell a curve from noise
MAX_POINTS = 2000
EXTRA = 4  # neighbors beyond the parameters of a local fit
FIX = (
    "their information is infinite, and every finite estimate of it measures the estimator. Declare noise=, the "
    "standard deviation of noise on the outputs, or pass the model's classes or probabilities"
)


def refuse_functions(points: Tensor, outputs: Tensor, index: int) -> None:
    """Refuse states and outputs whose information is infinite as far as a sample shows it.

    A direction of one that is a linear function of the other, to the rounding of float32, is found in any number of
    dimensions; a smooth curve in at most two. Elsewhere a function cannot be told from little noise.

    Args:
        points: (n, r) whitened states.
        outputs: (n, m) float64.
        index: the index of the site, for the message.

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
                f"outputs: a direction of them is a linear function of the states of site {index} (all but {least:.1e} "
                f"of its variance): {FIX}"
            )
    for of, values, of_what, by in (("outputs", y, x, "states"), ("states", x, y, "outputs")):
        if of_what.shape[1] <= MAX_LOCAL and n >= 50:
            share = _unexplained(of_what[:MAX_POINTS], values[:MAX_POINTS])
            if share < LOCAL:
                raise InvalidInputError(
                    f"outputs: site {index}: {of} are a smooth function of {by} (all but {share:.1e} of the variance "
                    f"of a direction): {FIX}"
                )


def _unexplained(points: Tensor, values: Tensor) -> float:
    """Return the share of variance that a quadratic fit to the neighbors of a point leaves at the point.

    The smallest of all directions of the values, which are whitened; from the quarter of points with the nearest
    neighbors, where the fit errs least.
    """
    n, d = points.shape
    row, column = torch.triu_indices(d, d)
    count = 1 + d + len(row) + EXTRA
    nearest = torch.cdist(points, points).topk(count + 1, largest=False).indices[:, 1:]
    offsets = points[nearest] - points[:, None]
    radius = offsets.abs().amax((1, 2), keepdim=True).clamp_min(1e-300)
    offsets = offsets / radius
    products = offsets[..., row] * offsets[..., column]
    design = torch.cat([torch.ones(n, count, 1, dtype=points.dtype), offsets, products], 2)
    fit = torch.linalg.pinv(design)[:, :1] @ values[nearest]  # (n, 1, m): the constant is the fit at the point
    residual = (values - fit[:, 0])[radius.flatten().argsort()[: max(1, n // 4)]]
    return float(torch.linalg.eigvalsh(residual.T @ residual / len(residual))[0])


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
