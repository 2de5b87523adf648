"""Cross-fitted multinomial logistic regression on soft or hard outputs: slower than a discriminant, not Gaussian."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_attn_mi.mi.calibration import calibrated_information
from hf_attn_mi.mi.estimator import SiteData, SiteEstimate

PENALTIES = (1e-3, 1e-2, 1e-1)  # penalties on squared slopes, for components in units of their mean variance
STEPS = 60


def estimate_logistic(site: SiteData) -> SiteEstimate:
    """Return H(Y) minus the calibrated out-of-fold cross-entropy of logistic regression, a lower bound.

    Slopes are penalized on unscaled components, so that components of large variance cost less. L-BFGS fits all folds
    at once for each of three penalties; the one with the least cross-entropy is used. For outputs softmax(W h + b) of a
    state h the estimate reaches the ceiling.
    """
    whitened = site.whitened
    points = whitened.leading(len(whitened.variances)) / whitened.variances.mean().sqrt().float()
    candidates = []
    for penalty in PENALTIES:
        logits = _held_out_logits(points, site.outputs.float(), site.fold_of, penalty)
        candidates.append(calibrated_information(logits, site.outputs, site.fold_of))
    best = max(candidates, key=lambda pointwise: float(pointwise.mean()))
    n, classes = site.outputs.shape
    variance = (1 + classes) / (2 * n**2)  # due to the calibration; see `estimate_probe`
    return SiteEstimate.from_pointwise(best, site.fold_of, "logistic", extra_variance=variance)


def _held_out_logits(points: Tensor, probabilities: Tensor, fold_of: Tensor, penalty: float) -> Tensor:
    """Return (n, K) logits of each example by the fit without its fold."""
    folds = int(fold_of.max()) + 1
    weights = (fold_of[None] != torch.arange(folds)[:, None]).float()  # (folds, n)
    weights = weights / weights.sum(1, keepdim=True)
    n, classes = probabilities.shape
    slopes = torch.zeros(points.shape[1], folds * classes, requires_grad=True)
    offsets = probabilities.mean(0).clamp_min(1e-6).log().repeat(folds).requires_grad_()
    optimizer = torch.optim.LBFGS([slopes, offsets], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        with torch.enable_grad():
            logits = (points @ slopes + offsets).view(n, folds, classes)
            cross_entropy = -(probabilities[:, None] * logits.log_softmax(-1)).sum(-1)  # (n, folds)
            loss = (weights.T * cross_entropy).sum() + penalty * slopes.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        logits = (points @ slopes + offsets).view(n, folds, classes)
        return logits[torch.arange(n), fold_of]
