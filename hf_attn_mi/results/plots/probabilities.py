"""The probabilities that prove a set: of everything, the set, the rest, and without each single part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hf_attn_mi.figures import (
    AGAINST,
    FOR,
    LINE,
    PLAIN,
    SOFT,
    WIDTH,
    figure_of,
    label,
    legend_below,
    own_axes,
    set_title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_REMOVALS = 16  # single removals that are drawn


def draw_probabilities(
    sides: Sequence[tuple[str, float | None]],
    removals: Sequence[tuple[str, float | None, float | None]],
    needed: float,
    target: str,
    ax: Axes | None,
    title: str = "",
    *,
    strict: bool = False,
) -> Figure:
    """Draw probabilities of the class as bars, and below them the set and the rest without each single part.

    Args:
        sides: (name, probability) of everything, the set, the rest, and nothing; None leaves a row out.
        removals: for each part of the set its name, the probability of the set without it, and of the rest with it.
        needed: the probability from which on a set suffices.
        target: the class.
        ax: where to draw; None for a new figure.
        title: shown above.
        strict: whether the rest has to change the prediction, and not only must not suffice.
    """
    bars = [(name, p) for name, p in sides if p is not None]
    dots = list(removals[:MOST_REMOVALS])
    count = len(bars) + len(dots)
    new = ax is None
    ax = own_axes(ax, WIDTH, 1.25 + 0.23 * max(3, count))
    colors = [FOR if name.startswith("the set") else PLAIN for name, _ in bars]
    ax.barh(range(len(bars)), [p for _, p in bars], color=colors, height=0.68)
    for place, (_, p) in enumerate(bars):
        ax.annotate(f"{p:.3f}", (p, place), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7.5)
    for place, (_, p_set, p_rest) in enumerate(dots, len(bars)):
        ax.axhline(place, color=LINE, linewidth=0.6, zorder=0)
        if p_set is not None:
            ax.plot([p_set], [place], "o", color=FOR, markersize=5)
        if p_rest is not None:
            ax.plot([p_rest], [place], "D", color=AGAINST, markersize=4.5, fillstyle="none", markeredgewidth=1.4)
    ax.axvline(needed, color=SOFT, linestyle="--", linewidth=1)
    names = [label(name, 30) for name, _ in bars] + [f"without {label(name, 22)}" for name, *_ in dots]
    ax.set_yticks(range(count), names)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(count - 0.4, -0.6)
    ax.set_xlim(0, 1.08)
    ax.set_xlabel(f"probability of {label(target)}")
    ax.plot([], [], color=SOFT, linestyle="--", linewidth=1, label=f"a set suffices from {needed:.3f} on")
    if dots:
        rest: Any = {"markersize": 4.5, "fillstyle": "none", "markeredgewidth": 1.4}
        ax.plot([], [], "o", color=FOR, markersize=5, label="the set without it")
        ax.plot([], [], "D", color=AGAINST, label="the rest with it" + strict * ", which must change the class", **rest)
    legend_below(ax, new, 2 if strict and dots else 3)
    more = len(removals) - len(dots)
    set_title(ax, title + (f"; {more} more removals are not shown" if more else ""))
    return figure_of(ax)
