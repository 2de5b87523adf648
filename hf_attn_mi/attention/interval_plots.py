"""Identifiable weights as figures: the intervals of a row, and the share of heads by layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.figures import COLORS, cell_numbers, draw, figure_of, label, own_axes, set_title, share_colors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hf_attn_mi.attention.intervals import IdentifiableWeights

KINDS = {  # what is drawn in which color (Okabe and Ito 2008)
    "identifiable": "#009e73",
    "forced, not identifiable": "#e69f00",
    "not identifiable": "#999999",
}
_NUMBERED = 400  # maximum number of cells in which numbers are written
_DARK = 0.5  # a cell with at least this share is dark


def plot_intervals(
    weights: IdentifiableWeights,
    path: str | Path | None = None,
    *,
    row: tuple[int, ...] = (0,),
    names: Sequence[str] | None = None,
    most: int = 60,
    ax: Axes | None = None,
) -> Figure:
    """Return the figure of one row: for each key its interval, the model's own weight and the efficient row's weight.

    Bars are [min b_j, max b_j] over all distributions with the row's output. Green: at most `weights.width` wide, so
    that the output determines the weight; orange: wider but above zero, so that every such distribution uses the key;
    gray: all others.

    Args:
        weights: the result of `identifiable_weights`.
        path: where to write it; the suffix names the format (.png, .svg, .pdf). Equal results give equal files.
        row: the index of the query, preceded by the indices of the leading dimensions.
        names: a name for each key of the input, such as its tokens; None for numbers.
        most: the maximum number of keys to draw, those with the largest weights in the model.
        ax: matplotlib Axes to draw in; None for those of a new figure.

    Returns:
        The `matplotlib.figure.Figure`. No window is opened, and pyplot's list of figures is left alone.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
        InvalidInputError: a row that does not exist, names that do not fit, or a path that cannot be written.

    Example:
        >>> import torch
        >>> from hf_attn_mi.attention import identifiable_weights
        >>> weights = identifiable_weights(torch.tensor([[0.2, 0.5, 0.3]]), torch.tensor([[0.0], [1.0], [2.0]]))
        >>> plot_intervals(weights, names=["a", "b", "c"]).axes[0].get_ylabel()
        'weight'
    """
    _check(weights, row, names, most)
    return draw({"intervals": lambda ax: _intervals(weights, row, names, most, ax)}, "row of weights", path, None, ax)


def _intervals(
    weights: IdentifiableWeights, row: tuple[int, ...], names: Sequence[str] | None, most: int, ax: Axes | None
) -> Figure:
    keys = weights.allowed[row].nonzero()[:, 0]
    keys = keys[weights.attention[row][keys].argsort(descending=True, stable=True)[:most]].sort().values
    visible, kinds = int(weights.allowed[row].sum()), _kinds(weights, row)
    ax = own_axes(ax, max(6.0, 1.5 + 0.17 * len(keys)), 3.8)
    for kind, color in KINDS.items():
        places = [place for place, key in enumerate(keys.tolist()) if kinds[key] == kind]
        ends = (end[row][keys[places]].tolist() for end in (weights.lower, weights.upper))
        text = f"{kind}: {kinds.count(kind)} of {visible} weights"
        ax.vlines(places, *ends, color=color, linewidth=5, alpha=0.8, label=text)
    places = list(range(len(keys)))
    attention, efficient = (rows[row][keys].tolist() for rows in (weights.attention, weights.efficient))
    ax.plot(places, attention, "o", color="black", markersize=3.5, label="the model's own weight")
    ax.plot(places, efficient, "o", color=COLORS[0], fillstyle="none", markersize=7, label="efficient attention")
    labels = [str(key) if names is None else str(names[key]) for key in weights.keys[keys].tolist()]
    ax.set_xticks(places, [label(name) for name in labels], rotation=90, fontsize="small")
    ax.set_ylim(-0.02, 1.35 * float(weights.upper[row][keys].max()) + 0.02 if len(keys) else 1.0)  # the legend above
    ax.set_xlabel("key" if len(keys) == visible else f"{len(keys)} keys of the largest weights")
    ax.set_ylabel("weight")
    set_title(ax, f"where each weight can lie with the same head output; identifiable: at most {weights.width:g} wide")
    ax.grid(alpha=0.25, axis="y")
    ax.legend(fontsize="small", ncols=2, loc="upper center")
    return figure_of(ax)


def plot_identifiable(
    shares: Tensor, path: str | Path | None = None, *, title: str = "", ax: Axes | None = None
) -> Figure:
    """Return the map of the share of identifiable weights, heads by layers.

    Args:
        shares: (layers, heads) from 0 to 1, such as `identifiable_weights(...).share` of each layer, stacked; NaN
            cells stay empty.
        path: as in `plot_intervals`.
        title: shown above the map, instead of the default title.
        ax: as in `plot_intervals`.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
        InvalidInputError: shares of another shape or range, or a path that cannot be written.

    Example:
        >>> import torch
        >>> plot_identifiable(torch.tensor([[1.0, 0.2], [0.4, 0.9]])).axes[0].get_xlabel()
        'head'
    """
    table = shares.detach().double().cpu()
    inside = table[~table.isnan()]
    if table.dim() != 2 or table.numel() == 0 or bool(((inside < 0) | (inside > 1)).any()):
        raise InvalidInputError(f"shares must be (layers, heads) of numbers from 0 to 1, not {tuple(shares.shape)}")
    return draw({"shares": lambda ax: _identifiable(table, title, ax)}, "map of shares", path, None, ax)


def _identifiable(table: Tensor, title: str, ax: Axes | None) -> Figure:
    layers, heads = table.shape
    ax = own_axes(ax, max(4.0, min(9.0, 1.8 + 0.4 * heads)), max(2.2, 1.1 + 0.34 * layers))
    image = ax.imshow(table.tolist(), vmin=0, vmax=1, cmap=share_colors(), aspect="auto")
    ax.figure.colorbar(image, ax=ax, label="share of identifiable weights")
    ax.set_xticks(range(heads))
    ax.set_yticks(range(layers))
    ax.tick_params(length=0)
    ax.set_xlabel("head")
    ax.set_ylabel("layer")
    set_title(ax, title or "weights that the head's output determines", 60)
    if layers * heads <= _NUMBERED:
        known = [[x if not math.isnan(x) else math.nan for x in line] for line in table.tolist()]
        cell_numbers(ax, known, lambda x: f"{x:.2f}", dark=lambda x: x > _DARK, missing="")
    return figure_of(ax)


def _check(weights: IdentifiableWeights, row: tuple[int, ...], names: Sequence[str] | None, most: int) -> None:
    shape = tuple(weights.attention.shape[:-1])
    whole = isinstance(row, tuple | list) and all(isinstance(i, int) and not isinstance(i, bool) for i in row)
    if not whole or len(row) != len(shape) or not all(0 <= i < size for i, size in zip(row, shape)):
        raise InvalidInputError(f"row is {shown(row)}: it must hold an index for each of the dimensions {shape}")
    if names is not None and len(names) != weights.count:
        raise InvalidInputError(f"names has {len(names)} entries for {weights.count} keys")
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise InvalidInputError(f"most must be a whole number of 1 or more, not {shown(most)}")


def _kinds(weights: IdentifiableWeights, row: tuple[int, ...]) -> list[str]:
    """The kind of each key of a row, "" for keys that the row may not attend to."""
    identifiable, forced, other = KINDS
    flags = (part[row].tolist() for part in (weights.identifiable, weights.forced, weights.allowed))
    return [
        "" if not allowed else identifiable if is_identifiable else forced if is_forced else other
        for is_identifiable, is_forced, allowed in zip(*flags)
    ]
