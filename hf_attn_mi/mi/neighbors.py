"""Ross's nearest-neighbor estimate of one site, with its influence on each fold."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_attn_mi.kernels import neighbor_counts, ross_information
from hf_attn_mi.mi.estimate import Estimate, Site
from hf_attn_mi.mi.folds import fold_means
from hf_attn_mi.mi.rng import stream

NEIGHBORS = 3
COMPONENTS = 8
MOST_POINTS = 5000  # neighbors cost n^2
JITTER = 1e-5  # standard deviations, as scikit-learn's noise
INFLATION = 1.3  # of the spread of fold means: points share neighbors, which a mean over points does not show


def estimate_ksg(site: Site) -> Estimate:
    """Return Ross's estimate in the space of the balanced states."""
    return neighbor_information(site.principal.balanced, site.labels, site.fold_of, part="ksg")


def estimate_ksg_pca(site: Site) -> Estimate:
    """Return Ross's estimate in the space of the first eight principal components, each of unit variance."""
    points = site.principal.points[:, :COMPONENTS].contiguous()
    return neighbor_information(points, site.labels, site.fold_of, part="ksg_pca")


def neighbor_information(points: Tensor, labels: Tensor, fold_of: Tensor, *, part: str, k: int = NEIGHBORS) -> Estimate:
    """Return Ross's estimate for one site, on the first 5,000 examples.

    It is a mean over examples of psi(n) + psi(k) - psi(N_i) - psi(m_i); a fold is left out of this mean.

    Args:
        points: (n, q).
        labels: (n,) classes.
        fold_of: (n,) long.
        part: name of the estimate.
        k: neighbors.
    """
    points, labels, fold_of = points[:MOST_POINTS], labels[:MOST_POINTS], fold_of[:MOST_POINTS]
    if len(torch.unique(points[:, 0])) < len(points):  # states that repeat have no neighbor at a distance
        jitter = torch.randn(points.shape, generator=stream(0, "jitter"), dtype=torch.float64).to(points.dtype)
        points = points + JITTER * points.std() * jitter
    counts = neighbor_counts(points, labels, k)
    value = float(ross_information(counts))
    real = counts.class_sizes > 0
    terms = torch.digamma(counts.neighbors.clamp_min(1).double()) - torch.digamma(
        counts.class_sizes.clamp_min(1).double()
    )
    terms = torch.where(real, terms - torch.digamma(counts.within.clamp_min(1).double()), 0)
    left_out = fold_means(terms[real], fold_of[real])
    return Estimate(value, value + INFLATION * (left_out - left_out.mean()), part)
