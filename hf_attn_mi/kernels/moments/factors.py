"""Batched Cholesky factors of class moments: discriminants, log-determinants, and the separation of class means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.kernels.moments.operation import ClassMoments

SMALLEST_PIVOT = 100  # machine epsilons: a variance below this, given the other features, is rounding error


@dataclass(frozen=True, eq=False)
class ClassFactors:
    """Factors of covariances in standardized units, and class means whitened by them.

    `fits` is 1, all examples, or with leave_one_out the number of folds, fit f being without fold f.
    """

    metric: str  # "within" or "total"
    scale: Tensor  # (..., d) standard deviation of each feature over all examples; 1 for a constant one
    factor: Tensor  # (..., fits, d, d) lower triangular L, L L^T = shrunk covariance of x / scale
    centers: Tensor  # (..., fits, K, d) L^-1 (mean of class k - mean) / scale; zero for an empty class
    weights: Tensor  # (fits, K) float64 (soft) class sizes


def factor_classes(
    moments: ClassMoments,
    *,
    metric: Literal["within", "total"] = "within",
    shrinkage: float | Literal["oas"] = "oas",
    leave_one_out: bool = False,
) -> ClassFactors:
    """Return Cholesky factors of the covariance of each site and fit, and the whitened class means.

    The covariance S of x / scale is that within classes, G_within / N, or that of all, (G - s s^T / N) / N. It is
    shrunk to (1 - g) S + g (tr S / d) I.

    Args:
        moments: the result of `class_moments`.
        metric: "within" or "total".
        shrinkage: g, or "oas": Oracle Approximating Shrinkage, Chen et al., arXiv 0907.4698. States behind a layer
            norm have one exactly constant direction: with float32 states, g = 0 is refused for them and 1e-4 is not.
        leave_one_out: one fit without each fold instead of one fit to all.

    Raises:
        InvalidInputError: a covariance is singular in the dtype of the moments; leave_one_out with one fold; g outside
            of [0, 1].
    """
    if metric not in ("within", "total"):
        raise InvalidInputError(f'metric is {shown(metric)}: "within" or "total" is allowed')
    if shrinkage != "oas" and not (isinstance(shrinkage, (int, float)) and 0 <= shrinkage <= 1):
        raise InvalidInputError(f'shrinkage is {shown(shrinkage)}: a number from 0 to 1, or "oas"')
    if leave_one_out and len(moments.sizes) < 2:
        raise InvalidInputError("leave_one_out needs at least two folds: class_moments(..., folds=10)")
    size = _fits(moments.sizes.double(), 0, leave_one_out)  # (fits,)
    gram = _fits(moments.grams, -3, leave_one_out)
    sums = _fits(moments.sums, -3, leave_one_out)  # (..., fits, K, d)
    weights = _fits(moments.weights, -2, leave_one_out)
    variance = moments.grams.diagonal(dim1=-2, dim2=-1).sum(-2) / moments.sizes.sum()
    scale = torch.where(variance > 0, variance, 1).sqrt()
    means = (sums.double() / weights.clamp_min(1e-300)[..., None]).to(gram.dtype)
    means = torch.where(weights[..., None] > 0, means, 0)
    if metric == "within":
        left, right = sums, means
    else:
        left = sums.sum(-2, keepdim=True)  # outputs of one example sum to one
        right = left / size.to(gram.dtype)[:, None, None]
    inverse = 1 / scale
    covariance = _covariance(gram, left, right, inverse, size)
    _shrink(covariance, size, shrinkage)
    factor = _cholesky(covariance)
    scaled = means * inverse[..., None, None, :]
    return ClassFactors(
        metric=metric,
        scale=scale,
        factor=factor,
        centers=torch.linalg.solve_triangular(factor, scaled.transpose(-1, -2), upper=False).transpose(-1, -2),
        weights=weights,
    )


def linear_discriminant(factors: ClassFactors) -> tuple[Tensor, Tensor]:
    """Return directions (..., fits, K, d) and offsets (..., fits, K) of Fisher's linear discriminant.

    The logits of a state x are (x - moments.mean) @ directions^T + offsets: the log posterior, up to a constant, of
    Gaussian classes with the covariance that was factored. An empty class has the offset -inf.

    Args:
        factors: the result of `factor_classes(metric="within")`.
    """
    centers = factors.centers
    solved = torch.linalg.solve_triangular(factors.factor.transpose(-1, -2), centers.transpose(-1, -2), upper=True)
    directions = solved.transpose(-1, -2) / factors.scale[..., None, None, :]
    share = factors.weights / factors.weights.sum(-1, keepdim=True)
    return directions, share.log().to(centers.dtype) - centers.square().sum(-1) / 2


def class_separation(moments: ClassMoments, factors: ClassFactors) -> Tensor:
    """Return (..., fits, K, K) debiased inner products of the class means in the within-class metric, float64.

    G_kl estimates (mu_k - mu)^T S^-1 (mu_l - mu), mu_k the mean of the states given class k, mu = sum_k p_k mu_k, and S
    the covariance within classes; unbiased for Gaussian classes, so that it may be indefinite and is around zero where
    there is no information. The Gaussian mixture with these means has the information that `gaussian` reports; to
    second order it is sum_k p_k G_kk / 2 nats.

    Soft outputs P are regressed on: x = sum_k P_ik beta_k + residual. S of the residual comes from the total covariance
    by Woodbury's identity in K x K matrices, is corrected for the finite sample (inverse Wishart, noise of the
    means), and turned to class means and the metric within classes. For hard labels beta_k = mu_k.

    Args:
        moments: the result of `class_moments`.
        factors: the factors of the same moments with metric="total" and a shrinkage near 0.

    Raises:
        InvalidInputError: the factors are of metric="within", or there are not more examples than d + K + 1.
    """
    size = factors.weights.sum(-1)  # (fits,)
    classes = factors.weights.shape[-1]
    d = factors.centers.shape[-1]
    if factors.metric != "total":
        raise InvalidInputError('class_separation needs factor_classes(..., metric="total")')
    free = (size - classes)[:, None, None]
    if bool((free <= d + 1).any()):
        raise InvalidInputError(
            f"{int(size.min())} examples are too few for d = {d}: take fewer principal components first"
        )
    n = size[:, None, None]
    identity = torch.eye(classes, dtype=torch.float64, device=size.device)
    second = _fits(moments.products, -3, len(size) > 1) / n + 1e-9 * identity  # (fits, K, K)
    share = factors.weights / size[:, None]
    slopes = torch.linalg.solve(second, factors.centers.double() * share[..., None])
    total = slopes @ slopes.transpose(-1, -2)
    residual = _symmetric(torch.linalg.solve(identity - total @ second, total)) * (free / n)
    residual = residual * ((free - d - 1) / free) - d * torch.linalg.inv(second) / n
    centering = identity - share[..., None, :]
    residual = centering @ residual @ centering.transpose(-1, -2)
    there = share > 0
    mean_outputs = torch.where(there[..., None], second / share[..., None], 0)  # mean outputs of each class
    spread = second - mean_outputs.transpose(-1, -2) @ (share[..., None] * mean_outputs)
    inner = torch.linalg.solve(identity + residual @ spread, residual)
    separation = mean_outputs @ inner @ mean_outputs.transpose(-1, -2)
    separation = centering @ _symmetric(separation) @ centering.transpose(-1, -2)
    return separation * there[..., :, None] * there[..., None, :]


def _fits(parts: Tensor, dim: int, leave_one_out: bool) -> Tensor:
    """Return the sum over folds, with a dimension of one in their place; or that minus each fold."""
    total = parts.sum(dim, keepdim=True)
    return total - parts if leave_one_out else total


def _covariance(gram: Tensor, left: Tensor, right: Tensor, inverse: Tensor, size: Tensor) -> Tensor:
    """Return (G - left^T right) / size in standardized units. In place on one copy, to save passes."""
    covariance = torch.baddbmm(
        gram.flatten(0, -3), left.flatten(0, -3).transpose(-1, -2), right.flatten(0, -3), alpha=-1
    ).view(gram.shape)
    units = inverse[..., None, :, None] * inverse[..., None, None, :]
    return covariance.mul_(units / size.to(gram.dtype)[:, None, None])


def _shrink(covariance: Tensor, size: Tensor, shrinkage: float | str) -> None:
    """Shrink in place, each fit by its own amount."""
    d = covariance.shape[-1]
    trace = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)
    if shrinkage == "oas":
        square = torch.linalg.vector_norm(covariance, dim=(-2, -1)).double().square()
        wide = trace.double().square()
        over = (size + 1 - 2 / d) * (square - wide / d)
        ratio = ((1 - 2 / d) * square + wide) / over
        amount = torch.where(over > 0, ratio.clamp(0, 1), 1.0)
    else:
        amount = torch.full_like(trace, float(shrinkage), dtype=torch.float64)
    part = amount.to(covariance.dtype)
    covariance.mul_((1 - part)[..., None, None])
    covariance.diagonal(dim1=-2, dim2=-1).add_((part * trace / d)[..., None])


def _cholesky(covariance: Tensor) -> Tensor:
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(covariance)
    pivots = factor.diagonal(dim1=-2, dim2=-1).square()
    limit = SMALLEST_PIVOT * torch.finfo(covariance.dtype).eps * covariance.diagonal(dim1=-2, dim2=-1).amax(-1)
    bad = (failed > 0) | ~(pivots.amin(-1) > limit)
    if bool(bad.any()):
        raise InvalidInputError(
            f"{int(bad.sum())} of {bad.numel()} covariances are singular in {covariance.dtype}: constant or dependent "
            f"features, or too few examples; use more shrinkage, fewer features, or states.double()"
        )
    return factor


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.transpose(-1, -2)) / 2
