"""Folds of examples, and what a jackknife over them says about an estimate."""

from __future__ import annotations

import math

import scipy  # scipy.special itself is loaded when it is first used
import torch
from torch import Tensor

from hf_attn_mi.mi.rng import stream

LEVEL = 0.95


def draw_folds(labels: Tensor, folds: int, seed: int) -> Tensor:
    """Return (n,) the fold of each example: random, each class spread evenly over the folds.

    Args:
        labels: (n,) classes.
        folds: how many.
        seed: of the random order.
    """
    n = len(labels)
    order = torch.randperm(n, generator=stream(seed, "folds"))
    order = order[labels[order].argsort(stable=True)]
    fold_of = torch.empty(n, dtype=torch.long)
    fold_of[order] = torch.arange(n) % folds
    return fold_of


def by_fold(values: Tensor, fold_of: Tensor) -> Tensor:
    """Return (folds, room, ...) values (n, ...) fold after fold, zero where a fold is smaller than the largest.

    Example:
        >>> by_fold(torch.tensor([1, 2, 3]), torch.tensor([1, 0, 1])).tolist()
        [[2, 0], [1, 3]]
    """
    sizes = torch.bincount(fold_of)
    sorted_values = values[fold_of.argsort(stable=True)]
    room = int(sizes.max())
    if int(sizes.min()) == room:
        return sorted_values.view(len(sizes), room, *values.shape[1:])
    found = values.new_zeros(len(sizes), room, *values.shape[1:])
    for part, own in zip(found, sorted_values.split(sizes.tolist())):  # type: ignore[no-untyped-call]
        part[: len(own)] = own
    return found


def from_folds(parts: Tensor, fold_of: Tensor) -> Tensor:
    """Return (n, ...) the values of (folds, room, ...) in the order of the examples: undoes `by_fold`."""
    order = fold_of.argsort(stable=True)
    sizes = torch.bincount(fold_of).tolist()
    found = parts.new_empty(len(fold_of), *parts.shape[2:])
    found[order] = torch.cat([part[:size] for part, size in zip(parts, sizes)])
    return found


def fold_means(values: Tensor, fold_of: Tensor) -> Tensor:
    """Return (folds,) the mean of values (n,) without each fold."""
    folds = int(fold_of.max()) + 1
    sums = torch.zeros(folds, dtype=torch.float64).index_add_(0, fold_of, values.double())
    sizes = torch.bincount(fold_of, minlength=folds)
    return (sums.sum() - sums) / (len(values) - sizes)


def jackknife_error(left_out: Tensor) -> Tensor:
    """Return the delete-a-fold jackknife standard error of (..., folds) estimates without each fold.

    sqrt((F - 1) / F sum_f (e_f - mean)^2).

    Example:
        >>> jackknife_error(torch.tensor([1.0, 2.0, 3.0]))  # sqrt(2/3 * 2)
        tensor(1.1547)
    """
    folds = left_out.shape[-1]
    apart = left_out - left_out.mean(-1, keepdim=True)
    return ((folds - 1) / folds * apart.square().sum(-1)).sqrt()


def half_width(error: float, folds: int) -> float:
    """Return half the width of a 95 % interval: Student's t with folds - 1 degrees of freedom."""
    return float(scipy.special.stdtrit(folds - 1, (1 + LEVEL) / 2)) * error if math.isfinite(error) else math.inf
