"""Solutions with each fold left out, without a factor of each fold's covariance."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

SHRINKAGE = 1e-4  # of whitened points: a direction may be absent from all folds but one
ACCURATE = 1e-5  # relative residual
MOST_STEPS = 40


@dataclass(frozen=True, eq=False)
class FoldSums:
    """Whitened points in folds. Fit 0 is all examples, fit 1 + f is without fold f."""

    points: Tensor  # (n, r) float32, in order of their folds
    probabilities: Tensor  # (n, K) float64, in the same order
    sizes: Tensor  # (folds,) float64
    gram: Tensor  # (r, r) of all points
    sums: Tensor  # (1 + folds, r) of points
    class_sums: Tensor  # (1 + folds, K, r) of points times probabilities
    weights: Tensor  # (1 + folds, K) float64
    products: Tensor  # (1 + folds, K, K) float64: of probabilities

    @property
    def examples(self) -> Tensor:
        """(1 + folds,) how many each fit has."""
        total = self.sizes.sum()
        return torch.cat([total[None], total - self.sizes])


def sum_folds(points: Tensor, probabilities: Tensor, fold_of: Tensor) -> FoldSums:
    """Return the sums that every fit needs, from one pass.

    Args:
        points: (n, r) float32.
        probabilities: (n, K) float64.
        fold_of: (n,) long.
    """
    order = fold_of.argsort(stable=True)
    sizes = torch.bincount(fold_of)
    points, probabilities = points[order], probabilities[order]
    parts = list(zip(points.split(sizes.tolist()), probabilities.split(sizes.tolist())))  # type: ignore[no-untyped-call]

    def fits(values: list[Tensor]) -> Tensor:
        each = torch.stack(values)
        total = each.sum(0, keepdim=True)
        return torch.cat([total, total - each])

    return FoldSums(
        points,
        probabilities,
        sizes.double(),
        points.T @ points,
        fits([part.sum(0) for part, _ in parts]),
        fits([own.T.to(part.dtype) @ part for part, own in parts]),
        fits([own.sum(0) for _, own in parts]),
        fits([own.T @ own for _, own in parts]),
    )


def solve_left_out(folds: FoldSums, right: Tensor) -> Tensor:
    """Return (1 + folds, r, q) the inverse of each fit's covariance times `right`, by conjugate gradients.

    Points are whitened, so that the covariance without a fold is near the identity, and a few steps do; each costs two
    products with the examples of the fold that is left out.

    Args:
        folds: from `sum_folds`.
        right: (1 + folds, r, q).
    """
    solution = right.clone()
    residual = right - _covariance(folds, solution)
    direction = residual.clone()
    size = residual.square().sum(1, keepdim=True)  # (1 + folds, 1, q)
    goal = ACCURATE**2 * right.square().sum(1, keepdim=True) + 1e-30
    for _ in range(MOST_STEPS):
        if bool((size <= goal).all()):
            break
        image = _covariance(folds, direction)
        step = size / (direction * image).sum(1, keepdim=True).clamp_min(1e-30)
        solution = solution + step * direction
        residual = residual - step * image
        fresh = residual.square().sum(1, keepdim=True)
        direction = residual + fresh / size.clamp_min(1e-30) * direction
        size = fresh
    return solution


def _covariance(folds: FoldSums, vectors: Tensor) -> Tensor:
    """Return (1 + folds, r, q) the covariance of each fit, shrunk towards the identity, times vectors."""
    found = folds.gram @ vectors
    starts = [0, *folds.sizes.cumsum(0).long().tolist()]
    for fold, (start, stop) in enumerate(pairwise(starts)):
        part = folds.points[start:stop]
        found[1 + fold].addmm_(part.T, part @ vectors[1 + fold], alpha=-1)
    examples = folds.examples.to(found.dtype)[:, None, None]
    along = (folds.sums[:, :, None] * vectors).sum(1, keepdim=True)  # (1 + folds, 1, q)
    found = (found - folds.sums[:, :, None] * along / examples) / examples
    return (1 - SHRINKAGE) * found + SHRINKAGE * vectors
