"""Neighbor counts of one label set by thresholds: the k-th nearest of the class, then everything nearer than it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hf_attn_mi.kernels.neighbors.points import Points, prepare
from hf_attn_mi.kernels.threads import across_threads

GROUP = 4  # columns of which only the largest is looked at first
SMALLEST_FOR_GROUPS, HEAP_FROM = 16, 64  # columns for each of the k largest: from the second on topk is quick itself
EXACT_SUM = 2**24


def count_by_threshold(states: Tensor, codes: Tensor, ranks: Tensor, tile_rows: int, threads: int) -> Tensor:
    """Return (n,) counts m_i of one site for one label set.

    Points are sorted by class, so that the distances within a class are one block of columns of a tile.

    Args:
        states: (n, d).
        codes: (n,) classes 0 ... K - 1.
        ranks: (K,) k_i of each class; 0: the class does not exist.
        tile_rows: rows of a tile.
        threads: that take tiles.
    """
    order = torch.argsort(codes, stable=True)
    order = order[ranks[codes[order]] > 0]
    within = torch.zeros_like(codes)
    if len(order) == 0:
        return within
    points, sorted_codes = prepare(states[order]), codes[order]
    classes, sizes = torch.unique_consecutive(sorted_codes, return_counts=True)
    ends = sizes.cumsum(0).tolist()
    blocks = list(zip([0, *ends[:-1]], ends, ranks[classes].tolist()))
    found = torch.empty_like(sorted_codes)
    widest = max(rank for _, _, rank in blocks)

    def fill(starts: range) -> None:
        memory, ones = points.tile_memory(tile_rows), points.tile_memory(tile_rows)
        for start in starts:
            stop = min(start + tile_rows, len(order))
            tile = points.proximity(start, stop, memory)
            top = tile.new_full((stop - start, widest), -torch.inf)
            for first, last, rank in blocks:
                upper, lower = max(first, start) - start, min(last, stop) - start
                if upper < lower:
                    top[upper:lower, :rank] = largest(tile[upper:lower, first:last], rank)
            rows = torch.arange(start, stop, device=tile.device)
            found[start:stop] = count_rows(points, tile, rows, top, sorted_codes[None], ranks, ones)

    across_threads(fill, tile_starts(len(order), tile_rows, threads), threads)
    return within.index_copy(0, order, found)


def tile_starts(n: int, tile_rows: int, threads: int) -> list[range]:
    """Return the first rows of all tiles, dealt out to threads.

    Args:
        n: rows.
        tile_rows: rows of a tile.
        threads: how many.
    """
    starts = range(0, n, tile_rows)
    return [starts[first::threads] for first in range(min(threads, len(starts)))]


def count_rows(
    points: Points,
    tile: Tensor,
    rows: Tensor,
    top: Tensor,
    label_of: Tensor,
    ranks: Tensor,
    memory: Tensor | None = None,
) -> Tensor:
    """Return (rows,) counts m_i from rows of proximities and the largest of them within the class.

    What lies more than twice the error bound inside or outside of the radius is decided; a row with anything else in
    the band between, other than its k-th neighbor, or with a radius that may be zero, is refined.

    Args:
        points: the points.
        tile: (rows, n) proximities, -inf where there is no point.
        rows: (rows,) the point of each row.
        top: (rows, k) largest proximities within the class in descending order; of those beyond k_i any value.
        label_of: (rows, n) the class of each point, for each row; (1, n) if it is the same for all.
        ranks: (K,) k_i of each class.
        memory: (rows or more, n) of the tile's type that may be written to.
    """
    memory = torch.empty_like(tile) if memory is None else memory
    own = label_of.expand(len(rows), -1).gather(1, rows[:, None])
    rank = ranks[own]
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
        label = label_of[0, column] if len(label_of) == 1 else label_of[unsure[row], column]
        # At most k - 1 of the class are certainly inside, all of them in `top`: the k-th is the wanted-th in the band.
        wanted = (rank - (top > inner).sum(1, keepdim=True))[unsure]
        counts[unsure] += _inside(row, distance, label == own[unsure[row], 0], wanted, band[unsure])
    return counts


def _inside(row: Tensor, distance: Tensor, same: Tensor, wanted: Tensor, sizes: Tensor) -> Tensor:
    """Return how many points of each row's band are strictly inside of its radius, or at distance zero.

    Args:
        row: (pairs,) ascending, with `sizes` of them a row.
        distance: (pairs,) exact.
        same: (pairs,) whether of the class of the row's point.
        wanted: (rows, 1) the radius is the distance to the wanted-th such point.
        sizes: (rows,).
    """
    place = torch.arange(len(row), device=row.device) - (sizes.cumsum(0) - sizes)[row]
    table = distance.new_full((len(sizes), int(sizes.max())), torch.inf)
    table[row, place] = distance
    of_class = torch.full_like(table, torch.inf)
    of_class[row, place] = torch.where(same, distance, torch.inf)
    radius = of_class.topk(int(wanted.max()), largest=False).values.gather(1, wanted - 1)
    return ((table < radius) | (table == 0)).sum(1)


def largest(values: Tensor, k: int) -> Tensor:
    """Return (rows, k) the largest of values (rows, m) in descending order, as topk does.

    topk compares with a heap where m is large beside k, and partitions a copy of the row where it is not. There the k
    largest are sought among the members of those k groups of four columns whose largest members are largest: the k
    largest are among them, for if one was not, k groups would have a larger member each.
    """
    m = values.shape[1]
    if not SMALLEST_FOR_GROUPS * k <= m < HEAP_FROM * k:
        return values.topk(k).values
    groups = values[:, : m // GROUP * GROUP].view(-1, GROUP, m // GROUP)
    best = groups.amax(1).topk(k, sorted=False).indices
    members = groups.gather(2, best[:, None].expand(-1, GROUP, -1)).flatten(1)
    return torch.cat([members, values[:, m // GROUP * GROUP :]], 1).topk(k).values


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
