"""Neighbor counts in Triton: tiles of distances that never leave the chip, all sites at once.

Two kernels over the tiles of X X^T. Radius: each row keeps its k nearest points of its class. Band: each row counts the
points that are certainly nearer than its radius and lists those for which the error bound of float32 decides nothing.
The listed ones are compared in float64, as in PyTorch; a site with a list that is too long is counted by PyTorch as a
whole, so that the counts are the same, always.

Products are full float32, not TF32: the error bound is that of float32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hf_attn_mi.kernels.neighbors.torch import Points, count_torch, ordinary, prepare

LISTED = 32  # undecided points of a row: more of them than this are duplicates or an outlier's rounding
HELD = 2**26  # numbers held at a time, of points or of lists


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
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Proximity of the k-th nearest other point of the class, one program for BLOCK_M rows."""
    site = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    row_codes = tl.load(codes + rows, mask=rows < n, other=-1)  # -1: no such point
    rank = tl.load(ranks + rows, mask=rows < n, other=0)
    places = tl.arange(0, WIDTH)
    # The k nearest so far, in any order; places beyond a row's own k hold infinity and are never replaced.
    nearest = tl.where(places[None, :] < rank[:, None], -float("inf"), float("inf"))
    kth = tl.min(nearest, 1)
    for start in range(0, n, BLOCK_N):
        cols = start + tl.arange(0, BLOCK_N).to(tl.int64)
        tile = _proximity(points + site * n * d, squares + site * n, rows, cols, n, d, BLOCK_M, BLOCK_N, BLOCK_D)
        code = tl.load(codes + cols, mask=cols < n, other=-2)
        same = (row_codes[:, None] == code[None, :]) & (rows[:, None] != cols[None, :])
        left = tl.where(same, tile, -float("inf"))
        best = tl.max(left, 1)
        while tl.max((best > kth).to(tl.int32)) > 0:
            at = tl.argmax(left, 1)
            left = tl.where(tl.arange(0, BLOCK_N)[None, :] == at[:, None], -float("inf"), left)
            farthest = tl.argmin(nearest, 1)
            taken = (places[None, :] == farthest[:, None]) & (best > kth)[:, None]
            nearest = tl.where(taken, best[:, None], nearest)
            kth = tl.min(nearest, 1)
            best = tl.max(left, 1)
    tl.store(kth_out + site * n + rows, kth, mask=rows < n)


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
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    LENGTH: tl.constexpr,
):
    """Points certainly inside of the radius, those of the class among them, and a list of the undecided ones."""
    site = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    row_in = rows < n
    row_codes = tl.load(codes + rows, mask=row_in, other=-1)
    out_place = site * n + rows
    inner = tl.load(inner_in + out_place, mask=row_in, other=0.0)
    outer = tl.load(outer_in + out_place, mask=row_in, other=0.0)
    certain = tl.zeros([BLOCK_M], tl.int32)
    certain_same = tl.zeros([BLOCK_M], tl.int32)
    band = tl.zeros([BLOCK_M], tl.int32)
    for start in range(0, n, BLOCK_N):
        cols = start + tl.arange(0, BLOCK_N).to(tl.int64)
        tile = _proximity(points + site * n * d, squares + site * n, rows, cols, n, d, BLOCK_M, BLOCK_N, BLOCK_D)
        code = tl.load(codes + cols, mask=cols < n, other=-1)
        counts = (row_codes >= 0)[:, None] & (code >= 0)[None, :] & (rows[:, None] != cols[None, :])
        inside = counts & (tile > inner[:, None])
        certain += tl.sum(inside.to(tl.int32), 1)
        certain_same += tl.sum((inside & (row_codes[:, None] == code[None, :])).to(tl.int32), 1)
        undecided = counts & (tile >= outer[:, None]) & (tile <= inner[:, None])
        flags = undecided.to(tl.int32)
        at = band[:, None] + tl.cumsum(flags, 1) - 1
        names = tl.zeros([BLOCK_M, BLOCK_N], tl.int32) + cols[None, :].to(tl.int32)
        tl.store(listed_out + out_place[:, None] * LENGTH + at, names, mask=undecided & (at < LENGTH))
        band += tl.sum(flags, 1)
    tl.store(certain_out + out_place, certain, mask=row_in)
    tl.store(same_out + out_place, certain_same, mask=row_in)
    tl.store(band_out + out_place, band, mask=row_in)


def count_triton(states: Tensor, codes: Tensor, ranks: Tensor) -> Tensor:
    """Return (sites, n) counts m_i, on CUDA or interpreted.

    Args:
        states: (sites, n, d).
        codes: (n,) classes 0 ... K - 1.
        ranks: (K,) k_i of each class; 0: the class does not exist.
    """
    sites, n, d = states.shape
    rank_of = ranks[codes].int().contiguous()
    existing = torch.where(rank_of > 0, codes, -1).int().contiguous()
    step = max(1, HELD // (n * max(d, LISTED)))
    counts = torch.empty(sites, n, dtype=torch.long, device=states.device)
    for start in range(0, sites, step):
        part = states[start : start + step]
        largest = torch.maximum(part.amin((1, 2)).abs(), part.amax((1, 2)).abs()).tolist()
        alike = [i for i, size in enumerate(largest) if ordinary(size)]
        alone = [[i] for i, size in enumerate(largest) if not ordinary(size)]  # each of these is scaled by itself
        open_sites = torch.ones(len(part), dtype=torch.bool, device=states.device)
        for members in [alike, *alone] if alike else alone:
            some = part if len(members) == len(part) else part[members]
            points = prepare(some.flatten(0, 1), sites=len(members), own_products=True)
            counts[[start + i for i in members]], open_sites[members] = _count(points, existing, rank_of, len(members))
        for i in open_sites.nonzero()[:, 0].tolist():
            counts[start + i] = count_torch(part[i : i + 1], codes, ranks)[0]
    return counts


def _count(points: Points, codes: Tensor, rank_of: Tensor, sites: int) -> tuple[Tensor, Tensor]:
    """Return (sites, n) counts, and (sites,) whether a site has a row with more undecided points than listed."""
    n, d, device = len(codes), points.centered.shape[1], codes.device
    arguments = points.centered.contiguous(), points.squares, codes
    grid = (triton.cdiv(n, 64), sites)
    # With eight warps nearly all of a tile stays in registers, with four the band kernel spills.
    sizes = {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_D": 32 if d > 16 else 16, "num_warps": 8}
    kth = torch.empty(sites, n, dtype=torch.float32, device=device)
    width = triton.next_power_of_2(max(1, int(rank_of.max())))
    with torch.cuda.device_of(kth):
        _radius_kernel[grid](*arguments, rank_of, kth, n, d, **sizes, WIDTH=width)
    real = (rank_of > 0).expand(sites, -1)
    kth = torch.where(real, kth, 0.0)
    rows = torch.arange(sites * n, device=device).view(sites, n)
    error = points.error_bound(rows.view(-1), kth.view(-1)).view_as(kth)
    inner, outer = ((kth.double() + side * error).float() for side in (2, -2))
    certain, certain_same, band = (torch.empty_like(kth, dtype=torch.int32) for _ in range(3))
    listed = torch.empty(sites, n, LISTED, dtype=torch.int32, device=device)
    with torch.cuda.device_of(kth):
        _band_kernel[grid](*arguments, inner, outer, certain, certain_same, band, listed, n, d, **sizes, LENGTH=LISTED)
    may_be_zero = points.norms.square()[rows] - kth.double() <= error
    unsure = real & ((band > 1) | may_be_zero)
    open_sites = (unsure & (band > LISTED)).any(1)
    counts = (certain + 1).long()
    unsure &= ~open_sites[:, None]
    if bool(unsure.any()):
        place = (rank_of.expand_as(band) - certain_same)[unsure].long()
        counts[unsure] += _decide(points, codes, rows[unsure], listed[unsure], band[unsure], place)
    return torch.where(real, counts, 0), open_sites


def _decide(points: Points, codes: Tensor, row_codes: Tensor, listed: Tensor, band: Tensor, place: Tensor) -> Tensor:
    """Return how many listed points of each row are strictly inside of its radius, or at distance zero.

    Args:
        points: the points of all sites; distances are computed within a site only.
        codes: (n,).
        row_codes: (rows,) the row's point among those of all sites.
        listed: (rows, LISTED) undecided points of the site, of which the first `band` are there.
        band: (rows,).
        place: (rows,) the radius is the distance to the point of the row's class with this place among them, from 1.
    """
    n = len(codes)
    row, column = (torch.arange(listed.shape[1], device=listed.device) < band[:, None]).nonzero(as_tuple=True)
    other = listed[row, column].long()
    table = torch.full(listed.shape, torch.inf, dtype=torch.float64, device=listed.device)
    table[row, column] = points.exact(row_codes[row], row_codes[row] // n * n + other)
    of_class = torch.full_like(table, torch.inf)
    of_class[row, column] = torch.where(codes[other] == codes[row_codes[row] % n], table[row, column], torch.inf)
    radius = of_class.sort(1).values.gather(1, place[:, None] - 1)
    return ((table < radius) | (table == 0)).sum(1)
