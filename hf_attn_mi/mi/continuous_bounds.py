"""A lower bound of the information between two continuous vectors that is valid whatever their distribution."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from hf_attn_mi.mi.bounds import MISSED, PRIOR_SHARE, SiteBounds, deviations, site_bounds
from hf_attn_mi.mi.coordinates import principal_components
from hf_attn_mi.mi.copula_ratios import Ratios, cross_fitted_ratios
from hf_attn_mi.mi.estimator import SiteData
from hf_attn_mi.mi.predictors import Effort

LIMITS = (3.0, 10.0, 30.0, 100.0)  # limits of the density ratio: a larger one can prove more, and needs more examples
CELLS = {1: (16,), 2: (4, 4)}  # cells in each direction, by the number of directions of the outputs
MANY_CELLS = (2, 2, 2)
MIN_PER_CELL = 3  # examples of the fold that places the cells


def vector_bounds(site: SiteData, effort: Effort) -> SiteBounds:
    """Return a lower bound of the information between states and continuous outputs: the larger of two.

    Each of the two fails with a probability of at most 1.25 %.

    1. Donsker and Varadhan: for every function f, I(X; Y) >= E[f(x, y)] - log E[exp f(x, y')], y' of another example.
       f = log(0.95 min(r, M) + 0.05), r the density ratio of a copula that was fitted to the other folds, Gaussian or
       Student by its mean log ratio there, M the best of four limits. f and exp f are bounded, so that the empirical
       Bernstein inequality holds for the first mean, and with n / 2 in place of n (Hoeffding 1963, section 5b) for the
       second, a mean over pairs.
    2. Cells: I(X; Y) >= I(X; c(Y)) for every function c. c is the cell of a grid over the leading principal components
       of the outputs, placed by one fold that is not used further; then `site_bounds`.

    Args:
        site: states and (n, m) continuous outputs.
        effort: the effort spent on the predictors of the cells.
    """
    ratio = ratio_bound(site.once(cross_fitted_ratios).trained)
    cells = cell_bound(site, effort)
    return max((ratio, cells), key=lambda bound: (bound.lower, bound.lower_normal))


def ratio_bound(ratios: Ratios) -> SiteBounds:
    """Return the first bound of `vector_bounds`."""
    pairs = torch.cat([part[~part.isnan()] for part in ratios.apart])
    independent = sum(len(part) // 2 for part in ratios.apart)
    missed = MISSED / 2 / len(LIMITS) / 2  # for each of two means at each limit
    best = SiteBounds(0.0, 0.0, "copula")
    for limit in LIMITS:
        functions = [
            torch.log((1 - PRIOR_SHARE) * values.clamp(max=math.log(limit)).exp() + PRIOR_SHARE)
            for values in (ratios.pointwise, pairs)
        ]
        highest = math.log((1 - PRIOR_SHARE) * limit + PRIOR_SHARE)
        mean, normal, bernstein = deviations(functions[0], highest - math.log(PRIOR_SHARE), missed=missed)
        apart, apart_normal, apart_bernstein = deviations(
            functions[1].exp(), math.exp(highest), missed=missed, independent=independent
        )
        lower = mean - bernstein - math.log(apart + apart_bernstein)
        lower_normal = mean - normal - math.log(apart + apart_normal)
        best = SiteBounds(max(best.lower, lower), max(best.lower_normal, lower_normal), best.predictor)
    return best


def cell_bound(site: SiteData, effort: Effort) -> SiteBounds:
    """Return the second bound of `vector_bounds`; zero where one fold is too small to place cells."""
    placing = site.fold_of == 0
    labels = cells_of(site.outputs, placing)
    if labels is None:
        return SiteBounds(0.0, 0.0, "none")
    rest = ~placing
    codes = torch.unique(labels[rest], return_inverse=True)[1]
    if int(codes.max()) == 0:
        return SiteBounds(0.0, 0.0, "none")
    whitened = replace(
        site.whitened, balanced=site.whitened.balanced[rest], points=site.whitened.points[rest].contiguous()
    )
    one_hot = torch.nn.functional.one_hot(codes).double()
    return site_bounds(SiteData(whitened, one_hot, codes, site.fold_of[rest] - 1, False), effort, missed=MISSED / 2)


def cells_of(outputs: Tensor, placing: Tensor) -> Tensor | None:
    """Return (n,) the cell of each output in a grid of quantiles of the leading principal components.

    Args:
        outputs: (n, m).
        placing: (n,) bool: the examples that components and quantiles are computed from.

    Returns:
        None where they are too few for two cells in each direction, or do not differ.
    """
    chosen = outputs[placing]
    mean, deviation = chosen.mean(0), chosen.std(0, correction=0)
    scaled = torch.where(deviation > 0, (outputs - mean) / deviation.clamp_min(1e-300), 0).float()
    components = principal_components(scaled[placing])
    if components is None:
        return None
    grid = CELLS.get(components.points.shape[1], MANY_CELLS)
    most = int((len(chosen) / MIN_PER_CELL) ** (1 / len(grid)))
    labels = torch.zeros(len(outputs), dtype=torch.long)
    if most < 2:
        return None
    for axis, wanted in enumerate(grid):
        count = min(wanted, most)
        position = scaled @ components.axes[:, axis]
        inner = torch.arange(1, count, dtype=position.dtype) / count
        labels = labels * count + torch.bucketize(position, torch.quantile(position[placing], inner))
    return labels
