"""Attention matrices of one head, side by side on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.figures import WIDTH, figure_of, label, panels, set_title, signed_colors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hf_attn_mi.results.attention_maps import AttentionMaps

MOST_NAMED = 36  # tokens that are named along the axes
_LONGEST = 11


def draw_matrices(
    matrices: Sequence[tuple[str, Tensor]],
    queries: Sequence[str],
    keys: Sequence[str],
    ax: Axes | None,
    title: str = "",
) -> Figure:
    """Draw (queries, keys) weights of several kinds side by side; blue is above zero, orange below.

    One scale for all: full color is the largest absolute weight of all of them, and color grows with the square root,
    so that small weights can be seen.

    Args:
        matrices: (name, weights) of each panel.
        queries: a name for each row.
        keys: a name for each column.
        ax: where to draw; None for a new figure.
        title: shown above the panels.
    """
    count = len(matrices)
    scale = max(float(weights.abs().nan_to_num().max()) for _, weights in matrices) or 1.0
    named = max(len(queries), len(keys)) <= MOST_NAMED
    width = WIDTH + 0.6 if count > 1 else 4.6
    side = (width - 1.1) / count
    height = max(1.9, side * min(1.0, len(queries) / max(1, len(keys))) + (1.35 if named else 0.85))
    axes = panels(ax, 1, count, width, height)
    image = None
    for place, (one, (name, weights)) in enumerate(zip(axes, matrices)):
        image = one.imshow(weights.double().tolist(), cmap=signed_colors(), norm=_root_scale(scale), aspect="auto")
        one.set_title(label(name))
        _name_axes(one, queries, keys, named, place == 0)
    assert image is not None
    figure = figure_of(axes[0])
    bar = figure.colorbar(image, ax=axes if ax is None else ax, shrink=0.8, pad=0.02, ticks=[-scale, 0, scale])
    lowest = min(float(weights.nan_to_num().min()) for _, weights in matrices)
    bar.ax.set_yticklabels([f"−{scale:.2g}", "0", f"{scale:.2g}"])
    bar.ax.set_ylim(-scale if lowest < 0 else 0, scale)
    bar.set_label("weight", fontsize=8)
    bar.outline.set_visible(False)
    if title and ax is None:
        figure.suptitle(label(title, 90), fontsize=9.5)
    elif title and ax is not None:
        set_title(ax, title)
    return figure


def draw_maps(maps: Sequence[AttentionMaps], layer: int | None, head: int | None, ax: Axes | None) -> Figure:
    """Draw the same head of attention maps of one input side by side, each under its kind.

    Args:
        maps: attention maps of the same tokens.
        layer, head: None for the first one that was kept.
        ax: where to draw; None for a new figure.

    Raises:
        InvalidInputError: maps of different inputs; a layer or head that was not kept.
    """
    first = maps[0]
    if any(one.tokens != first.tokens for one in maps):
        raise InvalidInputError("the attention maps are of different inputs; only those of one input share a scale.")
    matrices = [(one.kind, one.matrix(layer, head)) for one in maps]
    shown_layer, shown_head = first.layers[0] if layer is None else layer, first.heads[0] if head is None else head
    title = f"layer {shown_layer}, head {shown_head}; full color is the largest weight"
    return draw_matrices(matrices, first.tokens, first.tokens, ax, title)


def _root_scale(scale: float) -> Any:
    from matplotlib.colors import FuncNorm

    def root(x: Any) -> Any:
        values = torch.as_tensor(x, dtype=torch.float64)
        return (values.sign() * values.abs().sqrt()).numpy()

    def square(x: Any) -> Any:
        values = torch.as_tensor(x, dtype=torch.float64)
        return (values.sign() * values.square()).numpy()

    return FuncNorm((root, square), vmin=-scale, vmax=scale)


def _name_axes(ax: Axes, queries: Sequence[str], keys: Sequence[str], named: bool, first: bool) -> None:
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(True)
        spine.set_linewidth(0.5)
    if named:
        ax.set_xticks(range(len(keys)), [label(key, _LONGEST) for key in keys], rotation=90, fontsize=7)
        ax.set_yticks(range(len(queries)), [label(query, _LONGEST) if first else "" for query in queries], fontsize=7)
    else:
        ax.set_xlabel(f"key, of {len(keys)}")
    if first:
        ax.set_ylabel("query")
    if named:
        ax.set_xlabel("key")
