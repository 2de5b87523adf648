"""Neighbor counts for Ross's estimator of the information between states of any dimension and a class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.kernels.backends import choose
from hf_attn_mi.kernels.moments.inputs import positive, read_labels, read_permutations, read_states
from hf_attn_mi.kernels.neighbors.points import WIDEST, prepare
from hf_attn_mi.kernels.neighbors.ranks import count_by_rank
from hf_attn_mi.kernels.neighbors.tiles import count_by_threshold
from hf_attn_mi.kernels.threads import across_threads, sharing_threads

TRITON_RANK = 16  # neighbors that a Triton program keeps
TILE_ELEMENTS = 2**18  # distances held at a time: 1 MB in float32, which stays in a core's own cache
SORTED_ELEMENTS = 2**20  # the same where rows are sorted, of which more at a time are better


@dataclass(frozen=True, eq=False)
class NeighborCounts:
    """What Ross's estimator reads. Points that are alone in their class have zeros everywhere and count for nobody."""

    within: Tensor  # (..., n) long: m_i, points of any class inside the radius, i among them
    permuted: Tensor | None  # (..., B, n) long: the same under each permutation of the labels
    neighbors: Tensor  # (n,) long: k_i = min(k, N_i - 1)
    class_sizes: Tensor  # (n,) long: N_i
    backend: str


def neighbor_counts(
    states: Tensor,
    labels: Tensor,
    k: int = 3,
    *,
    permutations: Tensor | None = None,
    tile_rows: int | None = None,
    backend: str = "auto",
) -> NeighborCounts:
    """Return the counts of Ross's estimator of I(state; class) for each site, exactly, without an n x n matrix.

    N_i is the size of the class of point i, k_i = min(k, N_i - 1), r_i the Euclidean distance to the k_i-th nearest
    other point of the same class, and m_i the number of points of any class, i itself among them, that are STRICTLY
    closer than r_i, or at distance zero: the convention of scikit-learn's `mutual_info_classif`, in any dimension.
    Points alone in their class are left out, as there. With r_i > 0 and no ties m_i is also Ross's own count, which
    leaves i out and takes the k_i-th neighbor in.

    Exact: tiles of X X^T in float32 decide every comparison that their rounding error bound can decide; the others
    are made in float64 from the differences x_i - x_j. Duplicates and ties are counted as float64 sees them.

    Args:
        states: (..., n, d) any floating point dtype; leading dimensions are sites.
        labels: (n,) integers or bool, the same for all sites.
        k: neighbors.
        permutations: (B, n), each row a permutation of 0 ... n - 1: also count with labels[permutations[b]]. The
            distances are computed once for all of them.
        tile_rows: rows of a tile; None: as many as stay in cache. The result does not depend on it.
        backend: "torch", "triton" or "auto", which takes triton on CUDA for k <= 16; the counts are the same.

    Raises:
        InvalidInputError: wrong shapes or dtypes, NaN or infinity, k below 1, or no class with two members.
        BackendUnavailableError: triton was asked for and is not there, or cannot do this call.

    Source: B. C. Ross, "Mutual Information between Discrete and Continuous Data Sets", PLoS ONE 9(2), 2014.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [5.0], [7.0]])
        >>> neighbor_counts(points, torch.tensor([0, 0, 1, 1]), k=1).within
        tensor([1, 1, 1, 1])
    """
    flat = read_states(states)
    n = flat.shape[1]
    codes = read_labels(labels, n, flat.device)
    shuffled = read_permutations(permutations, n, flat.device)
    positive("k", k)
    elements = TILE_ELEMENTS if shuffled is None else SORTED_ELEMENTS
    rows = positive("tile_rows", tile_rows) if tile_rows is not None else _tile_rows(n, flat.device, elements)
    sizes = torch.bincount(codes)
    if n > 1 and int(sizes.max()) < 2:
        raise InvalidInputError(f"labels has {len(sizes)} classes of one member each: nothing can be estimated")
    sizes = torch.where(sizes > 1, sizes, 0)  # of each class; none for a class of one member
    ranks = (sizes - 1).clamp(min=0, max=k)
    # (1 + B, n), or only the labels as they are
    label_sets = codes[None] if shuffled is None else torch.cat([codes[None], codes[shuffled]])

    def count(site: Tensor, threads: int = 1) -> Tensor:
        return _count_slot(site, label_sets, ranks, sizes, rows, threads)

    chosen = choose(backend, flat.device, _refused(flat.shape[2], int(ranks.max())))
    if chosen == "triton":
        from hf_attn_mi.kernels.neighbors.by_triton import count_triton

        counted = count_triton(flat, label_sets, ranks, count)
    else:
        with sharing_threads(flat.device, n) as threads:  # sites where there are enough, else tiles of one site
            few = len(flat) < threads
            counted = torch.stack([count(x, threads) for x in flat] if few else across_threads(count, flat, threads))
    lead = states.shape[:-2]
    return NeighborCounts(
        within=counted[:, 0].reshape(*lead, n),
        permuted=None if shuffled is None else counted[:, 1:].reshape(*lead, -1, n),
        neighbors=ranks[codes],
        class_sizes=sizes[codes],
        backend=chosen,
    )


def _tile_rows(n: int, device: torch.device, elements: int) -> int:
    """Return rows of a tile: as many as stay in cache, but on the CPU a tile for each thread at least."""
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    return max(16, min(elements // n, -(-n // threads)))


def _refused(d: int, rank: int) -> str | None:
    """Why the Triton kernels cannot count, None if they can."""
    if rank > TRITON_RANK:
        return f"the kernels keep at most {TRITON_RANK} neighbors a point, and k = {rank}"
    return None if d < WIDEST else f"d = {d} is too wide for products in float32: less than {WIDEST} is needed"


def _count_slot(
    states: Tensor, label_sets: Tensor, ranks: Tensor, sizes: Tensor, tile_rows: int, threads: int
) -> Tensor:
    """Return (sets, n) counts of one site."""
    if bool((states == states[:1]).all()):  # a site that no input changes, such as the embedding of [CLS]
        return torch.where(ranks[label_sets] > 0, sizes.sum(), 0)
    if len(label_sets) == 1:
        return count_by_threshold(states, label_sets[0], ranks, tile_rows, threads)[None]
    return count_by_rank(prepare(states, torch.float64), label_sets, ranks, sizes, tile_rows, threads)


def ross_information(counts: NeighborCounts, *, permuted: bool = False) -> Tensor:
    """Return Ross's estimate psi(n) + <psi(k_i)> - <psi(N_i)> - <psi(m_i)> in nats, float64.

    Means are over the points that are not alone in their class, n is their number. The estimate is signed: around
    zero where there is no information. scikit-learn returns max(0, estimate). Zero where n = 1.

    Args:
        counts: from `neighbor_counts`.
        permuted: under each permutation, (..., B), instead of for the labels as they are, (...).

    Raises:
        InvalidInputError: permuted=True and the counts were made without permutations.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [5.0], [7.0]])
        >>> ross_information(neighbor_counts(points, torch.tensor([0, 0, 1, 1]), k=1)).item()  # psi(4) - psi(2)
        0.8333333333333333
    """
    if permuted and counts.permuted is None:
        raise InvalidInputError("permuted=True, but the counts have none: call neighbor_counts(..., permutations=...)")
    within = counts.permuted if permuted and counts.permuted is not None else counts.within
    real = counts.class_sizes > 0
    total = int(real.sum())
    if total == 0:
        return within.new_zeros(within.shape[:-1], dtype=torch.float64)
    # A permutation moves the classes about but leaves their sizes, and with them the first three terms.
    known = torch.digamma(counts.neighbors[real].double()) - torch.digamma(counts.class_sizes[real].double())
    fixed = torch.digamma(torch.tensor(float(total), dtype=torch.float64)) + known.mean()
    counted = torch.where(within > 0, torch.digamma(within.clamp_min(1).double()), 0.0)
    return fixed - counted.sum(-1) / total
