"""Mutual information of sites as a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.figures import FOR, PLAIN, SOFT, WIDTH, draw, figure_of, label, legend_below, own_axes, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hf_attn_mi.mi.result import MutualInformation


def plot_sites(
    information: MutualInformation, path: str | Path | None, names: Sequence[str] | None, ax: Axes | None
) -> Figure:
    """Return the figure of `MutualInformation.plot`.

    Raises:
        InvalidInputError: as there.
    """
    count = len(information.nats.reshape(-1))
    if names is not None and (isinstance(names, str) or not isinstance(names, Sequence) or len(names) != count):
        raise InvalidInputError(f"names must be a list with a name for each of the {count} sites, not {shown(names)}.")
    chosen = [f"site {i}" for i in range(count)] if names is None else [str(name) for name in names]
    return draw({"sites": lambda ax: _sites(information, chosen, ax)}, "estimate of information", path, None, ax)


def _sites(information: MutualInformation, names: Sequence[str], ax: Axes | None) -> Figure:
    nats, lower, upper = (
        getattr(information, name).reshape(-1).tolist() for name in ("nats", "lower_bound", "upper_bound")
    )
    low, high = (ends.tolist() for ends in information.interval.reshape(-1, 2).unbind(-1))
    places = list(range(len(nats)))
    new = ax is None
    ax = own_axes(ax, WIDTH, 1.5 + 0.3 * max(2, len(nats)))
    ax.hlines(places, low, high, color=FOR, linewidth=5, alpha=0.35, label="95 % interval")
    ax.plot(nats, places, "o", color=FOR, markersize=5.5, label="estimate")
    if all(math.isfinite(x) for x in lower):
        ax.plot(lower, places, "|", color="black", markersize=13, markeredgewidth=1.6, label="lower bound (97.5 %)")
    if finite := [x for x in upper if math.isfinite(x)]:
        ax.axvline(max(finite), color=PLAIN, linestyle="-.", linewidth=1, label="upper bound (97.5 %)")
    if information.ceiling is not None:
        ax.axvline(information.ceiling, color="black", linestyle="--", linewidth=1, label="ceiling: I(input; output)")
    ax.axvline(0, color=SOFT, linewidth=0.8)
    ax.set_yticks(places, [label(name) for name in names])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(nats) - 0.4, -0.6)
    ax.set_xlabel("mutual information with the output (nats)")
    set_title(ax, f"{information.n} examples, estimator {information.estimator}")
    legend_below(ax, new, 3)
    return figure_of(ax)
