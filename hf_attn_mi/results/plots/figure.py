"""Figures and their files; matplotlib (extra `plots`) is imported when the first one is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hf_attn_mi.atomic_files import as_path, new_file
from hf_attn_mi.errors import BackendUnavailableError, InvalidInputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")  # Okabe and Ito 2008


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
    return Figure(figsize=(width, height), layout="constrained")


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
        figure.figure.savefig(temporary, format=form, dpi=120, metadata=None if dated is None else {dated: None})
