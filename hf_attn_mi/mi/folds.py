"""Folds of examples: cross-fitting with each fold left out, and the jackknife over folds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import scipy  # scipy.special itself is loaded when it is first used
import torch
from torch import Tensor

from hf_attn_mi.kernels.products import gram
from hf_attn_mi.mi.rng import make_rng

LEVEL = 0.95
SHRINKAGE = 1e-4  # shrinkage of the covariance of whitened points: a direction may be absent from all folds but one
TOLERANCE = 1e-5  # relative residual
MAX_STEPS = 40


def draw_folds(labels: Tensor, folds: int, seed: int) -> Tensor:
    """Return (n,) the fold of each example: random, each class spread evenly over the folds.

    Args:
        labels: (n,) classes.
        folds: number of folds.
        seed: the random seed for the random order.
    """
    n = len(labels)
    order = torch.randperm(n, generator=make_rng(seed, "folds"))
    order = order[labels[order].argsort(stable=True)]
    fold_of = torch.empty(n, dtype=torch.long)
    fold_of[order] = torch.arange(n) % folds
    return fold_of


def by_fold(values: Tensor, fold_of: Tensor) -> Tensor:
    """Return (folds, size, ...) values (n, ...) fold after fold, zero where a fold is smaller than the largest.

    Example:
        >>> by_fold(torch.tensor([1, 2, 3]), torch.tensor([1, 0, 1])).tolist()
        [[2, 0], [1, 3]]
    """
    sizes = torch.bincount(fold_of)
    sorted_values = values[fold_of.argsort(stable=True)]
    size = int(sizes.max())
    if int(sizes.min()) == size:
        return sorted_values.view(len(sizes), size, *values.shape[1:])
    padded = values.new_zeros(len(sizes), size, *values.shape[1:])
    for target, part in zip(padded, sorted_values.split(sizes.tolist())):  # type: ignore[no-untyped-call]
        target[: len(part)] = part
    return padded


def from_folds(parts: Tensor, fold_of: Tensor) -> Tensor:
    """Return (n, ...) the values of (folds, size, ...) in the order of the examples: the inverse of `by_fold`."""
    order = fold_of.argsort(stable=True)
    sizes = torch.bincount(fold_of).tolist()
    values = parts.new_empty(len(fold_of), *parts.shape[2:])
    values[order] = torch.cat([part[:size] for part, size in zip(parts, sizes)])
    return values


def fold_means(values: Tensor, fold_of: Tensor) -> Tensor:
    """Return (folds,) the mean of values (n,) without each fold."""
    folds = int(fold_of.max()) + 1
    sums = torch.zeros(folds, dtype=torch.float64).index_add_(0, fold_of, values.double())
    sizes = torch.bincount(fold_of, minlength=folds)
    return (sums.sum() - sums) / (len(values) - sizes)


def mean_series(values: Tensor, fold_of: Tensor) -> Tensor:
    """Return (1 + folds,) float64 the mean of values (n,), then the mean without each fold."""
    return torch.cat([values.mean()[None].double(), fold_means(values, fold_of)])


def jackknife_error(left_out: Tensor) -> Tensor:
    """Return the delete-a-fold jackknife standard error of (..., folds) estimates without each fold.

    sqrt((F - 1) / F sum_f (e_f - mean)^2).

    Example:
        >>> jackknife_error(torch.tensor([1.0, 2.0, 3.0]))  # sqrt(2/3 * 2)
        tensor(1.1547)
    """
    folds = left_out.shape[-1]
    deviation = left_out - left_out.mean(-1, keepdim=True)
    return ((folds - 1) / folds * deviation.square().sum(-1)).sqrt()


def half_width(error: float, folds: int) -> float:
    """Return half the width of a 95 % interval: Student's t with folds - 1 degrees of freedom."""
    return float(scipy.special.stdtrit(folds - 1, (1 + LEVEL) / 2)) * error if math.isfinite(error) else math.inf


@dataclass(frozen=True, eq=False)
class FoldSums:
    """Whitened points in folds, and sums over them. Fit 0 is all examples, fit 1 + f is without fold f.

    All folds have the size of the largest; the padding is zero in points and probabilities and adds nothing to sums.
    """

    points: Tensor  # (folds, size, r) float32
    probabilities: Tensor  # (folds, size, K) float64
    sizes: Tensor  # (folds,) float64
    gram: Tensor  # (r, r) of all points
    sums: Tensor  # (1 + folds, r) of points
    class_sums: Tensor  # (1 + folds, K, r) of points times probabilities
    weights: Tensor  # (1 + folds, K) float64
    products: Tensor  # (1 + folds, K, K) float64: of probabilities

    @property
    def examples(self) -> Tensor:
        """(1 + folds,) number of examples in each fit."""
        total = self.sizes.sum()
        return torch.cat([total[None], total - self.sizes])


def sum_folds(points: Tensor, probabilities: Tensor, fold_of: Tensor) -> FoldSums:
    """Return the sums that every fit needs, from one pass.

    Args:
        points: (n, r) float32.
        probabilities: (n, K) float64.
        fold_of: (n,) long.
    """
    parts, classes = by_fold(points, fold_of), by_fold(probabilities, fold_of)
    return FoldSums(
        parts,
        classes,
        torch.bincount(fold_of).double(),
        gram(points),
        all_and_left_out(parts.sum(1)),
        all_and_left_out(classes.transpose(1, 2).to(parts.dtype) @ parts),
        all_and_left_out(classes.sum(1)),
        all_and_left_out(classes.transpose(1, 2) @ classes),
    )


def all_and_left_out(parts: Tensor) -> Tensor:
    """Return (1 + folds, ...) the sum of parts (folds, ...), then the sum without each fold."""
    total = parts.sum(0, keepdim=True)
    return torch.cat([total, total - parts])


def solve_left_out(folds: FoldSums, right: Tensor) -> Tensor:
    """Return (1 + folds, q, r) the rows of `right` times the inverse covariance of each fit, by conjugate gradients.

    Points are whitened, so that the covariance without a fold is near the identity and a few steps suffice; each costs
    two products with the examples of the fold that is left out. No covariance is factorized.

    Args:
        folds: the result of `sum_folds`.
        right: (1 + folds, q, r).
    """
    solution = right.contiguous()
    residual = right - _covariance_product(folds, solution)
    direction = residual
    size = residual.square().sum(2, keepdim=True)  # (1 + folds, q, 1)
    goal = TOLERANCE**2 * right.square().sum(2, keepdim=True) + 1e-30
    for _ in range(MAX_STEPS):
        if bool((size <= goal).all()):
            break
        image = _covariance_product(folds, direction)
        step = size / (direction * image).sum(2, keepdim=True).clamp_min(1e-30)
        solution = solution + step * direction
        residual = residual - step * image
        next_size = residual.square().sum(2, keepdim=True)
        direction = residual + next_size / size.clamp_min(1e-30) * direction
        size = next_size
    return solution


def _covariance_product(folds: FoldSums, vectors: Tensor) -> Tensor:
    """Return (1 + folds, q, r) vectors times the covariance of each fit, shrunk toward the identity."""
    products = (vectors.flatten(0, 1) @ folds.gram).view(vectors.shape)
    products[1:].baddbmm_(vectors[1:] @ folds.points.transpose(1, 2), folds.points, alpha=-1)
    examples = folds.examples.to(products.dtype)[:, None, None]
    sums = folds.sums[:, None]
    along = (vectors * sums).sum(2, keepdim=True)  # (1 + folds, q, 1)
    products = (products - along / examples * sums) / examples
    return (1 - SHRINKAGE) * products + SHRINKAGE * vectors
