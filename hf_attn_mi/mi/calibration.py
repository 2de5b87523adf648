"""Temperature and class offsets that make scores probabilities: few parameters, fitted by Newton's method."""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 1e-4  # on the offsets: a class may be absent from a fold
STEPS = 25
CONVERGED = 1e-9


def calibrate(scores: Tensor, probabilities: Tensor) -> Tensor:
    """Return (1 + K,) temperature >= 0 and offsets that maximise the mean of log_softmax(t s + b).

    Args:
        scores: (n, K).
        probabilities: (n, K) float64.
    """
    exact = scores.double()
    share = exact.new_full((1, len(exact)), 1 / len(exact))
    found = exact.new_zeros(1, 1 + exact.shape[1])
    found[:, 0] = 1 / exact.std().clamp_min(1e-12)
    loss = _loss(found, exact, probabilities, share)
    for _ in range(STEPS):
        step, size = _newton_step(found, exact, probabilities, share), 1.0
        better = _loss(found - step, exact, probabilities, share)
        while not float(better) <= float(loss) and size > 1e-4:
            size /= 2
            better = _loss(found - size * step, exact, probabilities, share)
        if not float(better) <= float(loss):
            break
        gain, loss, found = float(loss - better), better, found - size * step
        if gain < CONVERGED:
            break
    found[:, 0].clamp_(min=0)
    return found[0]


def out_of_fold(scores: Tensor, probabilities: Tensor, fold_of: Tensor) -> Tensor:
    """Return (n, K) log posteriors, float64, of scores calibrated without the fold of each example.

    All examples are fitted once; without a fold that is one Newton step away, to second order in 1 / folds.

    Args:
        scores: (n, K), each made without the fold of its example.
        probabilities: (n, K) float64.
        fold_of: (n,) long.
    """
    exact = scores.double()
    whole = calibrate(scores, probabilities)
    fitted = whole - _fold_steps(whole, exact, probabilities, fold_of)
    fitted[:, 0].clamp_(min=0)
    chosen = fitted[fold_of]  # (n, 1 + K)
    return (chosen[:, :1] * exact + chosen[:, 1:]).log_softmax(1)


def _fold_steps(found: Tensor, scores: Tensor, probabilities: Tensor, fold_of: Tensor) -> Tensor:
    """Return (folds, 1 + K) Newton steps from `found` for all examples but those of each fold.

    An example's part of the curvature is J^T (diag q - q q^T) J, J = (s, 1): summed within folds, taken off the whole.
    """
    folds, (n, classes) = int(fold_of.max()) + 1, scores.shape
    posterior = (found[0] * scores + found[1:]).softmax(1)
    excess = posterior - probabilities
    weighted = posterior * (scores - (posterior * scores).sum(1, keepdim=True))  # (n, K)
    slopes = torch.cat([(excess * scores).sum(1, keepdim=True), excess], 1)
    flat = torch.cat([slopes, (weighted * scores).sum(1, keepdim=True), weighted, posterior], 1)
    sums = torch.zeros(folds, flat.shape[1], dtype=torch.float64).index_add_(0, fold_of, flat)
    inside = torch.nn.functional.one_hot(fold_of, folds).double()
    outer = torch.stack([(posterior * inside[:, [fold]]).T @ posterior for fold in range(folds)])
    rest = 1 / (n - torch.bincount(fold_of, minlength=folds)).double()[:, None]
    sums, outer = (sums.sum(0) - sums) * rest, (outer.sum(0) - outer) * rest[..., None]
    slope = sums[:, : 1 + classes]
    slope[:, 1:] += 2 * RIDGE * found[1:]
    curvature = torch.zeros(folds, 1 + classes, 1 + classes, dtype=torch.float64)
    curvature[:, 0, 0] = sums[:, 1 + classes]
    curvature[:, 0, 1:] = curvature[:, 1:, 0] = sums[:, 2 + classes : 2 + 2 * classes]
    ridge = (2 * RIDGE + 1e-10) * torch.eye(classes, dtype=torch.float64)
    curvature[:, 1:, 1:] = torch.diag_embed(sums[:, 2 + 2 * classes :]) - outer + ridge
    curvature[:, 0, 0] += 1e-10
    steps: Tensor = torch.linalg.solve(curvature, slope)
    return steps


def _loss(found: Tensor, scores: Tensor, probabilities: Tensor, share: Tensor) -> Tensor:
    logits = found[:, :1, None] * scores + found[:, None, 1:]  # (fits, n, K)
    entropy = logits.logsumexp(-1) - (probabilities * logits).sum(-1)
    return (share * entropy).sum(1) + RIDGE * found[:, 1:].square().sum(1)


def _newton_step(found: Tensor, scores: Tensor, probabilities: Tensor, share: Tensor) -> Tensor:
    classes = scores.shape[1]
    posterior = (found[:, :1, None] * scores + found[:, None, 1:]).softmax(-1)  # (fits, n, K)
    weighted = posterior * share[..., None]
    excess = weighted - probabilities * share[..., None]
    apart = scores - (posterior * scores).sum(-1, keepdim=True)
    ridge = 2 * RIDGE * torch.eye(classes, dtype=torch.float64)
    slope = torch.cat([(excess * scores).sum((1, 2))[:, None], excess.sum(1) + 2 * RIDGE * found[:, 1:]], 1)
    curvature = found.new_zeros(len(found), 1 + classes, 1 + classes)
    curvature[:, 0, 0] = (weighted * apart.square()).sum((1, 2))
    curvature[:, 0, 1:] = curvature[:, 1:, 0] = (weighted * apart).sum(1)
    curvature[:, 1:, 1:] = torch.diag_embed(weighted.sum(1)) - posterior.transpose(1, 2) @ weighted + ridge
    curvature += 1e-10 * torch.eye(1 + classes, dtype=torch.float64)
    steps: Tensor = torch.linalg.solve(curvature, slope)
    return steps
