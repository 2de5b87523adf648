"""Cross-fitted linear scores of one site: shrunk discriminants, and for soft outputs regression of their log odds."""

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
from hf_attn_mi.mi.calibration import Calibration, calibrate, out_of_fold
from hf_attn_mi.mi.estimate import Site
from hf_attn_mi.mi.folds import by_fold, from_folds
from hf_attn_mi.mi.leave_out import FoldSums, all_and_left_out, solve_left_out
from hf_attn_mi.mi.rng import stream

RIDGES = (0.0, 0.1, 1.0, 10.0)  # times the mean variance of a component
LEAST_PROBABILITY = 1e-5  # of soft outputs, before their logarithm
JITTER = 3e-3  # standard deviations of a score
MOST_DIMENSIONS = 8  # of the scores in which neighbors are counted


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Scores of each example from the other folds' examples, and the calibrated information in them."""

    pointwise: Tensor  # (n,) float64: sum_k P_ik (log q(k | state_i) - log p_k); its mean is the estimate
    second: Tensor  # (n,) the same of a discriminant among the scores
    second_loss: float  # what that discriminant loses to the finite sample, where scores are Gaussian
    raw: Tensor  # (n, K) the scores before calibration
    directions: Tensor  # (K, r) of scores like these from all examples
    scores: Tensor  # (n, min(K - 1, 8)) float32, centered, unit variance, best separated first
    gaussian: Tensor  # (1 + folds,) Gaussian-mixture information of all K - 1 scores, and with each fold left out
    separation: Tensor  # (K, K) of the scores


def discriminant_information(site: Site, folds: FoldSums) -> OutOfFold:
    """Return the calibrated cross-entropy information of the best of a path of ridge discriminants.

    The scores of an example are its products with the class means of the other folds in the metric (C + r)^-1, C the
    covariance of all states and r a ridge; C is diagonal here and knows no outputs, so that one decomposition serves
    all folds and ridges. For soft outputs the slopes of their log odds are tried as well: exact where the log odds are
    linear in the state, as for the state that the classifier reads. The best ridge is that of least cross-entropy,
    then temperature and offsets are cross-fitted, of the scores as they are or after a discriminant among them.

    Args:
        site: the whitened states and outputs.
        folds: its sums.
    """
    probabilities, fold_of, share = site.probabilities, site.fold_of, site.probabilities.mean(0)
    candidates = _ridge_path(site, folds)
    if site.soft:
        candidates.append(_log_odds(site, folds))

    fits = [calibrate(scores, probabilities) for scores, _ in candidates]
    (raw, directions), fit = min(zip(candidates, fits), key=lambda found: found[1].loss)
    flat = _between(raw)
    again = class_moments(flat.double(), probabilities, folds=fold_of)
    second = _second(flat, again)
    found = [
        _pointwise(raw, fit, probabilities, share, fold_of),
        _pointwise(second, None, probabilities, share, fold_of),
    ]
    best = max(found, key=lambda values: float(values.mean()))
    total = factor_classes(again, metric="total", shrinkage=1e-5)
    parts = factor_classes(again, metric="total", shrinkage=1e-5, leave_one_out=True)
    rest = again.weights[0].sum(0) - again.weights[0]
    separation = class_separation(again, total)[0, 0]
    left_out = mixture_information(class_separation(again, parts)[0], rest / rest.sum(1, keepdim=True), points=1024)
    whole = mixture_information(separation, share, points=1024)
    gaussian = torch.cat([whole[None], left_out])
    lost = _second_loss(separation, probabilities, fold_of)
    return OutOfFold(best, found[1], lost, raw, directions, _leading(flat, again), gaussian, separation)


def _ridge_path(site: Site, folds: FoldSums) -> list[tuple[Tensor, Tensor]]:
    """Return (n, K) out-of-fold scores and (K, r) directions from all examples for each ridge."""
    variances = site.principal.variances
    means = folds.class_sums / folds.weights.clamp_min(1e-9)[..., None].to(folds.points.dtype)  # (1 + folds, K, r)
    shrunk = [(variances / (variances + ridge * variances.mean())).to(means.dtype) for ridge in RIDGES]
    directions = torch.stack([means * each for each in shrunk], 1)  # (1 + folds, ridges, K, r)
    scores = _scores(folds.points, directions[1:].flatten(1, 2), site.fold_of)
    return list(zip(scores.split(means.shape[1], dim=1), directions[0]))  # type: ignore[no-untyped-call]


def _log_odds(site: Site, folds: FoldSums) -> tuple[Tensor, Tensor]:
    """Return the same for least squares of the centered log probabilities."""
    logits = site.probabilities.clamp_min(LEAST_PROBABILITY).log()
    logits = logits - logits.mean(1, keepdim=True)
    logits = by_fold((logits - logits.mean(0)).to(folds.points.dtype), site.fold_of)
    right = all_and_left_out(logits.transpose(1, 2) @ folds.points)
    slopes = solve_left_out(folds, right / folds.examples.to(right.dtype)[:, None, None])  # (1 + folds, K, r)
    return _scores(folds.points, slopes[1:], site.fold_of), slopes[0]


def _scores(parts: Tensor, directions: Tensor, fold_of: Tensor) -> Tensor:
    """Return (n, K): each example, of (folds, room, r), with the directions (folds, K, r) of its fold."""
    return from_folds(parts @ directions.transpose(1, 2), fold_of)


def _between(scores: Tensor) -> Tensor:
    """Return (n, K - 1) differences between classes: what scores have in common says nothing."""
    apart = scores - scores.mean(1, keepdim=True)
    apart = apart - apart.mean(0)
    axes = torch.linalg.eigh((apart.T @ apart).double())[1][:, 1:].to(apart.dtype)
    flat: Tensor = apart @ axes
    flat = flat / flat.square().mean(0).sqrt().clamp_min(1e-12)
    # Of classes that are wholly apart no covariance would be left within.
    return flat + JITTER * torch.randn(flat.shape, generator=stream(0, "jitter"))


def _second(flat: Tensor, moments: ClassMoments) -> Tensor:
    """Return (n, K) logits of the cross-fitted discriminant among the scores."""
    directions, offsets = linear_discriminant(factor_classes(moments, shrinkage=1e-3, leave_one_out=True))
    logits = _scores(by_fold(flat.double() - moments.mean, moments.fold_of), directions, moments.fold_of)
    return (logits + offsets.clamp_min(-50)[moments.fold_of]).float()


def _pointwise(
    scores: Tensor, fit: Calibration | None, probabilities: Tensor, share: Tensor, fold_of: Tensor
) -> Tensor:
    posterior = out_of_fold(scores, probabilities, fold_of, fit)
    return (probabilities * (posterior - share.log())).sum(1)


def _second_loss(separation: Tensor, probabilities: Tensor, fold_of: Tensor) -> float:
    """Return by how much the second discriminant misses the true posterior on Gaussian scores of this separation."""
    share = probabilities.mean(0)
    values, vectors = torch.linalg.eigh(separation)
    means = (vectors * values.clamp_min(0).sqrt())[:, 1:]  # (K, K - 1)
    generator = stream(int(float(separation.abs().sum()) * 1e9), "scores")  # sites must not share its error
    labels = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
    drawn = means[labels] + torch.randn(len(labels), means.shape[1], generator=generator, dtype=torch.float64)
    own = torch.nn.functional.one_hot(labels, len(share)).double()
    true = (drawn @ means.T - means.square().sum(1) / 2 + share.log()).log_softmax(1)
    reached = _pointwise(_second(drawn, class_moments(drawn, own, folds=fold_of)), None, own, share, fold_of)
    return float(((own * (true - share.log())).sum(1) - reached).mean())


def _leading(flat: Tensor, moments: ClassMoments) -> Tensor:
    """Return the canonical variates of the scores, at most eight."""
    if flat.shape[1] <= MOST_DIMENSIONS:
        return flat
    factors = factor_classes(moments, shrinkage=1e-3)
    whitened = torch.linalg.solve_triangular(factors.factor[0], (flat.double() / factors.scale).T, upper=False).T
    centers = factors.centers[0, 0] * factors.weights[0, 0].sqrt()[:, None]
    axes = torch.linalg.eigh(centers.T @ centers)[1].flip(1)[:, :MOST_DIMENSIONS]
    found: Tensor = whitened @ axes
    return found.float()
