"""Closed forms for Gaussian data: states of classes with a common covariance, and jointly Gaussian states and vectors.

For classes: the debiased inner products of the class means in the within-class metric determine a Gaussian mixture,
whose information is computed by quadrature; for many classes the noise in their spectrum is corrected by simulation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.kernels import mixture_information
from hf_attn_mi.mi.estimator import SiteData, SiteEstimate
from hf_attn_mi.mi.folds import FoldSums, all_and_left_out, solve_left_out
from hf_attn_mi.mi.rng import draw_normal, make_rng

MANY_CLASSES = 6  # with more classes the noise in the spectrum of the separation biases its information
FEW_POINTS = 1024  # quadrature points for left-out folds, where only differences matter
MAX_EXPLAINED = 0.9999  # largest share of variance between classes; more is rounding, if classes do not overlap
PAIRS = 8  # antithetic pairs of simulated samples
ROUNDS = 4  # rounds in which the spectrum is adjusted until simulated samples have the observed one
SIMULATION_POINTS = 512  # quadrature points: only differences at the same points matter


def estimate_gaussian(site: SiteData) -> SiteEstimate:
    """Return the closed form for Gaussian classes; see `gaussian_information`."""
    return gaussian_information(site.sums)


def gaussian_information(folds: FoldSums) -> SiteEstimate:
    """Return the debiased Gaussian-mixture information of one site, signed.

    G = inner products of the class means in the within-class metric, unbiased. The mixture of unit Gaussians with these
    means has the information that is returned, computed by quasi-random integration. It is exact for Gaussian classes
    with a common covariance, correct for soft labels, and depends on nothing but class means and one covariance.

    Args:
        folds: the folds, with whitened points.
    """
    share = folds.weights / folds.weights.sum(1, keepdim=True)  # (1 + folds, K)
    separation = _separations(folds)
    value = float(mixture_information(separation[0], share[0]))
    left_out = mixture_information(separation, share, points=FEW_POINTS)
    left_out = left_out[1:] + value - left_out[0]
    if share.shape[1] > MANY_CLASSES:
        bias = spectrum_bias(separation[0], share[0], int(folds.examples[0]), folds.points.shape[2])
        value, left_out = value - bias, left_out - bias
    return SiteEstimate(value, left_out, "gaussian")


def estimate_gaussian_continuous(site: SiteData) -> SiteEstimate:
    """Return (log det S_y - log det S_y|h) / 2 in nats, each log determinant unbiased.

    S_y|h is the residual covariance of the least squares regression of the outputs on the states. For Gaussian data the
    scatter matrices are Wishart with n - 1 and n - 1 - r degrees of freedom, whose mean log determinant is a sum of
    digammas; without this correction the estimate is too high by about m r / 2 n.

    Args:
        site: a site with (n, m) outputs and their noise, and r components.

    Raises:
        InvalidInputError: fewer than m + r + 2 examples without a fold.
    """
    outputs, fold_of = site.outputs, site.fold_of
    folds, m = int(fold_of.max()) + 1, outputs.shape[1]
    joined = torch.cat([site.points.double(), outputs - outputs.mean(0)], 1)
    r = joined.shape[1] - m
    parts = [joined[fold_of == fold] for fold in range(folds)]
    sizes = torch.tensor([len(part) for part in parts], dtype=torch.float64)
    if float(sizes.sum() - sizes.max()) < m + r + 2:
        raise InvalidInputError(f"n = {len(outputs)} examples are too few for {r} components and {m} outputs")
    gram = all_and_left_out(torch.stack([part.T @ part for part in parts]))
    total = all_and_left_out(torch.stack([part.sum(0) for part in parts]))
    size = all_and_left_out(sizes)
    scatter = gram - total[:, :, None] * total[:, None] / size[:, None, None]  # (1 + folds, r + m, r + m)
    states, cross, vectors = scatter[:, :r, :r], scatter[:, :r, r:], scatter[:, r:, r:]
    residual = vectors - cross.transpose(1, 2) @ torch.linalg.solve(states, cross)
    series = (_log_determinant(vectors, size - 1) - _log_determinant(residual, size - 1 - r)) / 2
    return SiteEstimate.from_series(series, "gaussian_continuous")


def debiased_separation(total: Tensor, second: Tensor, share: Tensor, examples: Tensor, d: int) -> Tensor:
    """Return (fits, K, K) the result of `kernels.class_separation`, computed from K x K matrices alone.

    The states are regressed on the outputs P: x = sum_k P_ik beta_k + residual. The metric of the residual follows from
    that of all states by Woodbury's identity; the biases of the inverse Wishart matrix and of the noise in the slopes
    are subtracted; then slopes are converted to class means and the within-class metric. For hard labels the slopes are
    the class means.

    Args:
        total: (fits, K, K) products c_k^T S^-1 c_l, c_k = mean of P_ik (x_i - mean), S the covariance of all states.
        second: (fits, K, K) mean of P_ik P_il.
        share: (fits, K) mean of P_ik.
        examples: (fits,).
        d: features.
    """
    classes = share.shape[1]
    identity = torch.eye(classes, dtype=torch.float64)
    second = second + 1e-9 * identity
    values, vectors = torch.linalg.eigh(second)
    root = (vectors * values.clamp_min(1e-9).sqrt()[:, None]) @ vectors.transpose(1, 2)
    inverse = (vectors / values.clamp_min(1e-9)[:, None]) @ vectors.transpose(1, 2)
    free, n = (examples - classes)[:, None, None], examples[:, None, None]
    inverse_root = inverse @ root
    explained, axes = torch.linalg.eigh(_symmetric(inverse_root @ total @ inverse_root))  # canonical correlations^2
    explained = explained.clamp(0, MAX_EXPLAINED)
    residual = axes * (explained / (1 - explained))[:, None]
    residual = inverse_root @ residual @ axes.transpose(1, 2) @ inverse_root * (free / n)
    residual = residual * ((free - d - 1) / free) - d * inverse / n
    centering = identity - share[:, None, :]
    residual = centering @ residual @ centering.transpose(1, 2)
    present = share > 0
    conditional = torch.where(present[..., None], second / share[..., None], 0)  # mean outputs for each class
    spread = second - conditional.transpose(1, 2) @ (share[..., None] * conditional)
    separation = conditional @ residual @ torch.linalg.inv(identity + spread @ residual) @ conditional.transpose(1, 2)
    separation = centering @ _symmetric(separation) @ centering.transpose(1, 2)
    return separation * present[..., :, None] * present[..., None, :]


def spectrum_bias(separation: Tensor, share: Tensor, n: int, d: int) -> float:
    """Return E[information of a sample's separation] - information of the true one, nats.

    The debiased separation G of K classes is unbiased entry by entry, but noise of about 2 sqrt(d K) K / n spreads its
    eigenvalues, and the information is concave in them: with 20 classes, 2,000 examples and 384 features the bias is a
    tenth of a nat. The true spectrum is estimated as the one whose samples have the observed spectrum on average. A
    sample is drawn from its exact distribution for Gaussian classes, in K x K matrices: noise of the means, and an
    inverse Wishart covariance with n - d degrees of freedom.

    Args:
        separation: (K, K) debiased, float64.
        share: (K,) class probabilities.
        n: examples.
        d: features.
    """
    observed, vectors = torch.linalg.eigh(separation)
    spectrum = observed.clamp_min(0)
    for _ in range(ROUNDS):
        samples = _separation_samples((vectors * spectrum) @ vectors.T, share, n, d)
        excess = torch.linalg.eigvalsh(samples).mean(0) - observed
        spectrum = (spectrum - excess).clamp_min(0).sort().values
    true = (vectors * spectrum) @ vectors.T
    samples = _separation_samples(true, share, n, d)
    sampled = mixture_information(samples, share, points=SIMULATION_POINTS).mean()
    return float(sampled - mixture_information(true, share, points=SIMULATION_POINTS))


def _separations(folds: FoldSums) -> Tensor:
    """Return (1 + folds, K, K) debiased inner products of class means for each fit."""
    examples = folds.examples
    share = folds.weights / examples[:, None]
    # sum over a class of its points minus the mean, over n
    centered = folds.class_sums.double() - folds.weights[..., None] * (folds.sums.double() / examples[:, None])[:, None]
    centered = centered / examples[:, None, None]
    solved = solve_left_out(folds, centered.float()).double()  # (1 + folds, K, r)
    products = _symmetric(centered @ solved.transpose(1, 2))
    return debiased_separation(
        products, folds.products / examples[:, None, None], share, examples, folds.points.shape[2]
    )


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.transpose(-1, -2)) / 2


def _separation_samples(true: Tensor, share: Tensor, n: int, d: int) -> Tensor:
    """Return (2 PAIRS, K, K) debiased separations of simulated samples, always from the same random numbers."""
    generator = make_rng(0, "spectrum")
    classes = len(share)
    values, vectors = torch.linalg.eigh(true)
    means = vectors * values.clamp_min(0).sqrt()  # (K, K)
    free = n - classes
    spread = (n * share).rsqrt()[:, None]

    def noise(width: int) -> Tensor:
        normal = draw_normal((PAIRS, classes, width), generator, spread) * spread
        return normal - (share[:, None] * normal).sum(1, keepdim=True)

    inside = noise(min(d, classes))
    if d < classes:
        inside = torch.nn.functional.pad(inside, (0, classes - d))
    outside = noise(max(0, d - classes))
    outside = outside @ outside.transpose(1, 2)
    products = torch.cat(
        [(means + sign * inside) @ (means + sign * inside).transpose(1, 2) + outside for sign in (1, -1)]
    )
    covariance = _wishart(free - d + classes, classes, generator, share)
    values, vectors = torch.linalg.eigh(products)
    root = (vectors * values.clamp_min(0).sqrt()[:, None]) @ vectors.transpose(1, 2)
    biased = root @ torch.linalg.solve(torch.cat([covariance, covariance]), root) * free
    centering = torch.eye(classes, dtype=torch.float64) - share
    samples: Tensor = (free - d - 1) / free * biased - d * centering @ torch.diag(1 / (n * share)) @ centering.T
    return samples


def _wishart(degrees: int, size: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """Return (PAIRS, size, size) by Bartlett's decomposition; its chi-squares by Wilson and Hilferty's cube."""
    lower = draw_normal((PAIRS, size, size), generator, like).tril()
    freedom = (degrees - torch.arange(size, dtype=torch.float64)).clamp_min(1)
    normal = lower.diagonal(dim1=1, dim2=2)
    chi = freedom * (1 - 2 / (9 * freedom) + normal * (2 / (9 * freedom)).sqrt()).clamp_min(0.05) ** 3
    lower = lower.tril(-1) + torch.diag_embed(chi.sqrt())
    return lower @ lower.transpose(1, 2)


def _log_determinant(scatter: Tensor, freedom: Tensor) -> Tensor:
    """Return the unbiased log determinant of the covariance of Wishart scatter matrices (..., m, m)."""
    m = scatter.shape[-1]
    steps = torch.arange(m, dtype=torch.float64)
    mean = torch.digamma((freedom[:, None] - steps) / 2).sum(1) + m * math.log(2)
    log_determinant: Tensor = torch.linalg.slogdet(scatter)[1] - mean
    return log_determinant
