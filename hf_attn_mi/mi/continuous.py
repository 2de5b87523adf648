"""Information of states and vectors under declared noise, for jointly Gaussian data."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.mi.estimate import Estimate
from hf_attn_mi.mi.principal import Principal
from hf_attn_mi.mi.rng import stream


def read_vectors(outputs: Tensor, noise: float | Tensor, n: int, seed: int) -> Tensor:
    """Return (n, m) outputs with independent normal noise of the declared standard deviation, float64.

    Raises:
        InvalidInputError: outputs are no (n, m) floating point tensor, NaN or infinity, or a noise that is not positive.
    """
    if not isinstance(outputs, Tensor) or not outputs.is_floating_point() or outputs.dim() != 2 or 0 in outputs.shape:
        kind = f"{outputs.dtype} {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise InvalidInputError(f"outputs is {kind}: with noise= it must be (n, m) floating point vectors")
    if len(outputs) != n:
        raise InvalidInputError(f"states has n = {n} examples, outputs has {len(outputs)}: they must be the same")
    wide = outputs.detach().double()
    if not bool(wide.isfinite().all()):
        raise InvalidInputError(f"outputs has {int((~wide.isfinite()).sum())} NaN or infinite numbers")
    deviation = torch.as_tensor(noise, dtype=torch.float64)
    if deviation.dim() > 1 or (deviation.dim() == 1 and len(deviation) != wide.shape[1]):
        raise InvalidInputError(
            f"noise has shape {tuple(deviation.shape)}: one number, or {wide.shape[1]}, one a column"
        )
    if not bool((deviation > 0).all()) or not bool(deviation.isfinite().all()):
        raise InvalidInputError(
            f"noise is {deviation.tolist()}: it must be positive. Without noise the information of a deterministic "
            "network's vectors is infinite"
        )
    return wide + deviation * torch.randn(wide.shape, generator=stream(seed, "noise"), dtype=torch.float64)


def estimate_gaussian_continuous(principal: Principal, outputs: Tensor, fold_of: Tensor) -> Estimate:
    """Return (log det S_y - log det S_y|h) / 2 in nats, each log determinant unbiased.

    S_y|h is the covariance of what least squares on the states leaves. For Gaussian data the scatters are Wishart with
    n - 1 and n - 1 - r degrees of freedom, whose mean log determinant is known in digammas; without the correction
    the estimate is too high by about m r / 2 n.

    Args:
        principal: whitened states, r components.
        outputs: (n, m) float64 with their noise.
        fold_of: (n,) long.

    Raises:
        InvalidInputError: fewer than m + r + 2 examples without a fold.
    """
    folds, m = int(fold_of.max()) + 1, outputs.shape[1]
    points = torch.cat([principal.points.double(), outputs - outputs.mean(0)], 1)
    r = points.shape[1] - m
    parts = [points[fold_of == fold] for fold in range(folds)]
    grams = torch.stack([part.T @ part for part in parts])
    sums = torch.stack([part.sum(0) for part in parts])
    sizes = torch.tensor([len(part) for part in parts], dtype=torch.float64)
    if float(sizes.sum() - sizes.max()) < m + r + 2:
        raise InvalidInputError(f"n = {len(outputs)} examples are too few for {r} components and {m} outputs")
    gram = torch.cat([grams.sum(0)[None], grams.sum(0) - grams])
    total = torch.cat([sums.sum(0)[None], sums.sum(0) - sums])
    size = torch.cat([sizes.sum()[None], sizes.sum() - sizes])
    scatter = gram - total[:, :, None] * total[:, None] / size[:, None, None]  # (1 + folds, r + m, r + m)
    states, cross, given = scatter[:, :r, :r], scatter[:, :r, r:], scatter[:, r:, r:]
    left = given - cross.transpose(1, 2) @ torch.linalg.solve(states, cross)
    found = (_log_determinant(given, size - 1) - _log_determinant(left, size - 1 - r)) / 2
    return Estimate(float(found[0]), found[1:], "gaussian_continuous")


def _log_determinant(scatter: Tensor, freedom: Tensor) -> Tensor:
    """Return the unbiased log determinant of the covariance of Wishart scatters (..., m, m)."""
    m = scatter.shape[-1]
    steps = torch.arange(m, dtype=torch.float64)
    mean = torch.digamma((freedom[:, None] - steps) / 2).sum(1) + m * math.log(2)
    found: Tensor = torch.linalg.slogdet(scatter)[1] - mean
    return found
