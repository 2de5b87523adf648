"""Permutation tests: the same permutations of the outputs in every site, so that sites can be tested as a family."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.kernels.moments.products import product
from hf_attn_mi.mi.principal import Principal
from hf_attn_mi.mi.rng import stream

NEIGHBORS = 10
COMPONENTS = 32  # whose distances stand for those of the states
MOST_POINTS = 5000  # neighbors cost n^2
TILE_ELEMENTS = 2**18  # distances held at a time: 1 MB, which stays in a core's own cache


@dataclass(frozen=True, eq=False)
class Shuffles:
    """Outputs in each order, in the form whose products with states are tested; the first order is as it is."""

    targets: Tensor  # ((1 + B) * q, n) float32: centered outputs, uncorrelated, unit variance
    labels: Tensor | None  # (n, 1 + B) int16 classes; None: no neighbors are looked at
    orders: Tensor  # (1 + B, n) long


def draw_shuffles(outputs: Tensor, labels: Tensor | None, permutations: int, seed: int) -> Shuffles:
    """Return outputs (n, K) and labels (n,), or None, in random orders."""
    n = len(outputs)
    generator = stream(seed, "permutations")
    orders = torch.stack([torch.arange(n), *(torch.randperm(n, generator=generator) for _ in range(permutations))])
    centered = outputs.double() - outputs.double().mean(0)
    values, vectors = torch.linalg.eigh(centered.T @ centered / n)
    kept = values > 1e-9 * values[-1]
    targets = (centered @ vectors[:, kept] / values[kept].sqrt()).float()
    return Shuffles(
        torch.cat([targets[order].T for order in orders]),
        None if labels is None else labels.to(torch.int16)[orders].T.contiguous(),
        orders,
    )


def permuted_statistics(site: Principal, shuffles: Shuffles) -> Tensor:
    """Return (1 + B,) float64: how strongly outputs in each order are tied to the states, largest of two statistics.

    One is Pillai's trace, the sum of squared canonical correlations, to second order twice the information of Gaussian
    classes; states are whitened once for all orders. The other counts neighbors of one class, and sees what means do
    not show. Each is standardized over all orders, the observed one among them, so that they are exchangeable.

    Args:
        site: the whitened states.
        shuffles: the same for all sites.
    """
    found = _standardize(_pillai(site.points, shuffles))
    if shuffles.labels is None:
        return found
    return torch.maximum(found, _standardize(_same_class(site, shuffles.labels)))


def p_values(statistics: Tensor) -> tuple[Tensor, Tensor]:
    """Return p-values of each site and family-wise p-values, (sites,) each, (1 + #greater or equal) / (1 + B).

    The family-wise one compares a site with the largest statistic of all sites in each permutation (Westfall and
    Young's single-step max-T).

    Args:
        statistics: (sites, 1 + B), the observed one first.

    Example:
        >>> [p.tolist() for p in p_values(torch.tensor([[3.0, 1.0, 2.0, 0.0], [1.0, 0.0, 2.0, 4.0]]))]
        [[0.25, 0.75], [0.5, 1.0]]
    """
    seen, null = statistics[:, :1], statistics[:, 1:]
    slack = 1e-9 * seen.abs()  # the observed order may come up again, summed otherwise
    total = statistics.shape[1]
    alone = (1 + (null >= seen - slack).sum(1)).double() / total
    family = (1 + (null.max(0).values >= seen - slack).sum(1)).double() / total
    return alone, family


def _pillai(points: Tensor, shuffles: Shuffles) -> Tensor:
    sets, n = shuffles.orders.shape
    traces = product(shuffles.targets, points).square().sum(1, dtype=torch.float64) / n**2
    return traces.reshape(sets, -1).sum(1)


def _same_class(site: Principal, labels: Tensor) -> Tensor:
    """Return (1 + B,) how many of the nearest ten points are of the point's own class."""
    points = site.leading(COMPONENTS)[:MOST_POINTS].contiguous()
    labels = labels[: len(points)]
    small = labels.to(torch.int8) if int(labels.max()) < 128 else labels
    found = torch.zeros(labels.shape, dtype=torch.int8)  # of each point, at most ten; summed at the end
    for neighbor in _nearest(points).T:
        found += small.index_select(0, neighbor) == small
    return found.sum(0, dtype=torch.long).double()


def _nearest(points: Tensor) -> Tensor:
    """Return (n, 10) the nearest other points."""
    squares = points.square().sum(1)
    found = []
    step = max(16, TILE_ELEMENTS // len(points))
    memory = points.new_empty(min(step, len(points)), len(points))
    for start in range(0, len(points), step):
        rows = points[start : start + step]
        tile = torch.addmm(squares, rows, points.T, beta=-1, alpha=2, out=memory[: len(rows)])
        tile.diagonal(offset=start).fill_(-torch.inf)
        found.append(tile.topk(min(NEIGHBORS, len(points) - 1), dim=1, sorted=False).indices)
    return torch.cat(found)


def _standardize(values: Tensor) -> Tensor:
    return (values - values.mean()) / values.std().clamp_min(1e-12) if len(values) > 1 else values
