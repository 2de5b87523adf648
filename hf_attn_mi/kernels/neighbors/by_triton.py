"""Neighbor counts with Triton: tiles of distances that never leave the chip, all sites and label sets at once.

Two kernels over the tiles of X X^T. Radius: each row keeps its k nearest points of its class, for several label sets
from the same tile. Band: each row counts the points that are certainly nearer than its radius and lists those for
which the error bound of float32 decides nothing. The listed ones are compared in float64, as PyTorch's way does;
a site with a list that is too long goes that way as a whole, so that the counts are the same, always.

Products are full float32, not TF32: the error bound is that of float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from hf_attn_mi.kernels.neighbors.points import Points, ordinary, prepare

LISTED = 32  # undecided points of a row: more of them than this are duplicates or an outlier's rounding
HELD = 2**26  # numbers held at a time, of points or of lists
SETS = 8  # label sets that read the same tile


@triton.jit
def _proximity(points, squares, rows, cols, n, d, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    """A tile of |x_i|^2 - |x_i - x_j|^2: larger is nearer."""
    product = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for at in range(0, d, BLOCK_D):
        dims = at + tl.arange(0, BLOCK_D)
        x = tl.load(points + rows[:, None] * d + dims[None, :], mask=(rows < n)[:, None] & (dims < d)[None, :], other=0)
        y = tl.load(points + cols[:, None] * d + dims[None, :], mask=(cols < n)[:, None] & (dims < d)[None, :], other=0)
        product = tl.dot(x, tl.trans(y), product, input_precision="ieee")
    return 2.0 * product - tl.load(squares + cols, mask=cols < n, other=0.0)[None, :]


@triton.jit
def _radius_kernel(
    points,
    squares,
    codes,
    ranks,
    kth_out,
    n,
    d,
    sets,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    GROUP: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Proximity of the k-th nearest other point of the class, one program for BLOCK_M rows and GROUP label sets."""
    site = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    group = tl.program_id(1).to(tl.int64) * GROUP + tl.arange(0, GROUP)
    own_place = group[None, :] * n + rows[:, None]
    own_in = (group < sets)[None, :] & (rows < n)[:, None]
    own = tl.load(codes + own_place, mask=own_in, other=-1)  # (rows, sets); -1: no such point
    rank = tl.load(ranks + own_place, mask=own_in, other=0)
    places = tl.arange(0, WIDTH)
    # The k nearest so far, in any order; places beyond a row's own k hold infinity and are never given up.
    nearest = tl.where(places[None, None, :] < rank[:, :, None], -float("inf"), float("inf"))
    kth = tl.min(nearest, 2)
    for start in range(0, n, BLOCK_N):
        cols = start + tl.arange(0, BLOCK_N).to(tl.int64)
        tile = _proximity(points + site * n * d, squares + site * n, rows, cols, n, d, BLOCK_M, BLOCK_N, BLOCK_D)
        code_in = (group < sets)[:, None] & (cols < n)[None, :]
        code = tl.load(codes + group[:, None] * n + cols[None, :], mask=code_in, other=-2)
        same = (own[:, :, None] == code[None, :, :]) & (rows[:, None, None] != cols[None, None, :])
        left = tl.where(same, tile[:, None, :], -float("inf"))
        best = tl.max(left, 2)
        while tl.max((best > kth).to(tl.int32)) > 0:
            at = tl.argmax(left, 2)
            left = tl.where(tl.arange(0, BLOCK_N)[None, None, :] == at[:, :, None], -float("inf"), left)
            farthest = tl.argmin(nearest, 2)
            taken = (places[None, None, :] == farthest[:, :, None]) & (best > kth)[:, :, None]
            nearest = tl.where(taken, best[:, :, None], nearest)
            kth = tl.min(nearest, 2)
            best = tl.max(left, 2)
    tl.store(kth_out + site * sets * n + own_place, kth, mask=own_in)


@triton.jit
def _band_kernel(
    points,
    squares,
    codes,
    inner_in,
    outer_in,
    certain_out,
    same_out,
    band_out,
    listed_out,
    n,
    d,
    sets,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    GROUP: tl.constexpr,
    LENGTH: tl.constexpr,
):
    """Points certainly inside of the radius, those of the class among them, and a list of the undecided ones."""
    site = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    group = tl.program_id(1).to(tl.int64) * GROUP + tl.arange(0, GROUP)
    own_place = group[None, :] * n + rows[:, None]
    own_in = (group < sets)[None, :] & (rows < n)[:, None]
    own = tl.load(codes + own_place, mask=own_in, other=-1)
    out_place = site * sets * n + own_place
    inner = tl.load(inner_in + out_place, mask=own_in, other=0.0)
    outer = tl.load(outer_in + out_place, mask=own_in, other=0.0)
    certain = tl.zeros([BLOCK_M, GROUP], tl.int32)
    certain_same = tl.zeros([BLOCK_M, GROUP], tl.int32)
    band = tl.zeros([BLOCK_M, GROUP], tl.int32)
    for start in range(0, n, BLOCK_N):
        cols = start + tl.arange(0, BLOCK_N).to(tl.int64)
        tile = _proximity(points + site * n * d, squares + site * n, rows, cols, n, d, BLOCK_M, BLOCK_N, BLOCK_D)
        code_in = (group < sets)[:, None] & (cols < n)[None, :]
        code = tl.load(codes + group[:, None] * n + cols[None, :], mask=code_in, other=-1)
        counts = (own >= 0)[:, :, None] & (code >= 0)[None, :, :] & (rows[:, None, None] != cols[None, None, :])
        near = tile[:, None, :]
        inside = counts & (near > inner[:, :, None])
        certain += tl.sum(inside.to(tl.int32), 2)
        certain_same += tl.sum((inside & (own[:, :, None] == code[None, :, :])).to(tl.int32), 2)
        undecided = counts & (near >= outer[:, :, None]) & (near <= inner[:, :, None])
        flags = undecided.to(tl.int32)
        at = band[:, :, None] + tl.cumsum(flags, 2) - 1
        names = tl.zeros([BLOCK_M, GROUP, BLOCK_N], tl.int32) + cols[None, None, :].to(tl.int32)
        tl.store(listed_out + out_place[:, :, None] * LENGTH + at, names, mask=undecided & (at < LENGTH))
        band += tl.sum(flags, 2)
    tl.store(certain_out + out_place, certain, mask=own_in)
    tl.store(same_out + out_place, certain_same, mask=own_in)
    tl.store(band_out + out_place, band, mask=own_in)


def count_triton(states: Tensor, label_sets: Tensor, ranks: Tensor, by_torch: Callable[[Tensor], Tensor]) -> Tensor:
    """Return (sites, sets, n) counts m_i for label sets that have the same classes of the same sizes.

    Args:
        states: (sites, n, d).
        label_sets: (sets, n) classes 0 ... K - 1.
        ranks: (K,) k_i of each class; 0: the class does not exist.
        by_torch: (n, d) -> (sets, n), for sites in which too much is undecided.
    """
    sites, n, d = states.shape
    rank_of = ranks[label_sets].int().contiguous()
    codes = torch.where(rank_of > 0, label_sets, -1).int().contiguous()
    step = max(1, HELD // (n * max(d, len(label_sets) * LISTED)))
    found = torch.empty(sites, *label_sets.shape, dtype=torch.long, device=states.device)
    for start in range(0, sites, step):
        part = states[start : start + step]
        largest = torch.maximum(part.amin((1, 2)).abs(), part.amax((1, 2)).abs()).tolist()
        alike = [i for i, size in enumerate(largest) if ordinary(size)]
        alone = [[i] for i, size in enumerate(largest) if not ordinary(size)]  # these have a scale of their own
        whole = torch.ones(len(part), dtype=torch.bool, device=states.device)
        for members in [alike, *alone] if alike else alone:
            some = part if len(members) == len(part) else part[members]
            points = prepare(some.flatten(0, 1), sites=len(members), own_products=True)
            counts, whole[members] = _count(points, codes, rank_of, len(members))
            found[[start + i for i in members]] = counts
        for i in whole.nonzero()[:, 0].tolist():
            found[start + i] = by_torch(part[i])
    return found


def _count(points: Points, codes: Tensor, rank_of: Tensor, sites: int) -> tuple[Tensor, Tensor]:
    """Return (sites, sets, n) counts, and (sites,) whether a site has a row with more undecided points than listed."""
    sets, n = codes.shape
    d, device = points.centered.shape[1], codes.device
    given = points.centered.contiguous(), points.squares, codes
    group = min(SETS, triton.next_power_of_2(sets))
    block = 64 if group == 1 else 32
    grid = (triton.cdiv(n, block), triton.cdiv(sets, group), sites)
    # With eight warps nearly all of a tile stays in registers, with four the band kernel spills.
    sizes = {"BLOCK_M": block, "BLOCK_N": block, "BLOCK_D": 32 if d > 16 else 16, "GROUP": group, "num_warps": 8}
    kth = torch.empty(sites, sets, n, dtype=torch.float32, device=device)
    width = triton.next_power_of_2(max(1, int(rank_of.max())))
    with torch.cuda.device_of(kth):
        _radius_kernel[grid](*given, rank_of, kth, n, d, sets, **sizes, WIDTH=width)
    real = (rank_of > 0).expand(sites, -1, -1)
    kth = torch.where(real, kth, 0.0)
    rows = (torch.arange(sites, device=device)[:, None] * n + torch.arange(n, device=device))[:, None].expand_as(kth)
    error = points.error_bound(rows.reshape(-1), kth.view(-1)).view_as(kth)
    inner, outer = ((kth.double() + side * error).float() for side in (2, -2))
    certain, certain_same, band = (torch.empty_like(kth, dtype=torch.int32) for _ in range(3))
    listed = torch.empty(*kth.shape, LISTED, dtype=torch.int32, device=device)
    with torch.cuda.device_of(kth):
        _band_kernel[grid](
            *given, inner, outer, certain, certain_same, band, listed, n, d, sets, **sizes, LENGTH=LISTED
        )
    may_be_zero = points.norms.square()[rows] - kth.double() <= error
    unsure = real & ((band > 1) | may_be_zero)
    whole = (unsure & (band > LISTED)).flatten(1).any(1)
    counts = (certain + 1).long()
    unsure &= ~whole[:, None, None]
    place = unsure.nonzero(as_tuple=True)
    if len(place[0]):
        wanted = (rank_of.expand_as(band) - certain_same)[unsure].long()
        counts[place] += _decide(points, codes, place, listed[unsure], band[unsure], wanted)
    return torch.where(real, counts, 0), whole


def _decide(
    points: Points, codes: Tensor, place: tuple[Tensor, ...], listed: Tensor, band: Tensor, wanted: Tensor
) -> Tensor:
    """Return how many listed points of each row are strictly inside of its radius, or at distance zero.

    Args:
        points: of all sites; distances are asked for within a site only.
        codes: (sets, n).
        place: site, set and row, each (rows,).
        listed: (rows, LISTED) undecided points, of which the first `band` are there.
        band: (rows,).
        wanted: (rows,) the radius is the distance to the wanted-th of the row's class among them.
    """
    site, labels, own = place
    there = torch.arange(listed.shape[1], device=listed.device) < band[:, None]
    row, column = there.nonzero(as_tuple=True)
    other = listed[row, column].long()
    first = site[row] * codes.shape[1]
    table = torch.full(listed.shape, torch.inf, dtype=torch.float64, device=listed.device)
    table[row, column] = points.exact(first + own[row], first + other)
    of_class = torch.full_like(table, torch.inf)
    same = codes[labels[row], other] == codes[labels[row], own[row]]
    of_class[row, column] = torch.where(same, table[row, column], torch.inf)
    radius = of_class.sort(1).values.gather(1, wanted[:, None] - 1)
    return ((table < radius) | (table == 0)).sum(1)
