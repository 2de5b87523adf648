"""Mutual information over layers as a figure."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_attn_mi.results.plots.figure import COLORS, check_figure_path, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hf_attn_mi.results.information_profile import InformationProfile

MARKERS = ("o", "s", "^", "D", "v")
MOST_INSIDE = 7  # maximum number of sites for a legend inside the axes


def plot_information(profile: InformationProfile, path: str | Path | None = None, *, axes: Axes | None = None) -> Any:
    """Return the figure of mutual information over layers: estimates with 95 % bands, lower bounds, the ceiling.

    Args:
        profile: the result of `fit_information`.
        path: where to write it; the suffix names the format (.png, .svg, .pdf). Equal results give equal files.
        axes: matplotlib axes to draw in instead of those of a new figure.

    Returns:
        The `matplotlib.figure.Figure`. No window is opened, and pyplot's list of figures is left alone.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
        InvalidInputError: the folder of `path` does not exist, or matplotlib does not know the suffix.

    Example:
        >>> figure = plot_information(InformationProfile.load("profile"), "layers.png")     # doctest: +SKIP
    """
    check_figure_path(path)
    axes = new_figure().subplots() if axes is None else axes
    information, names = profile.information, list(dict.fromkeys(site.name for site in profile.sites))
    for number, name in enumerate(names):
        places = [place for place, site in enumerate(profile.sites) if site.name == name]
        layers = [profile.sites[place].layer for place in places]
        nats = information.nats[places].tolist()
        low, high = (ends.tolist() for ends in information.interval[places].unbind(-1))
        color = COLORS[number % len(COLORS)]
        marker = MARKERS[number // len(COLORS) % len(MARKERS)]
        axes.fill_between(layers, low, high, color=color, alpha=0.18, linewidth=0)
        axes.plot(layers, nats, color=color, marker=marker, markersize=4, label=name)
        axes.plot(layers, information.lower_bound[places].tolist(), color=color, linestyle=":", linewidth=1.2)
    axes.axhline(profile.ceiling, color="black", linestyle="--", linewidth=1, label="ceiling: I(input; output)")
    axes.plot([], [], color="gray", linestyle=":", linewidth=1.2, label="lower bound, any distribution (97.5 %)")
    axes.set_xticks(profile.layers)
    axes.set_xlabel("layer (0: embeddings)" if 0 in profile.layers else "layer")
    axes.set_ylabel("mutual information with the output (nats)")
    lowest = min((x for x in information.interval[..., 0].tolist() if math.isfinite(x)), default=0.0)
    axes.set_ylim(min(0.0, lowest) - 0.02 * profile.ceiling, None)
    axes.set_title(f"{profile.info.get('model')}, {profile.n} inputs, bands: 95 %", fontsize="medium")
    axes.grid(alpha=0.25)
    if len(names) > MOST_INSIDE:
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0)
    else:
        axes.legend(fontsize="small")
    save_figure(axes.figure, path)
    return axes.figure
