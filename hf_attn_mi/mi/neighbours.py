"""Ross's nearest-neighbour estimate of one slot, with its influence on each fold."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_attn_mi.kernels import neighbour_counts, ross_information
from hf_attn_mi.mi.estimate import Estimate, Slot
from hf_attn_mi.mi.folds import fold_means
from hf_attn_mi.mi.streams import stream

NEIGHBOURS = 3
COMPONENTS = 8
MOST_POINTS = 5000  # neighbours cost n^2
JITTER = 1e-5  # standard deviations, as scikit-learn's noise
INFLATION = 1.3  # of the spread of fold means: points share neighbours, which a mean over points does not show


def estimate_ksg(slot: Slot) -> Estimate:
    """Return Ross's estimate in the space of the balanced states."""
    return neighbour_information(slot.principal.balanced, slot.labels, slot.fold_of, part="ksg")


def estimate_ksg_pca(slot: Slot) -> Estimate:
    """Return Ross's estimate in the space of the first eight principal components, each of unit variance."""
    points = slot.principal.points[:, :COMPONENTS].contiguous()
    return neighbour_information(points, slot.labels, slot.fold_of, part="ksg_pca")


def neighbour_information(
    points: Tensor, labels: Tensor, fold_of: Tensor, *, part: str, k: int = NEIGHBOURS
) -> Estimate:
    """Return Ross's estimate for one slot, on the first 5,000 examples.

    It is a mean over examples of psi(n) + psi(k) - psi(N_i) - psi(m_i); a fold is left out of this mean.

    Args:
        points: (n, q).
        labels: (n,) classes.
        fold_of: (n,) long.
        part: name of the estimate.
        k: neighbours.
    """
    points, labels, fold_of = points[:MOST_POINTS], labels[:MOST_POINTS], fold_of[:MOST_POINTS]
    if len(torch.unique(points[:, 0])) < len(points):  # states that repeat have no neighbour at a distance
        jitter = torch.randn(points.shape, generator=stream(0, "jitter"), dtype=torch.float64).to(points.dtype)
        points = points + JITTER * points.std() * jitter
    counts = neighbour_counts(points, labels, k)
    value = float(ross_information(counts))
    real = counts.class_sizes > 0
    terms = torch.digamma(counts.neighbours.clamp_min(1).double()) - torch.digamma(
        counts.class_sizes.clamp_min(1).double()
    )
    terms = torch.where(real, terms - torch.digamma(counts.within.clamp_min(1).double()), 0)
    left_out = fold_means(terms[real], fold_of[real])
    return Estimate(value, value + INFLATION * (left_out - left_out.mean()), part)
