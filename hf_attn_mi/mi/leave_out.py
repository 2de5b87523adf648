"""Solutions with each fold left out, without a factor of each fold's covariance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.kernels.moments.products import gram
from hf_attn_mi.mi.folds import by_fold

SHRINKAGE = 1e-4  # of whitened points: a direction may be absent from all folds but one
ACCURATE = 1e-5  # relative residual
MOST_STEPS = 40


@dataclass(frozen=True, eq=False)
class FoldSums:
    """Whitened points in folds. Fit 0 is all examples, fit 1 + f is without fold f.

    All folds have the room of the largest; the rest of it is zero, points and probabilities, and adds nothing to sums.
    """

    points: Tensor  # (folds, room, r) float32
    probabilities: Tensor  # (folds, room, K) float64
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
    parts, own = by_fold(points, fold_of), by_fold(probabilities, fold_of)
    return FoldSums(
        parts,
        own,
        torch.bincount(fold_of).double(),
        gram(points),
        all_and_left_out(parts.sum(1)),
        all_and_left_out(own.transpose(1, 2).to(parts.dtype) @ parts),
        all_and_left_out(own.sum(1)),
        all_and_left_out(own.transpose(1, 2) @ own),
    )


def all_and_left_out(parts: Tensor) -> Tensor:
    """Return (1 + folds, ...) the sum over folds of parts (folds, ...), and that without each fold."""
    total = parts.sum(0, keepdim=True)
    return torch.cat([total, total - parts])


def solve_left_out(folds: FoldSums, right: Tensor) -> Tensor:
    """Return (1 + folds, q, r) the rows of `right` times the inverse of each fit's covariance, by conjugate gradients.

    Points are whitened, so that the covariance without a fold is near the identity, and a few steps do; each costs two
    products with the examples of the fold that is left out.

    Args:
        folds: from `sum_folds`.
        right: (1 + folds, q, r).
    """
    solution = right.contiguous()
    residual = right - _covariance(folds, solution)
    direction = residual
    size = residual.square().sum(2, keepdim=True)  # (1 + folds, q, 1)
    goal = ACCURATE**2 * right.square().sum(2, keepdim=True) + 1e-30
    for _ in range(MOST_STEPS):
        if bool((size <= goal).all()):
            break
        image = _covariance(folds, direction)
        step = size / (direction * image).sum(2, keepdim=True).clamp_min(1e-30)
        solution = solution + step * direction
        residual = residual - step * image
        fresh = residual.square().sum(2, keepdim=True)
        direction = residual + fresh / size.clamp_min(1e-30) * direction
        size = fresh
    return solution


def _covariance(folds: FoldSums, vectors: Tensor) -> Tensor:
    """Return (1 + folds, q, r) vectors times the covariance of each fit, shrunk toward the identity."""
    found = (vectors.flatten(0, 1) @ folds.gram).view(vectors.shape)
    found[1:].baddbmm_(vectors[1:] @ folds.points.transpose(1, 2), folds.points, alpha=-1)
    examples = folds.examples.to(found.dtype)[:, None, None]
    sums = folds.sums[:, None]
    along = (vectors * sums).sum(2, keepdim=True)  # (1 + folds, q, 1)
    found = (found - along / examples * sums) / examples
    return (1 - SHRINKAGE) * found + SHRINKAGE * vectors
