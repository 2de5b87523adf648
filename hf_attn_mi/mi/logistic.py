"""Cross-fitted multinomial logistic regression on soft or hard outputs: dearer than a discriminant, and no Gaussian."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_attn_mi.mi.calibration import out_of_fold
from hf_attn_mi.mi.estimate import Estimate, Site, from_series
from hf_attn_mi.mi.folds import fold_means

PENALTIES = (1e-3, 1e-2, 1e-1)  # on squared slopes of unit-variance components, least loss out of fold is taken
STEPS = 60


def estimate_logistic(site: Site) -> Estimate:
    """Return H(Y) minus the calibrated cross-entropy of logistic regression without each example's fold, a lower bound.

    Slopes are penalized on states scaled as they are (components of large variance cost less), L-BFGS on all folds at
    once, for three penalties; the one of least cross-entropy is taken. For outputs softmax(W h + b) of a state h it
    reaches the ceiling.
    """
    principal, share = site.principal, site.probabilities.mean(0)
    points = principal.leading(len(principal.variances)) / principal.variances.mean().sqrt().float()
    best: Tensor | None = None
    for penalty in PENALTIES:
        scores = _held_out_logits(points, site.probabilities.float(), site.fold_of, penalty)
        posterior = out_of_fold(scores, site.probabilities, site.fold_of)
        pointwise = (site.probabilities * (posterior - share.log())).sum(1)
        best = pointwise if best is None or float(pointwise.mean()) > float(best.mean()) else best
    assert best is not None
    n, classes = site.probabilities.shape
    series = torch.cat([best.mean()[None], fold_means(best, site.fold_of)])
    return from_series(series, "logistic", extra_variance=(1 + classes) / (2 * n**2))


def _held_out_logits(points: Tensor, probabilities: Tensor, fold_of: Tensor, penalty: float) -> Tensor:
    """Return (n, K) logits of each example by the fit without its fold."""
    folds = int(fold_of.max()) + 1
    used = (fold_of[None] != torch.arange(folds)[:, None]).float()  # (folds, n)
    used = used / used.sum(1, keepdim=True)
    n, classes = probabilities.shape
    slopes = torch.zeros(points.shape[1], folds * classes, requires_grad=True)
    offsets = probabilities.mean(0).clamp_min(1e-6).log().repeat(folds).requires_grad_()
    optimizer = torch.optim.LBFGS([slopes, offsets], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        with torch.enable_grad():
            logits = (points @ slopes + offsets).view(n, folds, classes)
            entropy = -(probabilities[:, None] * logits.log_softmax(-1)).sum(-1)  # (n, folds)
            loss = (used.T * entropy).sum() + penalty * slopes.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        logits = (points @ slopes + offsets).view(n, folds, classes)
        return logits[torch.arange(n), fold_of]
