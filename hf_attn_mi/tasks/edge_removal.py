"""The kinds of removal: how an attention row changes when only some of its weights are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

ALMOST_ALL = 1e-6  # a weight above one minus this is the only one of its row


@dataclass(frozen=True, eq=False)
class RestrictedRows:
    """Rows restricted to some edges.

    Attributes:
        rows: (batch, heads, queries, keys).
        lost: the weights whose share goes to the values of another input; None if the rows say it all.
    """

    rows: Tensor
    lost: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Toggle:
    """Quantities of edges that are each, alone, added to or removed from a restricted row.

    Attributes:
        row: its entry in the restricted row.
        weight: the attention weight before the restriction.
        left: sum of the attention weights that stay in its row.
        gradient: the gradient of the followed value with respect to this entry.
        along: sum of the row times the gradients of the row.
        average: mean of the gradients over the keys of the row.
    """

    row: Tensor
    weight: Tensor
    left: Tensor
    gradient: Tensor
    along: Tensor
    average: Tensor


@dataclass(frozen=True)
class Removal:
    """A kind of removal.

    Attributes:
        restrict: takes attention rows, the entries that stay, those that are edges (both bool), and whether the rows
            sum to something else than one.
        change: takes a `Toggle` and whether the edges are taken out (else put in); gives the change of the followed
            value, to first order in the output of the row.
        needs_reference: the values of another input are needed.
    """

    restrict: Callable[[Tensor, Tensor, Tensor, bool], RestrictedRows]
    change: Callable[[Toggle, bool], Tensor]
    needs_reference: bool = False


def _renormalized(rows: Tensor, kept: Tensor, present: Tensor, sums: bool) -> RestrictedRows:
    left = rows * kept
    smallest = torch.finfo(left.dtype).tiny
    scale = left.sum(-1, keepdim=True).clamp_min(smallest)
    if sums:
        scale = scale / rows.sum(-1, keepdim=True).clamp_min(smallest)
    return RestrictedRows(left / scale)


def _renormalized_change(edge: Toggle, removed: bool) -> Tensor:
    centered = edge.gradient - edge.along
    if not removed:
        return edge.weight / (edge.left + edge.weight).clamp_min(1e-30) * centered
    alone = edge.row > 1 - ALMOST_ALL
    others = (1 - edge.row).where(~alone, torch.ones_like(edge.row))
    return torch.where(alone, -edge.along, -edge.row / others * centered)


def _missing(rows: Tensor, kept: Tensor, present: Tensor, sums: bool) -> RestrictedRows:
    return RestrictedRows(rows * kept)


def _missing_change(edge: Toggle, removed: bool) -> Tensor:
    return edge.weight * edge.gradient * (-1 if removed else 1)


def _mean(rows: Tensor, kept: Tensor, present: Tensor, sums: bool) -> RestrictedRows:
    left = rows * kept
    lost = rows.sum(-1, keepdim=True) - left.sum(-1, keepdim=True)
    return RestrictedRows(left + lost * present / present.sum(-1, keepdim=True).clamp_min(1))


def _mean_change(edge: Toggle, removed: bool) -> Tensor:
    return edge.weight * (edge.gradient - edge.average) * (-1 if removed else 1)


def _resample(rows: Tensor, kept: Tensor, present: Tensor, sums: bool) -> RestrictedRows:
    left = rows * kept
    return RestrictedRows(left, rows - left)


# renormalized: the weights that stay, scaled to the sum of the whole row; a row without any is zero.
# missing: the weights that stay, as they are.
# mean: the share of the others goes to the mean value of the row's keys.
# resample: each of the others goes to the value at the same place of another input.
REMOVALS: dict[str, Removal] = {
    "renormalized": Removal(_renormalized, _renormalized_change),
    "missing": Removal(_missing, _missing_change),
    "mean": Removal(_mean, _mean_change),
    "resample": Removal(_resample, _missing_change, needs_reference=True),
}
