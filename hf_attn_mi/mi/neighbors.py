"""Ross's nearest-neighbor estimator (2014) of continuous states and classes."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_attn_mi.kernels import neighbor_counts, ross_information
from hf_attn_mi.mi.estimator import SiteData, SiteEstimate
from hf_attn_mi.mi.folds import fold_means
from hf_attn_mi.mi.rng import draw_normal, make_rng

NEIGHBORS = 3
COMPONENTS = 8
MAX_POINTS = 5000  # the cost is quadratic in n
JITTER = 1e-5  # in standard deviations, as in scikit-learn
INFLATION = 1.3  # factor on the spread of fold means, which does not account for neighbors that points share


def estimate_ksg(site: SiteData) -> SiteEstimate:
    """Return Ross's estimate in the space of the balanced states."""
    return neighbor_information(site.whitened.balanced, site.labels, site.fold_of, part="ksg")


def estimate_ksg_pca(site: SiteData) -> SiteEstimate:
    """Return Ross's estimate in the space of the first eight principal components, each of unit variance."""
    points = site.points[:, :COMPONENTS].contiguous()
    return neighbor_information(points, site.labels, site.fold_of, part="ksg_pca")


def neighbor_information(
    points: Tensor, labels: Tensor, fold_of: Tensor, *, part: str, k: int = NEIGHBORS
) -> SiteEstimate:
    """Return Ross's estimate for one site, on the first 5,000 examples.

    The mean over examples of psi(n) + psi(k) - psi(N_i) - psi(m_i), N_i the size of the example's class and m_i the
    number of points within the distance of its k-th neighbor in the class; a fold is left out of this mean.

    Args:
        points: (n, q).
        labels: (n,) classes.
        fold_of: (n,) long.
        part: name of the estimate.
        k: neighbors.
    """
    points, labels, fold_of = points[:MAX_POINTS], labels[:MAX_POINTS], fold_of[:MAX_POINTS]
    first = points[:, 0].sort().values
    if bool((first[1:] == first[:-1]).any()):  # equal states have no neighbor at a positive distance
        jitter = draw_normal(points.shape, make_rng(0, "jitter"), points).to(points.dtype)
        points = points + JITTER * points.std() * jitter
    counts = neighbor_counts(points, labels, k)
    value = float(ross_information(counts))
    counted = counts.class_sizes > 0
    terms = torch.digamma(counts.neighbors.clamp_min(1).double()) - torch.digamma(
        counts.class_sizes.clamp_min(1).double()
    )
    terms = torch.where(counted, terms - torch.digamma(counts.within.clamp_min(1).double()), 0)
    left_out = fold_means(terms[counted], fold_of[counted])
    return SiteEstimate(value, value + INFLATION * (left_out - left_out.mean()), part)
