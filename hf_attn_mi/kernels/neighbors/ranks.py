"""Neighbor counts of many label sets: each row's neighbors sorted once, then each label set reads ranks off them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.kernels.neighbors.points import Points
from hf_attn_mi.kernels.neighbors.tiles import count_rows, tile_starts
from hf_attn_mi.kernels.threads import across_threads

UNDECIDED = 0.01  # share of rows whose list may be too short; these are counted by thresholds
LABELS_AT_A_TIME = 2**21  # labels of neighbors held at a time


@dataclass(frozen=True, eq=False)
class Ranking:
    """The nearest neighbors of the rows of a tile, nearest first."""

    index: Tensor  # (rows, length)
    tied_before: Tensor  # (rows, length) long: neighbors strictly nearer than this one
    trusted: Tensor  # (rows, length) bool: nothing outside of the list is as near
    zeros: Tensor  # (rows,) neighbors at distance zero, which stand first
    no_radius: Tensor  # (rows, length) bool: at distance zero


def count_by_rank(
    points: Points, label_sets: Tensor, ranks: Tensor, sizes: Tensor, tile_rows: int, threads: int
) -> Tensor:
    """Return (sets, n) counts m_i of one site for label sets that have the same classes of the same sizes.

    With the neighbors of i in order of distance, the k-th one of i's class stands at some place; the number of
    neighbors strictly nearer is known for each place.

    Args:
        points: of the site.
        label_sets: (sets, n) classes 0 ... K - 1.
        ranks: (K,) k_i of each class; 0: the class does not exist.
        sizes: (K,) points of each class.
        tile_rows: rows of a tile.
        threads: that take tiles.
    """
    n = label_sets.shape[1]
    found = torch.zeros_like(label_sets)
    if n == 1:
        return found
    length = _list_length(ranks, sizes, n)

    def fill(starts: range) -> None:
        memory = points.tile_memory(tile_rows)
        for start in starts:
            stop = min(start + tile_rows, n)
            tile = points.proximity(start, stop, memory)
            rows = torch.arange(start, stop, device=tile.device)
            ranking = _rank(points, tile, rows, length)
            if 2 * int(ranking.trusted.sum()) < ranking.trusted.numel():  # ties all over: only the whole order decides
                ranking = _rank(points, tile, rows, n - 1)
            step = max(1, LABELS_AT_A_TIME // ranking.index.numel())
            for first in range(0, len(label_sets), step):
                part = label_sets[first : first + step]
                counts, undecided = _read_ranks(ranking, part, part[:, start:stop], ranks)
                if len(undecided):
                    _by_threshold(counts, undecided, points, tile, start, part, ranks)
                found[first : first + step, start:stop] = counts

    across_threads(fill, tile_starts(n, tile_rows, threads), threads)
    return found


def _list_length(ranks: Tensor, sizes: Tensor, n: int) -> int:
    """Return a length that holds the k-th neighbor of the class for nearly all rows of random labels.

    Among the nearest l neighbors are about Poisson(l N / n) of a class of size N.
    """
    real = ranks > 0
    share = sizes[real].double() / n
    length = max(32, int(ranks.max()))
    while length < n - 1:
        missing = torch.special.gammaincc(ranks[real].double(), length * share)  # P(fewer than k)
        if float((share * missing).sum()) <= UNDECIDED:
            break
        length = length * 5 // 4
    return min(length, n - 1)


def _rank(points: Points, tile: Tensor, rows: Tensor, length: int) -> Ranking:
    """Return the nearest neighbors in exact order: float64 distances where neighbors in the list are too close."""
    near, index = tile.topk(length, dim=1)
    distance = points.norms[rows].square()[:, None] - near.double()
    error = points.error_bound(rows, near[:, -1])[:, None]
    close = distance[:, 1:] - distance[:, :-1] <= 2 * error
    unsure = distance <= error  # may be zero
    unsure[:, 1:] |= close
    unsure[:, :-1] |= close
    trusted_below = distance[:, -1:] - 2 * error if length < tile.shape[1] - 1 else torch.inf
    row, place = unsure.nonzero(as_tuple=True)
    if len(row):
        distance[row, place] = points.exact(rows[row], index[row, place])
        distance, order = distance.sort(dim=1, stable=True)
        index = index.gather(1, order)
    # Distances that were not refined differ from all others by more than the error: only exact ones can be equal.
    place_of = torch.arange(length, device=tile.device).expand(distance.shape)
    fresh = torch.ones_like(unsure)
    fresh[:, 1:] = distance[:, 1:] > distance[:, :-1]
    tied_before = torch.where(fresh, place_of, 0).cummax(1).values
    no_radius = distance == 0
    return Ranking(index, tied_before, distance < trusted_below, no_radius.sum(1), no_radius)


def _read_ranks(ranking: Ranking, label_sets: Tensor, own: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor]:
    """Return (sets, rows) counts, zero for points without a class, and the undecided (set, row) pairs."""
    rows, length = ranking.index.shape
    small = torch.int8 if len(ranks) < 128 else torch.int32
    # Sets last: one index_select moves the labels of a neighbor in all sets at once.
    by_point = label_sets.T.to(small, memory_format=torch.contiguous_format)
    label_of = by_point.index_select(0, ranking.index.T.reshape(-1)).view(length, rows, -1)
    mine = own.T.to(small)
    wanted = ranks[own].T.int()
    steps = torch.zeros_like(wanted)
    place = torch.zeros_like(wanted)
    for near in label_of:  # place = how many neighbors come before the wanted-th of the class
        steps += near == mine
        place += steps < wanted
    real = wanted > 0
    place = place.long()
    reached = place < length
    at = place.clamp_max(length - 1)
    row = torch.arange(rows, device=own.device)[:, None].expand(at.shape)
    nearer = torch.where(ranking.no_radius[row, at], ranking.zeros[:, None], ranking.tied_before[row, at])
    if bool((ranks == 0).any()):  # points without a class do not count
        exists = (ranks > 0)[label_of.long()].cumsum(0)
        nearer = torch.where(nearer > 0, exists.gather(0, (nearer[None] - 1).clamp_min(0))[0], 0)
    decided = reached & ranking.trusted[row, at]
    return torch.where(real, nearer + 1, 0).T, (real & ~decided).T.nonzero()


def _by_threshold(
    counts: Tensor, undecided: Tensor, points: Points, tile: Tensor, start: int, label_sets: Tensor, ranks: Tensor
) -> None:
    """Fill in the counts of the (set, row) pairs that need more neighbors than the list holds."""
    for part in undecided.split(max(1, len(tile))):  # type: ignore[no-untyped-call]
        label_of = label_sets[part[:, 0]]  # (pairs, n)
        rows = part[:, 1] + start
        wanted = ranks[label_of.gather(1, rows[:, None])[:, 0]]
        near = tile[part[:, 1]].masked_fill(ranks[label_of] == 0, -torch.inf)
        mine = near.masked_fill(label_of != label_of.gather(1, rows[:, None]), -torch.inf)
        top = mine.topk(int(wanted.max())).values
        counts[part[:, 0], part[:, 1]] = count_rows(points, near, rows, top, label_of, ranks)
