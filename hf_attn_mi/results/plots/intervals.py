"""Identifiable weights as figures: the intervals of a row, and the share of heads by layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from hf_attn_mi.attention import IdentifiableWeights
from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.results.plots.figure import COLORS, check_figure_path, new_figure, save_figure

KINDS = {  # what is drawn in which color (Okabe and Ito 2008)
    "identifiable": "#009e73",
    "forced, not identifiable": "#e69f00",
    "not identifiable": "#999999",
}
_NUMBERED = 400  # maximum number of cells in which numbers are written


def plot_intervals(
    weights: IdentifiableWeights,
    path: str | Path | None = None,
    *,
    row: tuple[int, ...] = (0,),
    names: Sequence[str] | None = None,
    most: int = 60,
    axes: Any = None,
) -> Any:
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
        axes: matplotlib axes to draw in instead of those of a new figure.

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
    check_figure_path(path)
    _check(weights, row, names, most)
    keys = weights.allowed[row].nonzero()[:, 0]
    keys = keys[weights.attention[row][keys].argsort(descending=True, stable=True)[:most]].sort().values
    visible, kinds = int(weights.allowed[row].sum()), _kinds(weights, row)
    axes = new_figure(max(6.4, 1.5 + 0.17 * len(keys)), 4.2).subplots() if axes is None else axes
    for kind, color in KINDS.items():
        places = [place for place, key in enumerate(keys.tolist()) if kinds[key] == kind]
        ends = (end[row][keys[places]].tolist() for end in (weights.lower, weights.upper))
        label = f"{kind}: {kinds.count(kind)} of {visible} weights"
        axes.vlines(places, *ends, color=color, linewidth=4, alpha=0.8, label=label)
    places = list(range(len(keys)))
    attention, efficient = (rows[row][keys].tolist() for rows in (weights.attention, weights.efficient))
    axes.plot(places, attention, "o", color="black", markersize=3.5, label="the model's own weight")
    axes.plot(places, efficient, "o", color=COLORS[0], fillstyle="none", markersize=7, label="efficient attention")
    labels = [str(key) if names is None else str(names[key]) for key in weights.keys[keys].tolist()]
    # A dollar sign would begin a formula.
    axes.set_xticks(places, [label.replace("$", r"\$") for label in labels], rotation=90, fontsize="x-small")
    axes.set_ylim(-0.02, 1.3 * float(weights.upper[row][keys].max()) + 0.02 if len(keys) else 1.0)  # the legend above
    axes.set_xlabel("key" if len(keys) == visible else f"{len(keys)} keys of the largest weights")
    axes.set_ylabel("weight")
    title = f"weights with the same head output; identifiable: at most {weights.width:g} wide"
    axes.set_title(title, fontsize="medium")
    axes.grid(alpha=0.25, axis="y")
    axes.legend(fontsize="x-small", ncols=2, loc="upper center")
    save_figure(axes.figure, path)
    return axes.figure


def plot_identifiable(shares: Tensor, path: str | Path | None = None, *, title: str = "", axes: Any = None) -> Any:
    """Return the map of the share of identifiable weights, heads by layers.

    Args:
        shares: (layers, heads) from 0 to 1, such as `identifiable_weights(...).share` of each layer, stacked; NaN
            cells stay empty.
        path: as in `plot_intervals`.
        title: shown above the map, instead of the default title.
        axes: as in `plot_intervals`.

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
    check_figure_path(path)
    table = shares.detach().double().cpu()
    inside = table[~table.isnan()]
    if table.dim() != 2 or table.numel() == 0 or bool(((inside < 0) | (inside > 1)).any()):
        raise InvalidInputError(f"shares must be (layers, heads) of numbers from 0 to 1, not {tuple(shares.shape)}")
    layers, heads = table.shape
    axes = new_figure(max(4.0, 1.8 + 0.45 * heads), max(2.4, 1.2 + 0.42 * layers)).subplots() if axes is None else axes
    image = axes.imshow(table.tolist(), vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axes.figure.colorbar(image, ax=axes, label="share of identifiable weights")
    axes.set_xticks(range(heads))
    axes.set_yticks(range(layers))
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    axes.set_title(title or "weights that the head's output determines", fontsize="medium")
    for layer, line in enumerate(table.tolist()):
        for head, share in enumerate(line if layers * heads <= _NUMBERED else []):
            if not math.isnan(share):
                color = "black" if share > 0.6 else "white"
                axes.text(head, layer, f"{share:.2f}", ha="center", va="center", fontsize="x-small", color=color)
    save_figure(axes.figure, path)
    return axes.figure


def _check(weights: IdentifiableWeights, row: tuple[int, ...], names: Sequence[str] | None, most: int) -> None:
    shape = tuple(weights.attention.shape[:-1])
    if len(row) != len(shape) or not all(0 <= i < size for i, size in zip(row, shape)):
        raise InvalidInputError(f"row is {row}: it must hold an index for each of the dimensions {shape}")
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
