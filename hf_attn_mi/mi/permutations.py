"""Permutation tests: every site has the same permutations of the outputs, so that sites can be tested as a family."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.kernels.large_calls import is_worth_loading
from hf_attn_mi.kernels.permutations import agreeing_neighbors, permuted_sums
from hf_attn_mi.kernels.products import product
from hf_attn_mi.mi.coordinates import WhitenedStates
from hf_attn_mi.mi.rng import make_rng

NEIGHBORS = 10
COMPONENTS = 32  # distances in so many components approximate those of the states
MAX_POINTS = 5000  # the cost of neighbors is quadratic in n
FEWEST_SUMS = 3  # classes from which sums over them cost less than products with the targets


@dataclass(frozen=True, eq=False)
class ClassMembers:
    """Classes in each order by their examples: for classes that are certain, products with targets are sums."""

    members: Tensor  # (1 + B, n) int32: the examples class after class, ascending within a class
    ends: list[int]  # (K + 1,) class c has the places from ends[c] to ends[c + 1]
    axes: Tensor  # (q, K) float32: targets = axes times one-hot classes, less their mean

    def to(self, device: torch.device) -> ClassMembers:
        """Return the same on a device."""
        return ClassMembers(self.members.to(device), self.ends, self.axes.to(device))


@dataclass(frozen=True, eq=False)
class Permutations:
    """Outputs in each order, in the form whose products with states are tested; the first order is the observed one."""

    targets: Tensor  # ((1 + B) * q, n) float32: centered outputs, uncorrelated, unit variance
    labels: Tensor | None  # (m, 1 + B) int16 classes of the examples in `drawn`; None: neighbors are not tested
    drawn: Tensor  # (m,) long: the examples whose neighbors are tested, in random order
    orders: Tensor  # (1 + B, n) long
    classes: ClassMembers | None  # None: outputs are not certain, or of two classes

    def to(self, device: torch.device) -> Permutations:
        """Return the same on a device."""
        labels = None if self.labels is None else self.labels.to(device)
        classes = None if self.classes is None else self.classes.to(device)
        return Permutations(self.targets.to(device), labels, self.drawn.to(device), self.orders.to(device), classes)


def draw_permutations(outputs: Tensor, labels: Tensor | None, count: int, seed: int) -> Permutations:
    """Return outputs (n, K) and labels (n,), or None, in `count` random orders after the observed one."""
    n = len(outputs)
    generator = make_rng(seed, "permutations")
    orders = torch.stack([torch.arange(n), *(torch.randperm(n, generator=generator) for _ in range(count))])
    centered = outputs.double() - outputs.double().mean(0)
    values, vectors = torch.linalg.eigh(centered.T @ centered / n)
    kept = values > 1e-9 * values[-1]
    axes = vectors[:, kept] / values[kept].sqrt()
    targets = (centered @ axes).float()
    # In random order: of equal states the first ones are the neighbors, and in the caller's order, or among the first
    # MAX_POINTS of it, they may be of one class. Then the observed order would not be exchangeable with the others.
    drawn = torch.randperm(n, generator=make_rng(seed, "neighbors"))[:MAX_POINTS]
    return Permutations(
        torch.cat([targets[order].T for order in orders]),
        None if labels is None else labels.to(torch.int16)[orders[:, drawn]].T.contiguous(),
        drawn,
        orders,
        _class_members(outputs, orders, axes),
    )


def _class_members(outputs: Tensor, orders: Tensor, axes: Tensor) -> ClassMembers | None:
    if outputs.shape[1] < FEWEST_SUMS or not bool(
        ((outputs == 0) | (outputs == 1)).all() & (outputs.sum(1) == 1).all()
    ):
        return None
    codes = outputs.argmax(1)
    ends = [0, *torch.bincount(codes, minlength=outputs.shape[1]).cumsum(0).tolist()]
    return ClassMembers(codes[orders].argsort(dim=1, stable=True).int(), ends, axes.T.float())


def permuted_statistics(states: WhitenedStates, permutations: Permutations) -> Tensor:
    """Return (1 + B,) float64: the dependence of outputs in each order on the states, the larger of two statistics.

    One is Pillai's trace, the sum of squared canonical correlations, to second order twice the information of Gaussian
    classes; states are whitened once for all orders. The other counts neighbors of the same class, which detects
    dependence that leaves means equal. Each is standardized over all orders, including the observed one, so that the
    orders stay exchangeable.

    Args:
        states: whitened.
        permutations: the same for all sites.
    """
    pillai = _standardize(_pillai(states.points, permutations))
    if permutations.labels is None:
        return pillai
    return torch.maximum(pillai, _standardize(_same_class(states, permutations.labels, permutations.drawn)))


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
    observed, null = statistics[:, :1], statistics[:, 1:]
    slack = 1e-9 * observed.abs()  # the observed order may be drawn again, with another rounding
    total = statistics.shape[1]
    single = (1 + (null >= observed - slack).sum(1)).double() / total
    family = (1 + (null.max(0).values >= observed - slack).sum(1)).double() / total
    return single, family


def _pillai(points: Tensor, permutations: Permutations) -> Tensor:
    orders, n = permutations.orders.shape
    classes = permutations.classes
    if classes is None or points.device.type != "cpu" or not is_worth_loading():
        products = product(permutations.targets, points).view(orders, -1, points.shape[1])
    else:
        sums = permuted_sums(points, classes.members, classes.ends)
        share = (torch.tensor(classes.ends).diff() / n).to(points)
        products = classes.axes @ (sums - share[:, None] * points.sum(0))
    traces: Tensor = products.square().sum((1, 2), dtype=torch.float64) / n**2
    return traces


def _same_class(states: WhitenedStates, labels: Tensor, drawn: Tensor) -> Tensor:
    """Return (1 + B,) number of pairs of a point and one of its ten nearest neighbors that have the same class."""
    points = states.leading(COMPONENTS)[drawn]
    small = labels.to(torch.int8) if int(labels.max()) < 128 else labels
    return agreeing_neighbors(points, small, NEIGHBORS).double()


def _standardize(values: Tensor) -> Tensor:
    return (values - values.mean()) / values.std().clamp_min(1e-12) if len(values) > 1 else values
