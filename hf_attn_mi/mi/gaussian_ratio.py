"""The log density ratio of a Gaussian copula of two vectors, fitted without the fold that it is applied to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.mi.coordinates import principal_components
from hf_attn_mi.mi.estimator import SiteData

LARGEST_PAIRS = 1000  # examples of a fold whose pairs are formed
MAX_CORRELATION = 1 - 1e-9


@dataclass(frozen=True, eq=False)
class Ratios:
    """log q(x, y) - log q(x) q(y) in nats of a model q that was fitted to the other folds.

    Attributes:
        pointwise: (n,) float64, of the examples.
        apart: for each fold (size, size): of the states of one example and the outputs of another; on the diagonal NaN.
        expected: the mean of `pointwise` to be expected if a Gaussian copula were true.
        loss: nats that a model without any shrinkage would lose to training: half a covariance for each example.
        largest: the largest correlation of a predicted direction with the true one, mean over folds.
    """

    pointwise: Tensor
    apart: tuple[Tensor, ...]
    expected: float
    loss: float
    largest: float


def cross_fitted_ratios(site: SiteData) -> Ratios:
    """Return the log ratios of a Gaussian copula of states and outputs.

    Coordinates are mapped to normal quantiles by the ranks among the n' examples of the other folds; states x and
    outputs y are whitened there. The side of fewer directions, here y, is predicted from the other of r directions:
    y' = B^T x with B = mean of x y^T. In the eigenvectors of B^T B, with eigenvalues g_k, direction k of y' is
    u_k = y'_k / sqrt(g_k), its product with y_k is in expectation not g_k but, as in an adjusted coefficient of
    determination, t_k = 1 - (1 - g_k) (n' - 1) / (n' - r - 1), and with the correlation c_k = t_k / sqrt(g_k)

        log r = sum_k -log(1 - c_k^2) / 2 - (c_k^2 u_k^2 + c_k^2 y_k^2 - 2 c_k u_k y_k) / (2 (1 - c_k^2)).

    Args:
        site: states, and (n, m) continuous outputs.
    """
    pointwise = torch.empty(len(site.outputs), dtype=torch.float64)
    apart, expected, largest, products = [], [], [], 0
    folds = int(site.fold_of.max()) + 1
    for fold in range(folds):
        held = site.fold_of == fold
        x, y = (_whitened_scores(values, held) for values in (site.whitened.balanced, site.outputs))
        u, v, correlation = _pairs_of_directions(x, y, held)
        rest = 1 - correlation.square()
        constant = -rest.log().sum() / 2
        left = constant - (correlation.square() * u.square() / rest).sum(1) / 2
        right = -(correlation.square() * v.square() / rest).sum(1) / 2
        cross = u * correlation / rest
        pointwise[held] = left + right + (cross * v).sum(1)
        few = slice(0, LARGEST_PAIRS)
        apart.append((left[few, None] + right[None, few] + cross[few] @ v[few].T).fill_diagonal_(torch.nan))
        expected.append(float(constant))
        largest.append(float(correlation.max()))
        products += x.shape[1] * y.shape[1]
    loss = products / folds / (2 * len(pointwise) * (folds - 1) / folds)
    return Ratios(pointwise, tuple(apart), sum(expected) / folds, loss, sum(largest) / folds)


def _pairs_of_directions(x: Tensor, y: Tensor, held: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the held (size, m) predicted and true directions, unit variance, and their (m,) correlations."""
    if y.shape[1] > x.shape[1]:
        x, y = y, x
    training, r = int((~held).sum()), x.shape[1]
    slopes = x[~held].T @ y[~held] / training
    explained, axes = torch.linalg.eigh(slopes.T @ slopes)
    explained = explained.clamp(1e-12, 1)
    true = 1 - (1 - explained) * (training - 1) / max(1, training - r - 1)
    correlation = (true.clamp_min(0) / explained.sqrt()).clamp(0, MAX_CORRELATION)
    return x[held] @ slopes @ axes / explained.sqrt(), y[held] @ axes, correlation


def _whitened_scores(values: Tensor, held: Tensor) -> Tensor:
    """Return (n, r) float64 normal quantiles of ranks, whitened: both maps are those of the examples not held out."""
    columns = values.T.contiguous()  # (d, n)
    ordered = columns[:, ~held].sort(1).values.contiguous()
    below = torch.searchsorted(ordered, columns) + torch.searchsorted(ordered, columns, right=True)
    quantiles = torch.special.ndtri((below.double() / 2 + 0.5) / (ordered.shape[1] + 1)).T.float()
    rest = quantiles[~held]
    mean = rest.mean(0)
    whitened = principal_components(rest - mean)
    if whitened is None:  # the examples that are left are all the same
        return torch.zeros(len(values), 1, dtype=torch.float64)
    scores: Tensor = (quantiles - mean) @ whitened.axes
    return scores.double()
