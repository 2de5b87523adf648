"""Cross-fitted discriminant scores: linear ones on a path of ridges, and quadratic ones on the leading components."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.kernels import (
    ClassMoments,
    class_moments,
    class_separation,
    factor_classes,
    linear_discriminant,
    mixture_information,
)
from hf_attn_mi.mi.calibration import Calibration, calibrate, calibrated_information
from hf_attn_mi.mi.estimator import SiteData, SiteEstimate
from hf_attn_mi.mi.folds import FoldSums, all_and_left_out, by_fold, from_folds, solve_left_out
from hf_attn_mi.mi.rng import draw_classes, draw_normal, make_rng

RIDGES = (0.0, 0.1, 1.0, 10.0)  # in units of the mean variance of a component
MIN_PROBABILITY = 1e-5  # smaller soft outputs are raised to this before the logarithm is taken
JITTER = 3e-3  # in standard deviations of a score
MAX_DIMENSIONS = 8  # dimensions of the scores in which neighbors are counted
QUADRATIC_COMPONENTS = 8


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Scores of each example that were fitted without its fold, and the calibrated information in them.

    Attributes:
        pointwise: (n,) float64: sum_k P_ik (log q(k | state_i) - log p_k); its mean is the estimate.
        second: (n,) the same for a second discriminant, fitted to the scores.
        second_loss: nats that the second discriminant loses to the finite sample where scores are Gaussian.
        raw: (n, K) scores before calibration.
        directions: (K, r) of the same scores fitted to all examples.
        scores: (n, min(K - 1, 8)) float32, centered, unit variance, best separated first.
        gaussian: (1 + folds,) Gaussian-mixture information of all K - 1 scores, then without each fold.
        separation: (K, K) of the scores.
    """

    pointwise: Tensor
    second: Tensor
    second_loss: float
    raw: Tensor
    directions: Tensor
    scores: Tensor
    gaussian: Tensor
    separation: Tensor


@dataclass(frozen=True, eq=False)
class LinearFit:
    """One linear discriminant: (n, K) out-of-fold scores, (K, r) directions from all examples, and the calibration."""

    scores: Tensor
    directions: Tensor
    calibration: Calibration


def linear_fits(site: SiteData) -> list[LinearFit]:
    """Return one discriminant for each ridge, for soft outputs also the regression of the log odds.

    Estimators and lower bounds need the same ones: call it by `site.once`.
    """
    folds = site.sums
    candidates = [*_ridge_path(site, folds), *([_log_odds(site, folds)] if site.soft else [])]
    return [LinearFit(scores, axes, calibrate(scores, site.outputs)) for scores, axes in candidates]


def discriminant_information(site: SiteData) -> OutOfFold:
    """Return the calibrated cross-entropy information of the best of a path of ridge discriminants.

    The scores of an example are its products with the class means of the other folds in the metric (C + r)^-1, C the
    covariance of all states and r a ridge; C is diagonal here and does not depend on outputs, so that one decomposition
    serves all folds and ridges. For soft outputs the regression of their log odds is tried as well: it is exact where
    the log odds are linear in the state, as for the state that the classifier reads. The ridge with the least
    cross-entropy is taken; then temperature and offsets are cross-fitted, either for these scores or for those of a
    second discriminant fitted to them, whichever has the larger information.

    Args:
        site: the whitened states and outputs.
    """
    probabilities, fold_of, share = site.outputs, site.fold_of, site.share
    best = min(site.once(linear_fits), key=lambda fit: fit.calibration.loss)
    raw, fit = best.scores, best.calibration
    flat = _between_classes(raw)
    moments = class_moments(flat.double(), probabilities, folds=fold_of)
    first = calibrated_information(raw, probabilities, fold_of, share=share, fit=fit)
    second = calibrated_information(_second_scores(flat, moments), probabilities, fold_of, share=share)
    total = factor_classes(moments, metric="total", shrinkage=1e-5)
    parts = factor_classes(moments, metric="total", shrinkage=1e-5, leave_one_out=True)
    rest = moments.weights.sum(0) - moments.weights
    separation = class_separation(moments, total)[0]
    left_out = mixture_information(class_separation(moments, parts), rest / rest.sum(1, keepdim=True), points=1024)
    whole = mixture_information(separation, share, points=1024)
    return OutOfFold(
        pointwise=max((first, second), key=lambda values: float(values.mean())),
        second=second,
        second_loss=_second_loss(separation, probabilities, fold_of, site.mark),
        raw=raw,
        directions=best.directions,
        scores=_canonical_variates(flat, moments),
        gaussian=torch.cat([whole[None], left_out]),
        separation=separation,
    )


def quadratic_information(site: SiteData) -> SiteEstimate:
    """Return the calibrated, cross-fitted information of a shrunk discriminant on components and their products.

    A lower bound, sensitive to classes that differ in variance or correlation but not in mean. Eight components have 44
    such features, few enough that little is lost to training.

    Args:
        site: the site; its first eight principal components are used.
    """
    points = site.points[:, :QUADRATIC_COMPONENTS].double()
    row, column = torch.triu_indices(points.shape[1], points.shape[1])
    features = torch.cat([points, points[:, row] * points[:, column]], 1)
    moments = class_moments(features, site.outputs, folds=site.fold_of)
    directions, offsets = linear_discriminant(factor_classes(moments, leave_one_out=True))
    scores = _scores(by_fold(features - moments.mean, site.fold_of), directions, site.fold_of)
    scores = scores + offsets.clamp_min(-50)[site.fold_of]
    pointwise = calibrated_information(scores, site.outputs, site.fold_of)
    return SiteEstimate.from_pointwise(pointwise, site.fold_of, "quadratic")


def _ridge_path(site: SiteData, folds: FoldSums) -> list[tuple[Tensor, Tensor]]:
    """Return (n, K) out-of-fold scores and (K, r) directions from all examples for each ridge."""
    variances = site.whitened.variances
    means = folds.class_sums / folds.weights.clamp_min(1e-9)[..., None].to(folds.points.dtype)  # (1 + folds, K, r)
    shrunk = [(variances / (variances + ridge * variances.mean())).to(means.dtype) for ridge in RIDGES]
    directions = torch.stack([means * each for each in shrunk], 1)  # (1 + folds, ridges, K, r)
    scores = _scores(folds.points, directions[1:].flatten(1, 2), site.fold_of)
    return list(zip(scores.split(means.shape[1], dim=1), directions[0]))  # type: ignore[no-untyped-call]


def _log_odds(site: SiteData, folds: FoldSums) -> tuple[Tensor, Tensor]:
    """Return scores and directions likewise, of the regression of the centered log probabilities."""
    logits = site.outputs.clamp_min(MIN_PROBABILITY).log()
    logits = logits - logits.mean(1, keepdim=True)
    logits = by_fold((logits - logits.mean(0)).to(folds.points.dtype), site.fold_of)
    right = all_and_left_out(logits.transpose(1, 2) @ folds.points)
    slopes = solve_left_out(folds, right / folds.examples.to(right.dtype)[:, None, None])  # (1 + folds, K, r)
    return _scores(folds.points, slopes[1:], site.fold_of), slopes[0]


def _scores(parts: Tensor, directions: Tensor, fold_of: Tensor) -> Tensor:
    """Return (n, K): products of each example in (folds, size, r) with the directions (folds, K, r) of its fold."""
    return from_folds(parts @ directions.transpose(1, 2), fold_of)


def _between_classes(scores: Tensor) -> Tensor:
    """Return (n, K - 1) differences between the scores of classes: their common part carries no information."""
    centered = scores - scores.mean(1, keepdim=True)
    centered = centered - centered.mean(0)
    axes = torch.linalg.eigh((centered.T @ centered).double())[1][:, 1:].to(centered.dtype)
    flat: Tensor = centered @ axes
    flat = flat / flat.square().mean(0).sqrt().clamp_min(1e-12)
    # Without jitter the within-class covariance of perfectly separated classes would be singular.
    return flat + JITTER * draw_normal(flat.shape, make_rng(0, "jitter"), flat, dtype=torch.float32)


def _second_scores(flat: Tensor, moments: ClassMoments) -> Tensor:
    """Return (n, K) logits of a cross-fitted discriminant on the scores."""
    directions, offsets = linear_discriminant(factor_classes(moments, shrinkage=1e-3, leave_one_out=True))
    logits = _scores(by_fold(flat.double() - moments.mean, moments.fold_of), directions, moments.fold_of)
    return (logits + offsets.clamp_min(-50)[moments.fold_of]).float()


def _second_loss(separation: Tensor, probabilities: Tensor, fold_of: Tensor, mark: int) -> float:
    """Return the nats that the second discriminant loses against the true posterior on Gaussian scores."""
    share = probabilities.mean(0)
    values, vectors = torch.linalg.eigh(separation)
    means = (vectors * values.clamp_min(0).sqrt())[:, 1:]  # (K, K - 1)
    generator = make_rng(mark, "scores")  # sites must not share the error of one sample
    labels = draw_classes(probabilities, 1, generator)[:, 0]
    drawn = means[labels] + draw_normal((len(labels), means.shape[1]), generator, means)
    hard = torch.nn.functional.one_hot(labels, len(share)).double()
    true = (drawn @ means.T - means.square().sum(1) / 2 + share.log()).log_softmax(1)
    scores = _second_scores(drawn, class_moments(drawn, hard, folds=fold_of))
    reached = calibrated_information(scores, hard, fold_of, share=share)
    return float(((hard * (true - share.log())).sum(1) - reached).mean())


def _canonical_variates(flat: Tensor, moments: ClassMoments) -> Tensor:
    """Return the canonical variates of the scores, at most eight."""
    if flat.shape[1] <= MAX_DIMENSIONS:
        return flat
    factors = factor_classes(moments, shrinkage=1e-3)
    whitened = torch.linalg.solve_triangular(factors.factor[0], (flat.double() / factors.scale).T, upper=False).T
    centers = factors.centers[0] * factors.weights[0].sqrt()[:, None]
    axes = torch.linalg.eigh(centers.T @ centers)[1].flip(1)[:, :MAX_DIMENSIONS]
    variates: Tensor = whitened @ axes
    return variates.float()
