"""Mutual information over layers as a figure."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from hf_attn_mi.errors import BackendUnavailableError, InvalidInputError
from hf_attn_mi.results.information_profile import InformationProfile

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")  # Okabe and Ito 2008
MARKERS = ("o", "s", "^", "D", "v")
FEW_SLOTS = 7  # names that a legend inside the axes has room for


def plot_information(background: InformationProfile, path: str | Path | None = None, *, axes: Any = None) -> Any:
    """Return the figure of mutual information over layers: a curve with its 95 % band for each site, and the ceiling.

    Args:
        background: from `fit_information`.
        path: where to write it; the suffix names the format (.png, .svg, .pdf). Equal results give equal files.
        axes: matplotlib axes to draw in instead of those of a new figure.

    Returns:
        The `matplotlib.figure.Figure`. No window is opened, and pyplot's list of figures is left alone.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
        InvalidInputError: the folder of `path` does not exist, or matplotlib does not know the suffix.

    Example:
        >>> figure = plot_information(InformationProfile.load("background"), "layers.png")     # doctest: +SKIP
    """
    if path is not None:
        check_figure_path(path)
    axes = new_figure().subplots() if axes is None else axes
    information, names = background.information, list(dict.fromkeys(site.name for site in background.sites))
    for number, name in enumerate(names):
        places = [place for place, site in enumerate(background.sites) if site.name == name]
        layers = [background.sites[place].layer for place in places]
        lower, nats, upper = (x[places].tolist() for x in (information.lower, information.nats, information.upper))
        color = COLORS[number % len(COLORS)]
        marker = MARKERS[number // len(COLORS) % len(MARKERS)]
        axes.fill_between(layers, lower, upper, color=color, alpha=0.18, linewidth=0)
        axes.plot(layers, nats, color=color, marker=marker, markersize=4, label=name)
    axes.axhline(background.ceiling, color="black", linestyle="--", linewidth=1, label="ceiling: I(input; output)")
    axes.set_xticks(background.layers)
    axes.set_xlabel("layer (0: embeddings)" if 0 in background.layers else "layer")
    axes.set_ylabel("mutual information with the output (nats)")
    axes.set_ylim(min(0.0, _lowest(information.lower)) - 0.02 * background.ceiling, None)
    axes.set_title(f"{background.info.get('model')}, {background.n} inputs, bands: 95 %", fontsize="medium")
    axes.grid(alpha=0.25)
    if len(names) > FEW_SLOTS:
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0)
    else:
        axes.legend(fontsize="small")
    if path is not None:
        save_figure(axes.figure, path)
    return axes.figure


def new_figure(width: float = 6.4, height: float = 4.2) -> Any:
    """Return an empty matplotlib figure of this size in inches, which pyplot does not know.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendUnavailableError(
            "figures need matplotlib, which is not installed: pip install 'hf_attn_mi[plots]'"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def check_figure_path(path: str | Path) -> None:
    """Do nothing where a figure can be written to `path`; for before the work is done.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
        InvalidInputError: the folder does not exist, or the suffix is none that matplotlib writes.
    """
    path, known = Path(path), new_figure().canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise InvalidInputError(
            f"{path}: a figure can be written as .{', .'.join(sorted(known))}; not as '{path.suffix}'."
        )
    if not path.parent.is_dir():
        raise InvalidInputError(
            f"{path}: the folder {path.parent} does not exist; make it first, or name another file."
        )


def save_figure(figure: Any, path: str | Path) -> None:
    """Write a figure without clock or random names in it: equal figures give equal files.

    Raises:
        InvalidInputError: as `check_figure_path`.
    """
    check_figure_path(path)
    from matplotlib import rc_context

    dated = {".svg": "Date", ".pdf": "CreationDate"}.get(Path(path).suffix.lower())
    with rc_context({"svg.hashsalt": "hf_attn_mi"}):
        figure.savefig(path, dpi=120, metadata=None if dated is None else {dated: None})


def _lowest(numbers: Any) -> float:
    return min((x for x in numbers.flatten().tolist() if math.isfinite(x)), default=0.0)
