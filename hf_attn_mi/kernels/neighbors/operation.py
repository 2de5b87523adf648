"""Neighbor counts for Ross's estimator of the information between states of any dimension and a class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.kernels.dispatch import choose_backend, implementation
from hf_attn_mi.kernels.inputs import read_labels, read_positive, read_states
from hf_attn_mi.kernels.large_calls import is_worth_loading
from hf_attn_mi.kernels.neighbors.torch import WIDEST

TRITON_RANK = 16  # neighbors that a Triton program keeps


@dataclass(frozen=True, eq=False)
class NeighborCounts:
    """What Ross's estimator reads. Points that are alone in their class have zeros everywhere and are not counted."""

    within: Tensor  # (..., n) long: m_i, points of any class inside the radius, i among them
    neighbors: Tensor  # (n,) long: k_i = min(k, N_i - 1)
    class_sizes: Tensor  # (n,) long: N_i
    backend: str


def neighbor_counts(states: Tensor, labels: Tensor, k: int = 3, *, backend: str = "auto") -> NeighborCounts:
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
        backend: "torch", "numba" (extra `fast`, tensors on the CPU), "triton" or "auto": triton on CUDA for k <= 16;
            numba on the CPU for 16 sites of 2,000 points or as much, here or in the call that this one is a part of
            (its first call ever compiles for some seconds); else torch. The counts are the same.

    Raises:
        InvalidInputError: wrong shapes or dtypes, NaN or infinity, k below 1, or no class with two members.
        BackendUnavailableError: the requested backend is not installed, or cannot do this call.

    Source: B. C. Ross, "Mutual Information between Discrete and Continuous Data Sets", PLoS ONE 9(2), 2014.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [5.0], [7.0]])
        >>> neighbor_counts(points, torch.tensor([0, 0, 1, 1]), k=1).within
        tensor([1, 1, 1, 1])
    """
    flat = read_states(states)
    n, d = flat.shape[1:]
    codes = read_labels(labels, n, flat.device)
    read_positive("k", k)
    sizes = torch.bincount(codes)
    if n > 1 and int(sizes.max()) < 2:
        raise InvalidInputError(f"labels has {len(sizes)} classes of one member each: nothing can be estimated")
    sizes = torch.where(sizes > 1, sizes, 0)  # of each class; none for a class of one member
    ranks = (sizes - 1).clamp(min=0, max=k)
    refusals = {"triton": _triton_refusal(d, int(ranks.max()))}
    avoid = () if is_worth_loading(len(flat) * n**2) else ("numba",)
    chosen = choose_backend("neighbor_counts", backend, flat.device, refusals=refusals, avoid=avoid)
    counts: Tensor = implementation("neighbor_counts", chosen)(flat, codes, ranks)
    return NeighborCounts(counts.reshape(states.shape[:-1]), ranks[codes], sizes[codes], chosen)


def ross_information(counts: NeighborCounts) -> Tensor:
    """Return Ross's estimate psi(n) + <psi(k_i)> - <psi(N_i)> - <psi(m_i)> of each site in nats, (...) float64.

    Means are over the points that are not alone in their class, n is their number. The estimate is signed: around
    zero where there is no information. scikit-learn returns max(0, estimate). Zero where n = 1.

    Args:
        counts: the result of `neighbor_counts`.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [5.0], [7.0]])
        >>> ross_information(neighbor_counts(points, torch.tensor([0, 0, 1, 1]), k=1)).item()  # psi(4) - psi(2)
        0.8333333333333333
    """
    within, real = counts.within, counts.class_sizes > 0
    total = int(real.sum())
    if total == 0:
        return within.new_zeros(within.shape[:-1], dtype=torch.float64)
    known = torch.digamma(counts.neighbors[real].double()) - torch.digamma(counts.class_sizes[real].double())
    fixed = torch.digamma(torch.tensor(float(total), dtype=torch.float64)) + known.mean()
    counted = torch.where(within > 0, torch.digamma(within.clamp_min(1).double()), 0.0)
    return fixed - counted.sum(-1) / total


def _triton_refusal(d: int, rank: int) -> str | None:
    """Why the Triton kernels cannot count, None if they can."""
    if rank > TRITON_RANK:
        return f"the kernels keep at most {TRITON_RANK} neighbors for each point, and k = {rank}"
    return None if d < WIDEST else f"d = {d} is too wide for products in float32: less than {WIDEST} is needed"
