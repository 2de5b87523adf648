"""Mutual information over layers as a figure."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from hf_attn_mi.figures import COLORS, WIDTH, draw, figure_of, label, legend_below, own_axes, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hf_attn_mi.results.information_profile import InformationProfile

MARKERS = ("o", "s", "^", "D", "v")


def plot_information(profile: InformationProfile, path: str | Path | None = None, *, ax: Axes | None = None) -> Figure:
    """Return the figure of mutual information over layers: estimates with 95 % bands, lower and upper bounds,
    and the ceiling.

    Args:
        profile: the result of `fit_information`.
        path: where to write it; the suffix names the format (.png, .svg, .pdf). Equal results give equal files.
        ax: matplotlib Axes to draw in; None for those of a new figure.

    Returns:
        The `matplotlib.figure.Figure`. No window is opened, and pyplot's list of figures is left alone.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
        InvalidInputError: the folder of `path` does not exist, or matplotlib does not know the suffix.

    Example:
        >>> figure = plot_information(InformationProfile.load("profile"), "layers.png")     # doctest: +SKIP
    """
    return draw({"layers": lambda ax: _information(profile, ax)}, profile.NOUN, path, None, ax)


def _information(profile: InformationProfile, ax: Axes | None) -> Figure:
    names = list(dict.fromkeys(site.name for site in profile.sites))
    new = ax is None
    ax = own_axes(ax, WIDTH, 4.2 + 0.09 * len(names))
    information = profile.information
    for number, name in enumerate(names):
        places = [place for place, site in enumerate(profile.sites) if site.name == name]
        layers = [profile.sites[place].layer for place in places]
        nats = information.nats[places].tolist()
        low, high = (ends.tolist() for ends in information.interval[places].unbind(-1))
        color = COLORS[number % len(COLORS)]
        marker = MARKERS[number // len(COLORS) % len(MARKERS)]
        ax.fill_between(layers, low, high, color=color, alpha=0.18, linewidth=0)
        ax.plot(layers, nats, color=color, marker=marker, markersize=4, label=label(name))
        ax.plot(layers, information.lower_bound[places].tolist(), color=color, linestyle=":", linewidth=1.2)
    upper = [x for x in information.upper_bound.tolist() if math.isfinite(x)]
    ax.axhline(profile.ceiling, color="black", linestyle="--", linewidth=1, label="ceiling: I(input; output)")
    if upper:
        text = "upper bound, any distribution (97.5 %)"
        ax.axhline(max(upper), color="gray", linestyle="-.", linewidth=1, label=text)
    ax.plot([], [], color="gray", linestyle=":", linewidth=1.2, label="lower bound, any distribution (97.5 %)")
    ax.set_xticks(profile.layers)
    ax.set_xlabel("layer (0: embeddings)" if 0 in profile.layers else "layer")
    ax.set_ylabel("mutual information with the output (nats)")
    lowest = min((x for x in information.interval[..., 0].tolist() if math.isfinite(x)), default=0.0)
    ax.set_ylim(min(0.0, lowest) - 0.02 * profile.ceiling, None)
    set_title(ax, f"{profile.info.get('model')}, {profile.n} inputs, bands: 95 %")
    ax.grid(alpha=0.25)
    legend_below(ax, new, 2)
    return figure_of(ax)
