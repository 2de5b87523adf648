"""Closed form: the information of the Gaussian mixture whose class means lie as far apart as those of the states."""

from __future__ import annotations

from torch import Tensor

from hf_attn_mi.kernels import mixture_information
from hf_attn_mi.mi.estimate import Estimate, Site
from hf_attn_mi.mi.leave_out import FoldSums, solve_left_out, sum_folds
from hf_attn_mi.mi.separation import debiased_separation
from hf_attn_mi.mi.spectrum import spectrum_bias

MANY_CLASSES = 6  # from here on the noise in the spectrum of the separation biases its information
FEW_POINTS = 1024  # of the quadrature for left-out folds: of these only differences matter


def estimate_gaussian(site: Site) -> Estimate:
    """Return the closed form of one site."""
    return gaussian_information(sum_folds(site.principal.points, site.probabilities, site.fold_of))


def gaussian_information(folds: FoldSums) -> Estimate:
    """Return the debiased Gaussian-mixture information of one site, signed.

    G = inner products of the class means in the within-class metric, unbiased; the mixture of unit Gaussians with these
    means has the information that is reported, by quasi-random integration. It is exact for Gaussian classes with a
    common covariance, correct for soft labels, and blind to everything but class means.

    Args:
        folds: of whitened points.
    """
    share = folds.weights / folds.weights.sum(1, keepdim=True)  # (1 + folds, K)
    separation = _separations(folds)
    value = float(mixture_information(separation[0], share[0]))
    left_out = mixture_information(separation, share, points=FEW_POINTS)
    left_out = left_out[1:] + value - left_out[0]
    if share.shape[1] > MANY_CLASSES:
        bias = spectrum_bias(separation[0], share[0], int(folds.examples[0]), folds.points.shape[2])
        value, left_out = value - bias, left_out - bias
    return Estimate(value, left_out, "gaussian")


def _separations(folds: FoldSums) -> Tensor:
    """Return (1 + folds, K, K) debiased inner products of class means for each fit."""
    examples = folds.examples
    share = folds.weights / examples[:, None]
    # sum over a class of its points minus the mean, over n
    centered = folds.class_sums.double() - folds.weights[..., None] * (folds.sums.double() / examples[:, None])[:, None]
    centered = centered / examples[:, None, None]
    solved = solve_left_out(folds, centered.float()).double()  # (1 + folds, K, r)
    products = centered @ solved.transpose(1, 2)
    products = (products + products.transpose(1, 2)) / 2
    return debiased_separation(
        products, folds.products / examples[:, None, None], share, examples, folds.points.shape[2]
    )
