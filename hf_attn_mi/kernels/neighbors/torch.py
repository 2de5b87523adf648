"""Neighbor counts in PyTorch by thresholds: the k-th nearest of the class, then everything nearer than it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from hf_attn_mi.kernels.threads import across_threads, sharing_threads

TILE_ELEMENTS = 2**18  # distances held at a time: 1 MB in float32, which stays in a core's own cache
GROUP = 4  # columns of which only the largest is looked at first
SMALLEST_FOR_GROUPS, HEAP_FROM = 16, 64  # columns for each of the k largest: groups are used between these limits
PARTITION_FROM = 8  # k from which NumPy's partition is faster than groups and topk
PARTITION_WIDTH = 512  # columns up to which it sorts by vector instructions alone
EXACT_SUM = 2**24  # ones in float32: longer sums of them are inexact
WIDEST = 8192  # in states of this width and more, products in float32 are not exact enough to decide much
NORM_ROWS, NORM_ELEMENTS = 128, 2**15  # squares in float64 held at a time: rows, and numbers of narrow rows
PAIR_ELEMENTS = 2**21  # float64 differences held at a time
DEDUPLICATE_FROM = 8  # pairs a point, from which equal points are looked for


Number = TypeVar("Number", float, Tensor)
Writer = Callable[[int, int, Tensor], None]  # writes the counts of the points from one to another
Counter = Callable[["Points", list[int], list[int], int], Writer]


def count_torch(states: Tensor, codes: Tensor, ranks: Tensor) -> Tensor:
    """Return (sites, n) counts m_i.

    Args:
        states: (sites, n, d).
        codes: (n,) classes 0 ... K - 1.
        ranks: (K,) k_i of each class; 0: the class does not exist.
    """
    return count_sites(states, codes, ranks, tile_counter)


def count_sites(states: Tensor, codes: Tensor, ranks: Tensor, counter: Counter) -> Tensor:
    """Return (sites, n) counts m_i, of which `counter` makes those of rows of one site.

    Args:
        states: (sites, n, d).
        codes: (n,) classes 0 ... K - 1.
        ranks: (K,) k_i of each class; 0: the class does not exist.
        counter: called in each thread with the points of a site, sorted by class; ends (K' + 1,): class c has the
            points from ends[c] to ends[c + 1]; k_i of each class; and the largest number of rows of a tile.
    """
    rows = _tile_rows(len(codes), states.device)

    def count(site: Tensor, threads: int = 1) -> Tensor:
        if bool((site == site[:1]).all()):  # a site that no input changes, such as the embedding of [CLS]
            real = ranks[codes] > 0
            return torch.where(real, real.sum(), 0)
        return _count_site(site, codes, ranks, rows, threads, counter)

    with sharing_threads(states.device, len(codes)) as threads:  # sites where there are enough, else tiles of one site
        few = len(states) < threads
        return torch.stack([count(x, threads) for x in states] if few else across_threads(count, states, threads))


def _tile_rows(n: int, device: torch.device) -> int:
    """Return rows of a tile: as many as stay in cache, but on the CPU a tile for each thread at least."""
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    return max(16, min(TILE_ELEMENTS // n, -(-n // threads)))


def _count_site(states: Tensor, codes: Tensor, ranks: Tensor, tile_rows: int, threads: int, counter: Counter) -> Tensor:
    """Return (n,) counts m_i of one site.

    Points are sorted by class, so that the distances within a class are one block of columns of a tile.

    Args:
        states: (n, d).
        codes: (n,) classes 0 ... K - 1.
        ranks: (K,) k_i of each class; 0: the class does not exist.
        tile_rows: rows of a tile.
        threads: the number of threads that process tiles.
        counter: see `count_sites`.
    """
    order = torch.argsort(codes, stable=True)
    order = order[ranks[codes[order]] > 0]
    within = torch.zeros_like(codes)
    if len(order) == 0:
        return within
    points = prepare(states[order])
    classes, sizes = torch.unique_consecutive(codes[order], return_counts=True)
    ends, wanted = [0, *sizes.cumsum(0).tolist()], ranks[classes].tolist()
    counts = torch.empty_like(order)

    def fill(starts: range) -> None:
        write = counter(points, ends, wanted, tile_rows)
        for start in starts:
            write(start, min(start + tile_rows, len(order)), counts)

    starts = range(0, len(order), tile_rows)
    across_threads(fill, [starts[first::threads] for first in range(min(threads, len(starts)))], threads)
    return within.index_copy(0, order, counts)


def tile_counter(points: Points, ends: list[int], ranks: list[int], tile_rows: int) -> Writer:
    """Return a function that writes the counts of some rows from a tile of proximities. See `count_sites`."""
    memory, ones = points.tile_memory(tile_rows), points.tile_memory(tile_rows)
    blocks = list(zip(ends, ends[1:], ranks))
    device = points.states.device
    codes = torch.cat([torch.full((last - first,), c, device=device) for c, (first, last, _) in enumerate(blocks)])
    wanted = torch.tensor(ranks, device=device)

    def write(start: int, stop: int, counts: Tensor) -> None:
        tile = points.proximity(start, stop, memory)
        top = tile.new_full((stop - start, max(ranks)), -torch.inf)
        for first, last, rank in blocks:
            upper, lower = max(first, start) - start, min(last, stop) - start
            if upper < lower:
                top[upper:lower, :rank] = largest(tile[upper:lower, first:last], rank)
        rows = torch.arange(start, stop, device=device)
        counts[start:stop] = _count_rows(points, tile, rows, top, codes, wanted[codes[rows]][:, None], ones)

    return write


def _count_rows(
    points: Points, tile: Tensor, rows: Tensor, top: Tensor, codes: Tensor, rank: Tensor, memory: Tensor
) -> Tensor:
    """Return (rows,) counts m_i from rows of proximities and the largest of them within the class.

    What lies more than twice the error bound inside or outside of the radius is decided; a row with anything else in
    the band between, other than its k-th neighbor, or with a radius that may be zero, is refined.

    Args:
        points: the points.
        tile: (rows, n) proximities, -inf where there is no point.
        rows: (rows,) the point of each row.
        top: (rows, k) largest proximities within the class in descending order; of those beyond k_i any value.
        codes: (n,) the class of each point.
        rank: (rows, 1) k_i.
        memory: (rows or more, n) of the tile's type that may be written to.
    """
    kth = top.gather(1, rank - 1)
    error = points.error_bound(rows, kth[:, 0])[:, None]
    inner = (kth.double() + 2 * error).to(tile.dtype)
    outer = (kth.double() - 2 * error).to(tile.dtype)
    certain = _count(tile, inner, torch.gt, memory)
    band = _count(tile, outer, torch.ge, memory) - certain
    may_be_zero = points.norms[rows].square() - kth[:, 0].double() <= error[:, 0]
    counts = certain + 1
    unsure = ((band > 1) | may_be_zero).nonzero()[:, 0]
    if len(unsure):
        part = tile[unsure]
        row, column = ((part <= inner[unsure]) & (part >= outer[unsure])).nonzero(as_tuple=True)
        distance = points.exact(rows[unsure[row]], column)
        same = codes[column] == codes[rows[unsure[row]]]
        # At most k - 1 of the class are certainly inside, all of them in `top`: the k-th is one of the band.
        place = (rank - (top > inner).sum(1, keepdim=True))[unsure]
        counts[unsure] += _inside(row, distance, same, place, band[unsure])
    return counts


def _inside(row: Tensor, distance: Tensor, same: Tensor, place: Tensor, sizes: Tensor) -> Tensor:
    """Return how many points of each row's band are strictly inside of its radius, or at distance zero.

    Args:
        row: (pairs,) ascending, with `sizes` of them a row.
        distance: (pairs,) exact.
        same: (pairs,) whether of the class of the row's point.
        place: (rows, 1) the radius is the distance to the point of the class with this place in the band, from 1.
        sizes: (rows,).
    """
    column = torch.arange(len(row), device=row.device) - (sizes.cumsum(0) - sizes)[row]
    table = distance.new_full((len(sizes), int(sizes.max())), torch.inf)
    table[row, column] = distance
    of_class = torch.full_like(table, torch.inf)
    of_class[row, column] = torch.where(same, distance, torch.inf)
    radius = of_class.topk(int(place.max()), largest=False).values.gather(1, place - 1)
    return ((table < radius) | (table == 0)).sum(1)


def largest(values: Tensor, k: int) -> Tensor:
    """Return (rows, k) the largest of values (rows, m) in descending order, as topk does.

    topk compares with a heap where m is large beside k, and partitions a copy of the row where it is not. There the k
    largest are sought among the members of those k groups of four columns whose largest members are largest: the k
    largest are among them, for if one was not, k groups would have a larger member each. On the CPU, many are found by
    NumPy's partition: the k largest of a row are among the k largest of each of its parts.
    """
    m = values.shape[1]
    if k >= PARTITION_FROM and values.device.type == "cpu":
        return _largest_by_parts(values, k)
    if not SMALLEST_FOR_GROUPS * k <= m < HEAP_FROM * k:
        return values.topk(k).values
    groups = values[:, : m // GROUP * GROUP].view(-1, GROUP, m // GROUP)
    best = groups.amax(1).topk(k, sorted=False).indices
    members = groups.gather(2, best[:, None].expand(-1, GROUP, -1)).flatten(1)
    return torch.cat([members, values[:, m // GROUP * GROUP :]], 1).topk(k).values


def _largest_by_parts(values: Tensor, k: int) -> Tensor:
    """Return the result of `largest`, of values on the CPU."""
    rows, m = values.shape
    parts = max(1, min(-(-m // PARTITION_WIDTH), m // (2 * k)))
    width = m // parts
    array = values.detach().numpy()
    candidates = np.ascontiguousarray(array[:, : parts * width]).reshape(rows * parts, width)
    candidates = np.partition(candidates, width - k, axis=1)[:, width - k :].reshape(rows, parts * k)
    if parts > 1:
        candidates = np.concatenate([candidates, array[:, parts * width :]], 1)
        candidates = np.partition(candidates, candidates.shape[1] - k, axis=1)[:, candidates.shape[1] - k :]
    return torch.from_numpy(np.sort(candidates, axis=1)[:, ::-1].copy())


def _count(tile: Tensor, threshold: Tensor, compare: Callable[..., Tensor], memory: Tensor) -> Tensor:
    """Return (rows,) how many entries of each row compare true.

    Comparisons are written as 0 and 1 in the tile's own type: that and their sum take a third of the time that flags
    take. Sums of ones in float32 are exact up to 2^24; longer rows are counted in parts.
    """
    rows, n = tile.shape
    ones = memory[:rows]
    compare(tile, threshold, out=ones)
    if n <= EXACT_SUM:
        return ones.sum(1).long()
    return torch.stack([part.sum(1).long() for part in ones.split(EXACT_SUM, dim=1)]).sum(0)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, eq=False)
class Points:
    """Points centered, and scaled by a power of two where squares would overflow: distances keep their order."""

    states: Tensor  # (n, d) as they came
    scale: float  # the power of two; 1 where entries are neither huge nor tiny
    centered: Tensor  # (n, d) float32, or float64 where products in float32 are not exact enough
    squares: Tensor  # (n,) squared norms, dtype of `centered`
    norms: Tensor  # (n,) float64
    slack: float  # c of the error bound c (|x_i|^2 + |x_j|^2)

    def tile_memory(self, rows: int) -> Tensor:
        """Return memory for tiles of this many rows: fresh memory for each tile would cost as much as its passes."""
        return self.centered.new_empty(min(rows, len(self.states)), len(self.states))

    def products(self, start: int, stop: int, memory: Tensor) -> Tensor:
        """Return a tile (stop - start, n) of x_i x_j, in `memory`, for backends that make proximities of it."""
        return torch.mm(self.centered[start:stop], self.centered.T, out=memory[: stop - start])

    def proximity(self, start: int, stop: int, memory: Tensor) -> Tensor:
        """Return a tile (stop - start, n) of |x_i|^2 - |x_i - x_j|^2 with -inf at i = j: larger is nearer.

        One matrix product, into `memory`; the term of the row is left out, for no comparison within a row needs it.
        """
        tile = memory[: stop - start]
        torch.addmm(self.squares, self.centered[start:stop], self.centered.T, beta=-1, alpha=2, out=tile)
        tile.diagonal(offset=start).fill_(-torch.inf)
        return tile

    def error_bound(self, rows: Tensor, proximity: Tensor) -> Tensor:
        """Return (rows,) float64: a bound E on the error of `proximity` at all points that matter for a radius.

        The points that matter for radius r lie within rho of point i, rho^2 = 2 r^2 + 20 c |x_i|^2: their norms are at
        most |x_i| + rho, which bounds their error by E = c (|x_i|^2 + (|x_i| + rho)^2). All others are at
        distance rho or more, and their error grows slower than their distance, so that they stay beyond r^2 + 3 E.
        Norms of far outliers do not enter.

        Args:
            rows: (rows,) indices of the points i.
            proximity: (rows,) of the radius, as `proximity` gives it.
        """
        return rounding_bound(self.norms[rows], proximity.double(), *self.rounding)

    @property
    def rounding(self) -> tuple[float, float, float]:
        """The last arguments of `rounding_bound`."""
        tiny = torch.finfo(torch.float32).tiny
        return self.slack, torch.finfo(self.centered.dtype).eps, 4 * (self.states.shape[1] + 16) * tiny

    def exact(self, left: Tensor, right: Tensor) -> Tensor:
        """Return (pairs,) squared distances in float64 from the differences: no cancellation.

        Equal points are looked for where there are many pairs, so that the pairs of, say, two token embeddings that
        fill a site are computed once.

        Args:
            left: (pairs,) indices.
            right: (pairs,) indices.
        """
        if len(left) < DEDUPLICATE_FROM * len(self.states):
            return self._exact(left, right)
        first, group = self.equal_points
        codes, back = torch.unique(group[left] * len(first) + group[right], return_inverse=True)
        return self._exact(first[codes // len(first)], first[codes % len(first)])[back]

    @cached_property
    def equal_points(self) -> tuple[Tensor, Tensor]:
        """The first index of each group of equal points and the group of each point."""
        unique, group = torch.unique(self.states, dim=0, return_inverse=True)
        place = torch.arange(len(group), device=group.device)
        first = torch.full((len(unique),), len(group), device=group.device).scatter_reduce(0, group, place, "amin")
        return first, group

    def _exact(self, left: Tensor, right: Tensor) -> Tensor:
        squared = torch.empty(len(left), dtype=torch.float64, device=left.device)
        step = max(1, PAIR_ELEMENTS // self.states.shape[1])
        for start in range(0, len(left), step):
            part = slice(start, start + step)
            apart = self.states[left[part]].double() - self.states[right[part]].double()
            squared[part] = (apart * self.scale).square().sum(1)
        return squared


def rounding_bound(norm: Number, proximity: Number, slack: float, epsilon: float, floor: float) -> Number:
    """Return the bound of `Points.error_bound`, of float64 tensors or, compiled, of numbers.

    Args:
        norm: |x_i|.
        proximity: of the radius.
        slack: c.
        epsilon: of the type of the products.
        floor: what squares that vanish may miss.
    """
    squared = norm * norm
    radius = squared - proximity
    radius = (radius + abs(radius)) / 2  # not below zero
    reach: Number = (2 * radius + 20 * slack * squared) ** 0.5
    bound = slack * (squared + (norm + reach) * (norm + reach))
    return 1.01 * bound + 2 * epsilon * abs(proximity) + floor  # thresholds are rounded, too


def ordinary(largest: float) -> bool:
    """Return whether squares of entries up to this size neither overflow nor vanish in float32.

    Example:
        >>> ordinary(3.0), ordinary(0.0), ordinary(1e30)
        (True, True, False)
    """
    return largest == 0 or 2.0**-20 < largest < 2.0**20


def prepare(states: Tensor, *, sites: int = 1, own_products: bool = False) -> Points:
    """Return the points of one site, or of several whose entries are all `ordinary`, for products in float32.

    Float64 is used where that is not exact enough: very wide points, or a user who allows TF32 or bfloat16
    inside float32 products.

    The error bound: centering rounds each entry once, which moves a squared distance by at most 4 u (|x|^2 + |y|^2);
    the matrix product errs by at most 2 (d + 1) u |x| |y| in any order of summation, and the rest is a few roundings.

    Args:
        states: (n, d), finite; (sites * n, d), site after site, each centered alone.
        sites: how many.
        own_products: the products are those of a kernel that is always exact to float32, whatever the user allows.
    """
    d = states.shape[1]
    low, high = states.aminmax()
    largest = torch.maximum(low.abs(), high.abs()).double()
    scale = 1.0
    if not ordinary(float(largest)):
        scale = 2.0 ** -max(int(torch.frexp(largest).exponent), -1000)
    inexact = (torch.get_float32_matmul_precision() != "highest" and not own_products) or d >= WIDEST
    dtype = torch.float64 if inexact else torch.float32
    double = scale != 1.0 or torch.float64 in (dtype, states.dtype)
    wide = states.double() if double else states.float()
    scaled = wide if scale == 1.0 else wide * scale
    apart = scaled.view(sites, -1, d)
    centered = (apart - apart.mean(1, keepdim=True)).to(dtype).view(-1, d)  # any center will do
    step = max(NORM_ROWS, (NORM_ELEMENTS if states.device.type == "cpu" else PAIR_ELEMENTS) // d)
    norms = torch.cat([rows.double().square().sum(1) for rows in centered.split(step)]).sqrt()  # type: ignore[no-untyped-call]
    unit = torch.finfo(dtype).eps / 2
    return Points(states, scale, centered, norms.square().to(dtype), norms, (d + 16) * unit)
