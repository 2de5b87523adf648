"""A comparison of methods as a figure."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation import METRICS
from hf_attn_mi.figures import (
    FOR,
    PLAIN,
    cell_numbers,
    draw,
    figure_of,
    label,
    own_axes,
    panels,
    signed_colors,
)
from hf_attn_mi.results.comparison_verdict import leaders

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hf_attn_mi.results.comparison import Comparison

BEST, OTHER = FOR, PLAIN
COLUMNS = 2  # panels side by side, so that a figure stays readable at 6 inches
DARK = 0.6  # correlation from which on a cell is dark


def plot_comparison(comparison: Comparison, path: str | Path | None = None, *, ax: Axes | None = None) -> Figure:
    """Return a figure with a panel for each metric: the mean of each method with its 95 % interval.

    Methods are in the order of the table, the deciding metric first. Blue dots: the best mean of a panel and the
    methods it is not shown to beat.

    Args:
        comparison: the result of `compare`.
        path: where to write it; the suffix names the format (.png, .svg, .pdf). Equal results give equal files.
        ax: matplotlib Axes to draw in; None for those of a new figure.

    Returns:
        The `matplotlib.figure.Figure`. No window is opened, and pyplot's list of figures is left alone.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
        InvalidInputError: the folder of `path` does not exist, or matplotlib does not know the suffix.

    Example:
        >>> figure = plot_comparison(Comparison.load("comparison.json"), "methods.png")     # doctest: +SKIP
    """
    return draw({"metrics": lambda ax: draw_metrics(comparison, ax)}, comparison.NOUN, path, None, ax)


def draw_metrics(comparison: Comparison, ax: Axes | None) -> Figure:
    """Draw a panel for each metric; see `plot_comparison`."""
    count, methods = len(comparison.metrics), comparison.methods
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    width = 6.0 if columns == 1 else 1.5 + 2.4 * columns
    axes = panels(ax, rows, columns, width, 0.4 + rows * (0.95 + 0.24 * len(methods)))
    for place, (one, metric) in enumerate(zip(axes, comparison.metrics)):
        _draw_metric(one, comparison, metric, first=place % columns == 0)
    for one in axes[count:]:
        one.set_axis_off()
    model = comparison.info.get("model")
    title = label((f"{model}, " if model else "") + f"{comparison.inputs} inputs, bars: 95 %", 90)
    figure = figure_of(axes[0])
    if ax is None:
        figure.suptitle(title, fontsize=9.5)
    else:
        ax.set_title(title)
    return figure


def _draw_metric(ax: Axes, comparison: Comparison, metric: str, *, first: bool) -> None:
    leading, places = leaders(comparison, metric), range(len(comparison.methods))
    ax.axvline(0, color=PLAIN, linewidth=0.9)
    for place, method in zip(places, comparison.methods):
        estimate = comparison.table[method][metric]
        if estimate.mean is None:
            ax.annotate("undefined", (0, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7)
            continue
        color = BEST if method in leading else OTHER
        ax.plot([estimate.mean], [place], "o", color=color, markersize=5)
        if estimate.interval is not None:
            ax.plot(estimate.interval, [place, place], color=color, linewidth=1.6)
    ax.set_title(metric)
    ax.set_xlabel(f"mean, {'higher' if METRICS[metric].higher else 'lower'} is better", fontsize=8)
    ax.set_yticks(list(places), [label(name) if first else "" for name in comparison.methods])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(comparison.methods) - 0.5, -0.5)
    ax.margins(x=0.08)
    ax.grid(axis="x", alpha=0.25)
    if first:
        ax.set_ylabel("method")


def draw_agreement(comparison: Comparison, ax: Axes | None) -> Figure:
    """Draw the mean rank correlation (tau-b) of the scores of each two methods.

    Raises:
        InvalidInputError: the comparison holds no rank correlations.
    """
    names = comparison.agreement.methods
    if not names:
        raise InvalidInputError("kind='agreement': this comparison holds no rank correlations of scores.")
    table = [[math.nan if one.mean is None else one.mean for one in row] for row in comparison.agreement.tau]
    ax = own_axes(ax, max(3.6, 2.0 + 0.42 * len(names)), max(2.6, 1.5 + 0.36 * len(names)))
    ax.imshow(table, cmap=signed_colors(), vmin=-1, vmax=1)
    cell_numbers(ax, table, lambda x: f"{x:.2f}".replace("-", "−"), dark=lambda x: abs(x) > DARK)
    ax.set_xticks(range(len(names)), [label(name) for name in names], rotation=45, ha="right")
    ax.set_yticks(range(len(names)), [label(name) for name in names])
    ax.tick_params(length=0)
    ax.set_title("rank correlation of the scores (tau-b)")
    return figure_of(ax)
