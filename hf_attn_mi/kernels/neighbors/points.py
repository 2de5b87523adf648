"""Points prepared for tiles of distances, with a bound on the rounding error, and exact distances of chosen pairs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

WIDEST = 8192  # from here on products in float32 are not exact enough to decide much
NORM_ROWS = 128  # squares in float64 held at a time
PAIR_ELEMENTS = 2**21  # float64 differences held at a time
DEDUPLICATE_FROM = 8  # pairs a point, from which equal points are looked for


@dataclass(frozen=True, eq=False)
class Points:
    """Points centered, and scaled by a power of two where squares would overflow: distances keep their order."""

    given: Tensor  # (n, d) as they came
    scale: float  # the power of two; 1 where entries are neither huge nor tiny
    centered: Tensor  # (n, d) float32, or float64 where products in float32 are not exact enough
    squares: Tensor  # (n,) squared norms, dtype of `centered`
    norms: Tensor  # (n,) float64
    slack: float  # c of the error bound c (|x_i|^2 + |x_j|^2)

    def tile_memory(self, rows: int) -> Tensor:
        """Return memory for tiles of this many rows: fresh memory for each tile would cost as much as its passes."""
        return self.centered.new_empty(min(rows, len(self.given)), len(self.given))

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
        norm = self.norms[rows]
        radius = (norm.square() - proximity.double()).clamp_min(0)
        reach = (2 * radius + 20 * self.slack * norm.square()).sqrt()
        bound = self.slack * (norm.square() + (norm + reach).square())
        rounding = 2 * torch.finfo(self.centered.dtype).eps * proximity.double().abs()  # thresholds are rounded, too
        return 1.01 * bound + rounding + 4 * (self.given.shape[1] + 16) * torch.finfo(torch.float32).tiny

    def exact(self, left: Tensor, right: Tensor) -> Tensor:
        """Return (pairs,) squared distances in float64 from the differences: no cancellation.

        Equal points are looked for where there are many pairs, so that the pairs of, say, two token embeddings that
        fill a site are computed once.

        Args:
            left: (pairs,) indices.
            right: (pairs,) indices.
        """
        if len(left) < DEDUPLICATE_FROM * len(self.given):
            return self._exact(left, right)
        first, group = self.equal_points
        codes, back = torch.unique(group[left] * len(first) + group[right], return_inverse=True)
        return self._exact(first[codes // len(first)], first[codes % len(first)])[back]

    @cached_property
    def equal_points(self) -> tuple[Tensor, Tensor]:
        """The first index of each group of equal points and the group of each point."""
        unique, group = torch.unique(self.given, dim=0, return_inverse=True)
        place = torch.arange(len(group), device=group.device)
        first = torch.full((len(unique),), len(group), device=group.device).scatter_reduce(0, group, place, "amin")
        return first, group

    def _exact(self, left: Tensor, right: Tensor) -> Tensor:
        found = torch.empty(len(left), dtype=torch.float64, device=left.device)
        step = max(1, PAIR_ELEMENTS // self.given.shape[1])
        for start in range(0, len(left), step):
            part = slice(start, start + step)
            apart = self.given[left[part]].double() - self.given[right[part]].double()
            found[part] = (apart * self.scale).square().sum(1)
        return found


def ordinary(largest: float) -> bool:
    """Return whether squares of entries up to this size neither overflow nor vanish in float32.

    Example:
        >>> ordinary(3.0), ordinary(0.0), ordinary(1e30)
        (True, True, False)
    """
    return largest == 0 or 2.0**-20 < largest < 2.0**20


def prepare(
    states: Tensor, dtype: torch.dtype = torch.float32, *, sites: int = 1, own_products: bool = False
) -> Points:
    """Return the points of one site, or of several whose entries are all `ordinary`, for products in `dtype`.

    The error bound: centring rounds each entry once, which moves a squared distance by at most 4 u (|x|^2 + |y|^2); the
    matrix product errs by at most 2 (d + 1) u |x| |y| in any order of summation, and the rest is a few roundings.

    Args:
        states: (n, d), finite; (sites * n, d), site after site, each centered alone.
        dtype: float64 is chosen in place of float32 where that is not exact enough: very wide points, or a user who
            allows TF32 or bfloat16 inside float32 products.
        sites: how many.
        own_products: the products are those of a kernel that is always exact to float32, whatever the user allows.
    """
    d = states.shape[1]
    low, high = states.aminmax()
    largest = torch.maximum(low.abs(), high.abs()).double()
    scale = 1.0
    if not ordinary(float(largest)):
        scale = 2.0 ** -max(int(torch.frexp(largest).exponent), -1000)
    if (torch.get_float32_matmul_precision() != "highest" and not own_products) or d >= WIDEST:
        dtype = torch.float64
    double = scale != 1.0 or torch.float64 in (dtype, states.dtype)
    wide = states.double() if double else states.float()
    scaled = wide if scale == 1.0 else wide * scale
    apart = scaled.view(sites, -1, d)
    centered = (apart - apart.mean(1, keepdim=True)).to(dtype).view(-1, d)  # any center will do
    step = NORM_ROWS if states.device.type == "cpu" else max(NORM_ROWS, PAIR_ELEMENTS // d)
    norms = torch.cat([rows.double().square().sum(1) for rows in centered.split(step)]).sqrt()  # type: ignore[no-untyped-call]
    unit = torch.finfo(dtype).eps / 2
    return Points(states, scale, centered, norms.square().to(dtype), norms, (d + 16) * unit)
