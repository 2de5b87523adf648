"""Temperature and class offsets that make scores probabilities: few parameters, fitted by Newton's method."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.mi.folds import by_fold

RIDGE = 1e-4  # on the offsets: a class may be absent from a fold
NUGGET = 1e-10  # on the curvature: scores may all be equal
STEPS = 25
CONVERGED = 1e-9


@dataclass(frozen=True, eq=False)
class Calibration:
    """Where the mean of log_softmax(t s + b) is largest."""

    parameters: Tensor  # (1 + K,) float64: temperature t >= 0 and offsets b
    loss: float  # less that mean, and the ridge
    posterior: Tensor  # (K, n) softmax of t s + b; classes first: sums over them are quick


def calibrate(scores: Tensor, probabilities: Tensor) -> Calibration:
    """Return the temperature and offsets that maximize the mean of sum_k P_k log_softmax(t s + b)_k.

    Args:
        scores: (n, K).
        probabilities: (n, K) float64.
    """
    exact, wanted = scores.double().T.contiguous(), probabilities.T.contiguous()
    start = exact.new_zeros(1 + len(exact))
    start[0] = 1 / exact.std().clamp_min(1e-12)
    fit = _fit_at(start, exact, wanted)
    for _ in range(STEPS):
        step, size = _newton_step(fit, exact, wanted), 1.0
        better = _fit_at(fit.parameters - step, exact, wanted)
        while not better.loss <= fit.loss and size > 1e-4:
            size /= 2
            better = _fit_at(fit.parameters - size * step, exact, wanted)
        if not better.loss <= fit.loss:
            break
        gain, fit = fit.loss - better.loss, better
        if gain < CONVERGED:
            break
    if float(fit.parameters[0]) < 0:  # scores that speak against their classes: they are left out
        start = torch.cat([fit.parameters[:1].clamp(min=0), fit.parameters[1:]])
        return _fit_at(start, exact, wanted)
    return fit


def out_of_fold(scores: Tensor, probabilities: Tensor, fold_of: Tensor, fit: Calibration | None = None) -> Tensor:
    """Return (n, K) log posteriors, float64, of scores calibrated without the fold of each example.

    All examples are fitted once; without a fold that is one Newton step away, to second order in 1 / folds.

    Args:
        scores: (n, K), each made without the fold of its example.
        probabilities: (n, K) float64.
        fold_of: (n,) long.
        fit: of the scores, where it is known already.
    """
    exact = scores.double()
    whole = calibrate(scores, probabilities) if fit is None else fit
    fitted = whole.parameters - _fold_steps(whole, exact, probabilities, fold_of)
    fitted[:, 0].clamp_(min=0)
    chosen = fitted[fold_of]  # (n, 1 + K)
    return (chosen[:, :1] * exact + chosen[:, 1:]).log_softmax(1)


def _fold_steps(fit: Calibration, scores: Tensor, probabilities: Tensor, fold_of: Tensor) -> Tensor:
    """Return (folds, 1 + K) Newton steps from the fit for all examples but those of each fold.

    An example's part of the curvature is J^T (diag q - q q^T) J, J = (s, 1): summed within folds, taken off the whole.
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
        _curvature(sums[:, 1 + classes], sums[:, 2 + classes : 2 + 2 * classes], sums[:, 2 + 2 * classes :], outer),
        slope,
    )
    return steps


def _fit_at(parameters: Tensor, scores: Tensor, probabilities: Tensor) -> Calibration:
    """Return the fit with these parameters; scores and probabilities (K, n)."""
    logits = torch.addcmul(parameters[1:, None], parameters[0], scores)
    top = logits.amax(0)
    weights = (logits - top).exp_()
    total = weights.sum(0)
    entropy = (total.log() + top).mean() - (probabilities * logits).sum() / scores.shape[1]
    loss = entropy + RIDGE * parameters[1:].square().sum()
    return Calibration(parameters, float(loss), weights.div_(total))


def _newton_step(fit: Calibration, scores: Tensor, probabilities: Tensor) -> Tensor:
    n, posterior, offsets = scores.shape[1], fit.posterior, fit.parameters[1:]
    excess = posterior - probabilities
    apart = scores - (posterior * scores).sum(0)
    weighted = posterior * apart
    slope = torch.cat([(excess * scores).sum()[None] / n, excess.sum(1) / n + 2 * RIDGE * offsets])
    curvature = _curvature(
        (weighted * apart).sum() / n, weighted.sum(1) / n, posterior.mean(1), posterior @ posterior.T / n
    )
    step: Tensor = torch.linalg.solve(curvature, slope)
    return step


def _curvature(temperature: Tensor, mixed: Tensor, share: Tensor, outer: Tensor) -> Tensor:
    """Return (..., 1 + K, 1 + K) second derivatives.

    Args:
        temperature: (...,) by the temperature twice.
        mixed: (..., K) by the temperature and an offset.
        share: (..., K) mean posterior.
        outer: (..., K, K) mean of its products.
    """
    classes = share.shape[-1]
    found = share.new_empty(*share.shape[:-1], 1 + classes, 1 + classes)
    found[..., 0, 0] = temperature
    found[..., 0, 1:] = found[..., 1:, 0] = mixed
    found[..., 1:, 1:] = torch.diag_embed(share + 2 * RIDGE) - outer
    found.diagonal(dim1=-2, dim2=-1).add_(NUGGET)
    return found
