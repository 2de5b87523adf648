"""Figures: their colors, sizes and files; matplotlib (extra `plots`) is imported when the first one is drawn."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_attn_mi.atomic_files import as_path, new_file
from hf_attn_mi.errors import BackendUnavailableError, InvalidInputError, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")  # Okabe and Ito 2008
# The palette of the report, in its light theme; blue and orange stay apart under every common color blindness.
FOR, AGAINST = "#2166ac", "#cd4a14"
NO_CLASS = "#4b2a86"  # scores of methods that know no class, and shares
PLAIN, INK, SOFT, LINE = "#8a919a", "#1c2026", "#59616b", "#d5d7da"
NO_SHARE = "#f4f1f9"
WIDTH = 6.0  # inches
LONGEST = 24  # characters of a name on an axis
TITLE_LETTER, TITLE_SHARE = 4.9, 0.8  # mean width of its letters in points; share of the figure that a title can take
SCRIPTS = {  # fonts of scripts that the fonts of matplotlib lack
    "Arial Unicode MS",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Noto Sans Arabic",
    "Noto Sans CJK JP",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "PingFang SC",
    "WenQuanYi Zen Hei",
    "Yu Gothic",
}
STYLE = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
    "axes.edgecolor": PLAIN,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "font.size": 9.0,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "text.color": INK,
    "text.usetex": False,
    "xtick.color": PLAIN,
    "xtick.labelcolor": INK,
    "ytick.color": PLAIN,
    "ytick.labelcolor": INK,
}


def new_figure(width: float = 6.4, height: float = 4.2) -> Figure:
    """Return an empty matplotlib figure of this size in inches, which pyplot does not know.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendUnavailableError(
            'figures need matplotlib, which is not installed: pip install "hf_attn_mi[plots]"'
        ) from error
    figure: Any = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    figure._repr_png_ = partial(png_of, figure)  # notebooks display it, also where pyplot was never imported
    drawn: Figure = figure
    return drawn


def png_of(figure: Figure) -> bytes:
    """Return the figure as the bytes of a PNG, as notebooks show it."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()


@contextmanager
def light_style() -> Iterator[None]:
    """Draw in the colors and sizes of this package, whatever the caller's settings of matplotlib are.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
    """
    new_figure(1.0, 1.0)
    from matplotlib import rc_context

    with rc_context({**STYLE, "font.family": fonts()}):
        yield


@cache
def fonts(first: str = "DejaVu Sans") -> list[str]:
    """Return the fonts to draw with: the first one, and for other scripts those of `SCRIPTS` that are installed."""
    from matplotlib.font_manager import get_font_names

    return [first, *sorted(SCRIPTS & set(get_font_names()))]


def draw(
    plots: Mapping[str, Callable[[Axes | None], Figure]],
    noun: str,
    path: str | Path | None,
    kind: str | None,
    ax: Axes | None,
) -> Figure:
    """Return one of the figures of a result, and write it where a path is given.

    Args:
        plots: kind -> function that draws into axes, or a new figure for None; the first one is the default.
        noun: what the result is called in messages.
        path: where to write it; None: nowhere.
        kind: a key of `plots`; None for the first one.
        ax: matplotlib Axes to draw in; None for those of a new figure.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
        InvalidInputError: another kind, `ax` that is no Axes, or a path that cannot be written.
    """
    check_ax(ax)
    if hasattr(path, "get_figure"):
        raise InvalidInputError("path is a matplotlib Axes; pass it by name: plot(ax=...). path names the file.")
    check_figure_path(path)
    if not plots:
        raise InvalidInputError(f"A {noun} has nothing that could be drawn.")
    name = next(iter(plots)) if kind is None else kind
    if not isinstance(name, str) or name not in plots:
        allowed = ", ".join(map(repr, plots))
        raise InvalidInputError(f"kind must be one of {allowed} for this {noun}, not {shown(kind)}.")
    with light_style():
        figure = plots[name](ax)
    save_figure(figure, path)
    return figure


def check_ax(ax: object) -> None:
    """Raise unless `ax` is None or a matplotlib Axes.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
        InvalidInputError: another type.
    """
    if ax is None:
        return
    new_figure(1.0, 1.0)
    from matplotlib.axes import Axes

    if not isinstance(ax, Axes):
        hint = "; choose one of its axes" if hasattr(ax, "savefig") or hasattr(ax, "flatten") else ""
        raise InvalidInputError(f"ax must be a matplotlib Axes or None, not {type(ax).__name__}{hint}.")


def own_axes(ax: Axes | None, width: float, height: float) -> Axes:
    """Return `ax`, or the axes of a new figure of this size in inches."""
    return new_figure(width, height).subplots() if ax is None else ax


def figure_of(ax: Axes) -> Figure:
    """Return the whole figure that axes lie in, also where they lie in a subfigure."""
    figure: Any = ax.figure
    drawn: Figure = figure.figure
    return drawn


def panels(ax: Axes | None, rows: int, columns: int, width: float, height: float, **shared: Any) -> list[Axes]:
    """Return rows x columns axes: of a new figure of this size in inches, or inside `ax`, which is left empty else."""
    if ax is None:
        return list(new_figure(width, height).subplots(rows, columns, squeeze=False, **shared).flatten())
    ax.set_axis_off()
    gap = 0.12
    wide, high = 1 / (columns + gap * (columns - 1)), 1 / (rows + gap * (rows - 1))
    return [
        ax.inset_axes((column * wide * (1 + gap), 1 - high - row * high * (1 + gap), wide, high))
        for row in range(rows)
        for column in range(columns)
    ]


def label(text: str, most: int = LONGEST) -> str:
    """Return a text that any axis can show: one line, shortened, without control characters and formulas.

    Example:
        >>> label("a\\nvery long name of a token", 12)
        'a very long…'
    """
    flat = " ".join(re.sub("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff]", " ", text).split()) or "(blank)"
    flat = flat if len(flat) <= most else f"{flat[: most - 1]}…"
    return flat.replace("$", r"\$")


def set_title(ax: Axes, text: str, columns: int = 70) -> None:
    """Give axes a title of at most this many columns, in two lines where one is not enough for them or the figure."""
    room = TITLE_SHARE * 72 * float(figure_of(ax).get_figwidth()) / TITLE_LETTER
    columns = min(columns, max(int(room), 12))
    lines = textwrap.wrap(" ".join(text.split()), columns) or [""]
    more = "…" if len(lines) > 2 else ""
    ax.set_title("\n".join(label(line, columns + 1) for line in lines[:2]) + more if text.strip() else "")


def width_of(ax: Axes) -> float:
    """Return the width of axes in inches, as it is after the layout of their figure."""
    figure = figure_of(ax)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    return float(ax.get_window_extent().width) / figure.dpi


def legend_below(ax: Axes, new: bool, columns: int) -> None:
    """Explain lines and marks below the axes of a new figure, or inside axes that were given."""
    if new:
        figure_of(ax).legend(loc="outside lower center", ncols=columns)
    else:
        ax.legend(loc="best")


def percent(share: float) -> str:
    """Return a share as a percentage.

    Example:
        >>> percent(0.976)
        '97.6 %'
    """
    return f"{100 * share:.1f} %"


def signed_colors() -> Any:
    """Return the color map of signed numbers: orange, white, blue."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("signed", (AGAINST, "#ffffff", FOR))


def share_colors() -> Any:
    """Return the color map of shares from 0 to 1, which is that of the heads in the report."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("share", (NO_SHARE, NO_CLASS)).with_extremes(bad="#e8e8e6")


def cell_numbers(
    ax: Axes,
    table: list[list[float]],
    form: Callable[[float], str],
    *,
    dark: Callable[[float], bool],
    missing: str = "·",
) -> None:
    """Write a number into each cell of an image.

    Args:
        ax: the axes of the image.
        table: the numbers, row by row.
        form: a number as it is written.
        dark: whether the cell of a number is so dark that white stands out more than black.
        missing: what NaN cells get.
    """
    for row, line in enumerate(table):
        for column, x in enumerate(line):
            known = not math.isnan(x)
            if not known and not missing:
                continue
            color = "white" if known and dark(x) else INK if known else PLAIN
            ax.text(column, row, form(x) if known else missing, ha="center", va="center", fontsize=7, color=color)


def check_figure_path(path: str | Path | None) -> None:
    """Raise unless a figure can be written to `path` (None: it is not written); called before the computation.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
        InvalidInputError: the folder does not exist, or matplotlib does not write files of this suffix.
    """
    if path is None:
        return
    path, known = as_path(path), new_figure().canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise InvalidInputError(
            f"{path}: a figure can be written as .{', .'.join(sorted(known))}; not as '{path.suffix}'."
        )
    if not path.parent.is_dir():
        raise InvalidInputError(
            f"{path}: the folder {path.parent} does not exist; create it first, or name another file."
        )


def save_figure(figure: Figure | SubFigure, path: str | Path | None) -> None:
    """Write a figure (None: do nothing), whole or not at all.

    There are no dates or random names in it: equal figures give equal files.

    Raises:
        InvalidInputError: as in `check_figure_path`.
    """
    if path is None:
        return
    check_figure_path(path)
    from matplotlib import rc_context

    form = as_path(path).suffix[1:].lower()
    dated = {"svg": "Date", "pdf": "CreationDate"}.get(form)
    with rc_context({"svg.hashsalt": "hf_attn_mi"}), new_file(path, overwrite=True) as temporary:
        figure.figure.savefig(temporary, format=form, dpi=150, metadata=None if dated is None else {dated: None})
