"""Calibration in PyTorch. Classes come first, so that sums over them are fast."""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 1e-4  # penalty on the offsets: a class may be absent from a fold
NUGGET = 1e-10  # added to the curvature: scores may all be equal
STEPS = 25
CONVERGED = 1e-9
SHORTEST = 1e-4  # share of a step at which halving ends


def calibrate_torch(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the parameters (1 + K,), the loss and the posterior (K, n) at the minimum.

    Args:
        scores: (K, n) float64.
        target: (K, n) float64 probabilities.
    """
    parameters = scores.new_zeros(1 + len(scores))
    parameters[0] = 1 / scores.std().clamp_min(1e-12)
    loss, posterior = evaluate(parameters, scores, target)
    for _ in range(STEPS):
        step, size = _newton_step(parameters, posterior, scores, target), 1.0
        better = parameters - step
        value, at_better = evaluate(better, scores, target)
        while not value <= loss and size > SHORTEST:
            size /= 2
            better = parameters - size * step
            value, at_better = evaluate(better, scores, target)
        if not value <= loss:
            break
        gain, parameters, loss, posterior = loss - value, better, value, at_better
        if gain < CONVERGED:
            break
    return parameters, torch.tensor(loss, dtype=torch.float64), posterior


def evaluate(parameters: Tensor, scores: Tensor, target: Tensor) -> tuple[float, Tensor]:
    """Return the loss at these parameters and the posterior (K, n)."""
    logits = torch.addcmul(parameters[1:, None], parameters[0], scores)
    largest = logits.amax(0)
    weights = (logits - largest).exp_()
    total = weights.sum(0)
    entropy = (total.log() + largest).mean() - (target * logits).sum() / scores.shape[1]
    loss = entropy + RIDGE * parameters[1:].square().sum()
    return float(loss), weights.div_(total)


def curvature(temperature: Tensor, mixed: Tensor, share: Tensor, outer: Tensor) -> Tensor:
    """Return (..., 1 + K, 1 + K) second derivatives.

    Args:
        temperature: (...,) by the temperature twice.
        mixed: (..., K) by the temperature and one offset.
        share: (..., K) mean posterior.
        outer: (..., K, K) mean of its products.
    """
    classes = share.shape[-1]
    second = share.new_empty(*share.shape[:-1], 1 + classes, 1 + classes)
    second[..., 0, 0] = temperature
    second[..., 0, 1:] = second[..., 1:, 0] = mixed
    second[..., 1:, 1:] = torch.diag_embed(share + 2 * RIDGE) - outer
    second.diagonal(dim1=-2, dim2=-1).add_(NUGGET)
    return second


def _newton_step(parameters: Tensor, posterior: Tensor, scores: Tensor, target: Tensor) -> Tensor:
    n, offsets = scores.shape[1], parameters[1:]
    excess = posterior - target
    deviation = scores - (posterior * scores).sum(0)
    weighted = posterior * deviation
    slope = torch.cat([(excess * scores).sum()[None] / n, excess.sum(1) / n + 2 * RIDGE * offsets])
    second = curvature(
        (weighted * deviation).sum() / n, weighted.sum(1) / n, posterior.mean(1), posterior @ posterior.T / n
    )
    step: Tensor = torch.linalg.solve(second, slope)
    return step
