"""Class moments in PyTorch: the examples of one fold stay in cache from their gathering to their products."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_attn_mi.kernels.threads import across_threads, sharing_threads


def moments_torch(states: Tensor, labels: Tensor, order: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return means (sites, d), Gram matrices (sites, folds, d, d) and class sums (sites, folds, K, d).

    Args:
        states: (sites, n, d).
        labels: (K, n) in the dtype of the sums, examples in the order of `order`.
        order: (n,) examples fold after fold.
        sizes: (folds,) examples of each fold.
    """
    sites, _, d = states.shape
    dtype, parts = labels.dtype, len(sizes)
    mean = states.new_empty(sites, d, dtype=dtype)
    members = order.split(sizes.tolist())  # type: ignore[no-untyped-call]
    labels_of = [part.contiguous() for part in labels.split(sizes.tolist(), dim=1)]  # type: ignore[no-untyped-call]
    grams = states.new_empty(sites, parts, d, d, dtype=dtype)
    sums = states.new_empty(sites, parts, len(labels), d, dtype=dtype)

    def fill(piece: tuple[int, range]) -> None:
        site, folds = piece
        for fold in folds:
            examples = states[site].index_select(0, members[fold]).to(dtype).sub_(mean[site])
            torch.mm(examples.T, examples, out=grams[site, fold])
            torch.mm(labels_of[fold], examples, out=sums[site, fold])

    with sharing_threads(states.device, sites * parts) as threads:  # sites where there are enough, else folds of one
        for site in range(sites):
            mean[site] = states[site].mean(0, dtype=dtype)
        groups = 1 if sites >= threads else min(threads, parts)
        deal = [range(parts)[first::groups] for first in range(groups)]
        across_threads(fill, [(site, folds) for site in range(sites) for folds in deal], threads)
    return mean, grams, sums
