"""The words of a summary of a data set as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hf_attn_mi.figures import AGAINST, FOR, LINE, PLAIN, figure_of, label, own_axes, panels, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hf_attn_mi.results.corpus_summary import CorpusSummary

MOST = 15  # words of a panel


def draw_class_words(summary: CorpusSummary, ax: Axes | None) -> Figure:
    """Draw a panel for each class: the words with the largest mean contribution, with 95 % intervals.

    Args:
        summary: with words.
        ax: where to draw; None for a new figure.
    """
    classes = [name for name in summary.classes if summary.of_class(name)]
    most = max(len(summary.of_class(name)[:MOST]) for name in classes)
    columns = min(2, len(classes))
    rows = -(-len(classes) // columns)
    axes = panels(ax, rows, columns, 1.5 + 2.6 * columns, rows * (0.9 + 0.2 * most))
    for one, name in zip(axes, classes):
        words = summary.of_class(name)[:MOST]
        _draw(one, [word.word for word in words], [word.mean for word in words], [word.interval for word in words])
        set_title(one, f"{name}: mean contribution", 40)
    for one in axes[len(classes) :]:
        one.set_axis_off()
    return figure_of(axes[0])


def draw_error_words(summary: CorpusSummary, ax: Axes | None) -> Figure:
    """Draw the differences of contributions between wrong and correct predictions, with 95 % intervals.

    Args:
        summary: with words of errors.
        ax: where to draw; None for a new figure.
    """
    words = summary.errors[:MOST]
    ax = own_axes(ax, 6.0, 1.0 + 0.22 * len(words))
    names = [f"{label(word.word, 16)} ({label(word.target_name, 10)})" for word in words]
    _draw(ax, names, [word.difference for word in words], [word.interval for word in words])
    set_title(ax, "contribution in errors - in correct predictions")
    return figure_of(ax)


def _draw(
    ax: Axes, names: Sequence[str], means: Sequence[float], intervals: Sequence[tuple[float, float] | None]
) -> None:
    for place, (mean, interval) in enumerate(zip(means, intervals)):
        ax.axhline(place, color=LINE, linewidth=0.6, zorder=0)
        color = FOR if mean > 0 else AGAINST
        if interval is not None:
            ax.plot(interval, [place, place], color=color, linewidth=1.6)
        ax.plot([mean], [place], "o", color=color, markersize=4)
    ax.axvline(0, color=PLAIN, linewidth=0.8)
    ax.set_yticks(range(len(names)), [label(name, 30) for name in names])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(names) - 0.4, -0.6)
