"""The heads of a model as a grid of layers and heads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.figures import (
    WIDTH,
    cell_numbers,
    figure_of,
    own_axes,
    set_title,
    share_colors,
    signed_colors,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hf_attn_mi.results.layer_attention import LayerAttention

_NUMBERED = 400  # maximum number of cells in which numbers are written
_DARK = 0.5  # a cell with at least this share is dark


def draw_heads(layers: Sequence[LayerAttention], ax: Axes | None, title: str = "") -> Figure:
    """Draw layers x heads, colored by the share of the attention that has no effect on the head's output.

    Args:
        layers: at least one; heads whose share was not computed are gray.
        ax: where to draw; None for a new figure.
        title: shown above the grid.

    Raises:
        InvalidInputError: no layers.
    """
    if not layers:
        raise InvalidInputError("there are no statistics of attention layers to draw; explain(...) keeps them.")
    heads = max(len(layer.rank) for layer in layers)
    table = [_shares(layer, heads) for layer in layers]
    ax = own_axes(ax, max(3.4, min(9.0, 1.9 + 0.36 * heads)), max(1.6, 1.1 + 0.27 * len(layers)))
    image = ax.imshow(table, vmin=0, vmax=1, cmap=share_colors(), aspect="auto")
    names = [str(layer.layer) if layer.kind == "self" else f"{layer.layer} ({layer.kind})" for layer in layers]
    _label_axes(ax, heads, names)
    if len(layers) * heads <= _NUMBERED:
        cell_numbers(ax, table, lambda x: f"{100 * x:.0f}", dark=lambda x: x > _DARK)
    bar = ax.figure.colorbar(image, ax=ax, ticks=[0, 0.5, 1], shrink=0.9)
    bar.ax.set_yticklabels(["0 %", "50 %", "100 %"])
    bar.set_label("share without effect", fontsize=8)
    bar.outline.set_visible(False)
    set_title(ax, title or "share of each head's attention without effect on its output, %")
    return figure_of(ax)


def draw_received(layer: LayerAttention, ax: Axes | None) -> Figure:
    """Draw heads x tokens, colored by the attention that each token receives."""
    heads, tokens = layer.received.shape
    ax = own_axes(ax, WIDTH, max(1.7, 1.1 + 0.25 * heads))
    scale = float(layer.received.abs().nan_to_num().max()) or 1.0
    image = ax.imshow(layer.received.tolist(), cmap=signed_colors(), vmin=-scale, vmax=scale, aspect="auto")
    image.set_clim(-scale, scale)
    ax.set_xlabel("token")
    ax.set_ylabel("head")
    ax.set_yticks(range(heads))
    set_title(ax, f"attention received, layer {layer.layer}: full color is {scale:.3g}")
    ax.set_xlim(-0.5, tokens - 0.5)
    return figure_of(ax)


def draw_counts(counts: dict[tuple[int, int], int], shape: tuple[int, int], ax: Axes | None, title: str) -> Figure:
    """Draw layers x heads, colored by the number of weights of a set that lie in each head.

    Args:
        counts: (layer, head) -> number.
        shape: numbers of layers and heads.
        ax: where to draw; None for a new figure.
        title: shown above the grid.
    """
    layers, heads = shape
    table = [[float(counts.get((layer, head), 0)) for head in range(heads)] for layer in range(layers)]
    most = max(1.0, max(map(max, table)))
    ax = own_axes(ax, max(3.4, min(9.0, 1.5 + 0.36 * heads)), max(1.6, 1.1 + 0.27 * layers))
    ax.imshow(table, vmin=-most, vmax=most, cmap=signed_colors(), aspect="auto")
    _label_axes(ax, heads, [str(layer) for layer in range(layers)])
    shown = [[x if x else math.nan for x in line] for line in table]
    cell_numbers(ax, shown, lambda x: f"{x:.0f}", dark=lambda x: x > _DARK * most)
    set_title(ax, title)
    return figure_of(ax)


def _label_axes(ax: Axes, heads: int, names: Sequence[str]) -> None:
    step = 1 if heads <= 24 else 4
    ax.set_xticks(range(0, heads, step))
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_xlabel("head")
    ax.set_ylabel("layer")


def _shares(layer: LayerAttention, heads: int) -> list[float]:
    known = layer.null_space_fraction
    values = torch.full((len(layer.rank),), math.nan) if known is None else known.double()
    return [*values.tolist(), *[math.nan] * (heads - len(values))]
