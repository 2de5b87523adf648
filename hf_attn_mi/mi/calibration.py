"""Calibration: the temperature and class offsets that turn scores into probabilities, by Newton's method."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.kernels.calibration import RIDGE, class_calibration, curvature, evaluate
from hf_attn_mi.mi.folds import by_fold


@dataclass(frozen=True, eq=False)
class Calibration:
    """The maximum of the mean of sum_k P_k log_softmax(t s + b)_k."""

    parameters: Tensor  # (1 + K,) float64: temperature t >= 0 and offsets b
    loss: float  # minus that mean, plus the ridge penalty
    posterior: Tensor  # (K, n) softmax of t s + b; classes first, so that sums over them are fast


def calibrate(scores: Tensor, probabilities: Tensor) -> Calibration:
    """Return the temperature and offsets that maximize the mean of sum_k P_k log_softmax(t s + b)_k.

    Args:
        scores: (n, K).
        probabilities: (n, K) float64.
    """
    exact, target = scores.double().T.contiguous(), probabilities.T.contiguous()
    fit = Calibration(*class_calibration(exact, target))
    if float(fit.parameters[0]) < 0:  # scores that contradict their classes carry no usable information: t = 0
        start = torch.cat([fit.parameters[:1].clamp(min=0), fit.parameters[1:]])
        return Calibration(start, *evaluate(start, exact, target))
    return fit


def out_of_fold(scores: Tensor, probabilities: Tensor, fold_of: Tensor, fit: Calibration | None = None) -> Tensor:
    """Return (n, K) log posteriors, float64, of scores calibrated without the fold of each example.

    All examples are fitted once; the fit without a fold is one Newton step from it, to second order in 1 / folds.

    Args:
        scores: (n, K), each computed without the fold of its example.
        probabilities: (n, K) float64.
        fold_of: (n,) long.
        fit: `calibrate(scores, probabilities)`, where it is known already.
    """
    exact = scores.double()
    whole = calibrate(scores, probabilities) if fit is None else fit
    fitted = whole.parameters - _fold_steps(whole, exact, probabilities, fold_of)
    fitted[:, 0].clamp_(min=0)
    parameters = fitted[fold_of]  # (n, 1 + K)
    return (parameters[:, :1] * exact + parameters[:, 1:]).log_softmax(1)


def calibrated_information(
    scores: Tensor,
    probabilities: Tensor,
    fold_of: Tensor,
    *,
    share: Tensor | None = None,
    fit: Calibration | None = None,
) -> Tensor:
    """Return (n,) float64 sum_k P_ik (log q(k | score_i) - log p_k), q calibrated by `out_of_fold`.

    Its mean is H(Y) minus a cross-fitted cross-entropy, a lower bound of the information in expectation.

    Args:
        scores: see `out_of_fold`.
        probabilities: see `out_of_fold`.
        fold_of: see `out_of_fold`.
        share: (K,) p_k; the mean probabilities by default.
        fit: see `out_of_fold`.
    """
    share = probabilities.mean(0) if share is None else share
    posterior = out_of_fold(scores, probabilities, fold_of, fit)
    return (probabilities * (posterior - share.log())).sum(1)


def _fold_steps(fit: Calibration, scores: Tensor, probabilities: Tensor, fold_of: Tensor) -> Tensor:
    """Return (folds, 1 + K) Newton steps from the fit for all examples but those of each fold.

    An example adds J^T (diag q - q q^T) J with J = (s, 1) to the curvature: summed within folds, subtracted from the
    total.
    """
    folds, (n, classes) = int(fold_of.max()) + 1, scores.shape
    posterior = fit.posterior.T
    excess = posterior - probabilities
    weighted = posterior * (scores - (posterior * scores).sum(1, keepdim=True))  # (n, K)
    slopes = torch.cat([(excess * scores).sum(1, keepdim=True), excess], 1)
    flat = torch.cat([slopes, (weighted * scores).sum(1, keepdim=True), weighted, posterior], 1)
    sums = torch.zeros(folds, flat.shape[1], dtype=torch.float64).index_add_(0, fold_of, flat)
    parts = by_fold(posterior, fold_of)
    outer = parts.transpose(1, 2) @ parts  # (folds, K, K)
    rest = 1 / (n - torch.bincount(fold_of, minlength=folds)).double()[:, None]
    sums, outer = (sums.sum(0) - sums) * rest, (outer.sum(0) - outer) * rest[..., None]
    slope = sums[:, : 1 + classes]
    slope[:, 1:] += 2 * RIDGE * fit.parameters[1:]
    steps: Tensor = torch.linalg.solve(
        curvature(sums[:, 1 + classes], sums[:, 2 + classes : 2 + 2 * classes], sums[:, 2 + 2 * classes :], outer),
        slope,
    )
    return steps
