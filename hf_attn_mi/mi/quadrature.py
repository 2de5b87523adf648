"""Information of a Gaussian mixture by quasi-random points."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=16)
def _normal_points(points: int, dimensions: int, seed: int) -> Tensor:
    """(points, dimensions) standard normal, from a scrambled Sobol sequence."""
    engine = torch.quasirandom.SobolEngine(dimensions, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    found: Tensor = torch.special.ndtri(engine.draw(points, dtype=torch.float64).clamp(1e-9, 1 - 1e-9))
    return found


def mixture_information(separation: Tensor, share: Tensor, *, points: int = 4096, seed: int = 3) -> Tensor:
    """Return (...,) the information in nats of a class and a Gaussian mixture with these inner products of its means.

    An indefinite matrix, such as an unbiased estimate, gives the information of its positive part minus that of its
    negative part: around zero where there is none.

    Args:
        separation: (..., K, K) symmetric.
        share: (..., K) or (K,) class probabilities.
    """
    values, vectors = torch.linalg.eigh(separation)
    positive = _positive_information(vectors * values.clamp_min(0).sqrt()[..., None, :], share, points, seed)
    if not bool((values < -1e-9).any()):
        return positive
    return positive - _positive_information(vectors * (-values).clamp_min(0).sqrt()[..., None, :], share, points, seed)


def _positive_information(means: Tensor, share: Tensor, points: int, seed: int) -> Tensor:
    lead, classes = means.shape[:-2], means.shape[-1]
    flat = means.reshape(-1, classes, classes)
    shares = share.expand(*lead, classes).reshape(-1, classes)
    used = max(1, min(classes - 1, int((flat.square().sum(1) > 1e-12).sum(-1).max())))
    order = flat.square().sum(1).argsort(descending=True)[:, None, :].expand(-1, classes, -1)
    flat = flat.gather(2, order)[..., :used]
    normal = _normal_points(points, used, seed)
    found = [_one(mean, weight, normal) for mean, weight in zip(flat, shares)]
    return torch.stack(found).reshape(lead)


def _one(means: Tensor, share: Tensor, normal: Tensor) -> Tensor:
    at_points = normal @ means.T  # (points, K)
    at_means = means @ means.T - means.square().sum(1) / 2 + share.clamp_min(1e-300).log()  # (own class, K)
    logits = at_points[None] + at_means[:, None]  # (own class, points, K)
    own = logits.diagonal(dim1=0, dim2=2) - logits.logsumexp(-1).T  # (points, K)
    return ((own.mean(0) - share.clamp_min(1e-300).log()) * share).sum()
