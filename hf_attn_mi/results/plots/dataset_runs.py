"""How far a run over a data set has come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_attn_mi.figures import AGAINST, FOR, LINE, WIDTH, figure_of, legend_below, own_axes, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hf_attn_mi.results.dataset_run import DatasetRun


def draw_progress(run: DatasetRun, ax: Axes | None) -> Figure:
    """Draw finished and missing shards, and the rows of this run with those that failed, as shares of all."""
    new = ax is None
    ax = own_axes(ax, WIDTH, 1.9)
    shards = run.shards + (run.missing or 0)
    rows = run.done if run.rows is None else run.rows
    bars = [
        (f"shards, {run.shards:,} of {shards:,}", run.shards / max(1, shards), 0.0),
        (f"rows of this run, {run.done:,} of {rows:,}", run.done / max(1, rows), run.failed / max(1, rows)),
    ]
    for place, (_, finished, failed) in enumerate(bars):
        ax.barh([place], [1.0], color=LINE, height=0.6, label="missing" if place == 0 else None)
        ax.barh([place], [finished], color=FOR, height=0.6, label="finished" if place == 0 else None)
        ax.barh([place], [failed], color=AGAINST, height=0.6, label=f"failed: {run.failed:,}" if place == 1 else None)
    ax.set_yticks(range(len(bars)), [name for name, *_ in bars])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(bars) - 0.5, -0.5)
    ax.set_xlim(0, 1)
    ax.set_xlabel("share")
    legend_below(ax, new, 3)
    set_title(ax, f"{run.output}: " + ("an estimate" if run.dry_run else f"{run.seconds:.0f} s"))
    return figure_of(ax)
