"""A comparison of methods as a figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hf_attn_mi.evaluation import METRICS
from hf_attn_mi.results.comparison_verdict import leaders
from hf_attn_mi.results.plots.figure import COLORS, check_figure_path, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hf_attn_mi.results.comparison import Comparison

BEST, OTHER = COLORS[0], COLORS[-1]


def plot_comparison(comparison: Comparison, path: str | Path | None = None) -> Figure:
    """Return a figure with a panel for each metric: the mean of each method with its 95 % interval.

    Methods are in the order of the table, the deciding metric first. Blue dots: the best mean of a panel and the
    methods it is not shown to beat.

    Args:
        comparison: the result of `compare`.
        path: where to write it; the suffix names the format (.png, .svg, .pdf). Equal results give equal files.

    Returns:
        The `matplotlib.figure.Figure`. No window is opened, and pyplot's list of figures is left alone.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
        InvalidInputError: the folder of `path` does not exist, or matplotlib does not know the suffix.

    Example:
        >>> figure = plot_comparison(Comparison.load("comparison.json"), "methods.png")     # doctest: +SKIP
    """
    check_figure_path(path)
    count, leading = len(comparison.metrics), {name: leaders(comparison, name) for name in comparison.metrics}
    columns = min(count, 4)
    rows = -(-count // columns)
    figure = new_figure(1.6 + 2.6 * columns, rows * (1.1 + 0.3 * len(comparison.methods)))
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    places = range(len(comparison.methods))
    for axes, metric in zip(panels, comparison.metrics):
        for place, method in zip(places, comparison.methods):
            estimate = comparison.table[method][metric]
            if estimate.mean is None:
                continue
            color = BEST if method in leading[metric] else OTHER
            axes.plot([estimate.mean], [place], "o", color=color, markersize=5)
            if estimate.interval is not None:
                axes.plot(estimate.interval, [place, place], color=color, linewidth=1.6)
        axes.set_title(metric, fontsize="medium")
        axes.set_xlabel(f"{'higher' if METRICS[metric].higher else 'lower'} is better", fontsize="small")
        axes.set_yticks(list(places), comparison.methods, parse_math=False)  # names come from the caller
        axes.grid(axis="x", alpha=0.25)
    panels[0].invert_yaxis()  # shared: the first method on top in every panel
    for axes in panels[count:]:
        axes.set_axis_off()
    model = comparison.info.get("model")
    figure.suptitle((f"{model}, " if model else "") + f"{comparison.inputs} inputs, bars: 95 %", fontsize="medium")
    save_figure(figure, path)
    return figure
