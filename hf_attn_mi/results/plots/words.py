"""Scores of words: as bars, and as colors behind the words of the text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from hf_attn_mi.figures import (
    AGAINST,
    FOR,
    INK,
    LINE,
    NO_CLASS,
    PLAIN,
    SOFT,
    WIDTH,
    draw,
    figure_of,
    fonts,
    label,
    new_figure,
    own_axes,
    set_title,
    width_of,
)
from hf_attn_mi.results.words import LEVELS, Rgb, format_score, level_colors, level_of, text_color

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LETTER = 6.3  # points that a letter of the text takes, at 10 points
LINE_HEIGHT = 0.235  # inches
MOST_LINES = 60  # lines of a text that are drawn
NO_CLASS_RGB: Rgb = (75, 42, 134)


class TextPart(NamedTuple):
    """A part of a text: a word with its score, or what lies between two words (score None)."""

    text: str
    score: float | None = None
    marked: bool = False  # underlined


class _Box(NamedTuple):
    line: int
    column: float
    width: int
    part: TextPart


def plot_words(
    names: Sequence[str],
    scores: Sequence[float],
    path: str | Path | None = None,
    title: str = "",
    ax: Axes | None = None,
    *,
    linked: bool = True,
) -> Figure:
    """Return the figure of words and their scores as bars, the first at the top.

    Args:
        names: the names of the words.
        scores: one for each.
        path: where to write it; the suffix names the format (.png, .svg, .pdf).
        title: shown above the bars.
        ax: matplotlib Axes to draw in; None for those of a new figure.
        linked: whether the sign of a score says for or against a class; if not, the bars have one neutral color.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
        InvalidInputError: a path that cannot be written.

    Example:
        >>> plot_words(["good"], [0.5]).axes[0].get_xlabel()
        'score'
    """
    return draw({"words": lambda ax: _bars(names, scores, title, linked, ax)}, "list of words", path, None, ax)


def _bars(names: Sequence[str], scores: Sequence[float], title: str, linked: bool, ax: Axes | None) -> Figure:
    ax = own_axes(ax, WIDTH, 0.9 + 0.23 * max(len(names), 2))
    colors = [(FOR if score >= 0 else AGAINST) if linked else NO_CLASS for score in scores]
    ax.barh(range(len(names)), scores, color=colors, height=0.72)
    ax.set_yticks(range(len(names)), [label(name) for name in names])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(max(len(names), 1) - 0.4, -0.6)
    ax.axvline(0, color=PLAIN, linewidth=0.8)
    low, high = min([0.0, *scores]), max([0.0, *scores])
    room = 0.16 * ((high - low) or 1.0)
    ax.set_xlim(low - (room if low < 0 else 0), high + (room if high > 0 else 0) or 1.0)
    for place, score in enumerate(scores):
        side = 1 if score >= 0 else -1
        ax.annotate(
            format_score(score).replace("-", "−"),
            (score, place),
            xytext=(3 * side, 0),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center",
            fontsize=7.5,
            color=SOFT,
        )
    ax.set_xlabel("score" if linked else "score (of a method that does not refer to a class)")
    set_title(ax, title)
    return figure_of(ax)


def plot_text(
    rows: Sequence[Sequence[TextPart]],
    path: str | Path | None = None,
    title: str = "",
    ax: Axes | None = None,
    *,
    target: str = "",
    linked: bool = True,
    marks: str = "",
) -> Figure:
    """Return the figure of texts with a color behind each word: blue for the class, orange against it.

    Args:
        rows: the parts of each text in reading order.
        path, title, ax: as in `plot_words`.
        target: the class, for the legend.
        linked: as in `plot_words`.
        marks: what underlined words are; "" where none is underlined.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
        InvalidInputError: a path that cannot be written.

    Example:
        >>> figure = plot_text([[TextPart("good", 0.5), TextPart(" "), TextPart("film", -0.1)]], target="positive")
        >>> [text.get_text() for text in figure.axes[0].texts][:2]
        ['good', 'film']
    """
    return draw({"text": lambda ax: _text(rows, title, target, linked, marks, ax)}, "text", path, None, ax)


def _text(
    rows: Sequence[Sequence[TextPart]], title: str, target: str, linked: bool, marks: str, ax: Axes | None
) -> Figure:
    if ax is not None:
        ax.set_axis_off()
    columns = max(20, int(((WIDTH if ax is None else width_of(ax)) - 0.2) * 72 / LETTER))
    boxes = list(_boxes(rows, columns))
    shown = [box for box in boxes if box.line < MOST_LINES]
    lines = 1 + max((box.line for box in shown), default=0)
    left_out = len([box for box in boxes if box.line >= MOST_LINES and box.part.score is not None])
    below = 1.3 + bool(left_out) + bool(marks)
    if ax is None:
        ax = new_figure(WIDTH, 0.3 + LINE_HEIGHT * (lines + below)).subplots()
    ax.set_axis_off()
    ax.set_xlim(-0.5, columns + 0.5)
    ax.set_ylim(lines + below, -0.2)
    scale = max((abs(x) for row in rows for part in row if (x := part.score) is not None and x == x), default=0.0)
    for box in shown:
        _draw_box(ax, box, scale, linked)
    at = lines + 0.6
    if left_out:
        ax.text(0, at, f"{left_out} more words are not shown.", va="center", color=SOFT, fontsize=8)
        at += 1
    if marks:
        ax.text(0, at, f"Underlined: {marks}.", va="center", color=SOFT, fontsize=8)
        at += 1
    _legend(ax, at, columns, scale, target, linked)
    set_title(ax, title)
    return figure_of(ax)


def _draw_box(ax: Axes, box: _Box, scale: float, linked: bool) -> None:
    from matplotlib.patches import FancyBboxPatch

    level = None if box.part.score is None else level_of(box.part.score, scale)
    background, color = _colors(level, linked) if level else (None, (28, 32, 38))
    place = (box.column - 0.1, box.line + 0.12)
    if background is not None:
        style = "round,pad=0,rounding_size=0.25"
        ax.add_patch(
            FancyBboxPatch(place, box.width + 0.2, 0.76, boxstyle=style, linewidth=0, facecolor=_share(background))
        )
    text = box.part.text.replace("$", r"\$")
    middle = (box.column + box.width / 2, box.line + 0.5)
    ax.text(
        *middle,
        text,
        ha="center",
        va="center_baseline",
        family=fonts("DejaVu Sans Mono"),
        fontsize=10,
        color=_share(color),
    )
    if box.part.marked:
        ax.plot([box.column, box.column + box.width], [box.line + 0.96] * 2, color=INK, linewidth=1.4, clip_on=False)


def _legend(ax: Axes, line: float, columns: int, scale: float, target: str, linked: bool) -> None:
    """Zero to full color, with the scores that they stand for."""
    from matplotlib.patches import Rectangle

    levels = range(-LEVELS if linked else 0, LEVELS + 1)
    name = label(target, 18)
    left = f"against {name} −{scale:.3g} " if linked else "0 "
    right = f" +{scale:.3g} for {name}" if linked else f" {scale:.3g} (does not refer to a class)"
    start, cell = min(len(left) * 0.84, columns * 0.36), 0.8
    ax.text(start, line, left, ha="right", va="center", fontsize=8, color=SOFT)
    for place, level in enumerate(levels):
        color = _share(_colors(level, linked)[0])
        corner = (start + 0.4 + place * cell, line - 0.28)
        ax.add_patch(Rectangle(corner, cell, 0.56, facecolor=color, edgecolor=LINE, linewidth=0.3))
    end = start + 0.4 + len(levels) * cell
    ax.text(end, line, right, ha="left", va="center", fontsize=8, color=SOFT)


def _colors(level: int, linked: bool) -> tuple[Rgb, Rgb]:
    if linked:
        return level_colors(level)
    red, green, blue = (round(255 + (part - 255) * abs(level) / LEVELS) for part in NO_CLASS_RGB)
    return (red, green, blue), text_color((red, green, blue))


def _share(color: Rgb) -> tuple[float, ...]:
    return tuple(part / 255 for part in color)


def _boxes(rows: Sequence[Sequence[TextPart]], columns: int) -> Iterator[_Box]:
    """The parts in lines; words that are longer than a line are cut, line breaks of the text are kept."""
    line, column = 0, 0
    for row in rows:
        for part in row:
            for piece in re.findall(r"\n|[^\S\n]+|\S+", part.text) if part.score is None else [part.text]:
                if piece == "\n":
                    line, column = line + 1, 0
                    continue
                if not piece.strip():
                    column += column > 0
                    continue
                for chunk in _chunks(_printable(piece), columns):
                    width = letters(chunk)
                    if column and column + width > columns:
                        line, column = line + 1, 0
                    yield _Box(line, column, width, part._replace(text=chunk))
                    column += width
        line, column = line + 1, 0


def _chunks(text: str, columns: int) -> Iterator[str]:
    for start in range(0, len(text), columns):
        yield text[start : start + columns]


def _printable(text: str) -> str:
    return re.sub("[\x00-\x1f\x7f-\x9f\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text.strip())


def letters(text: str) -> int:
    """Return how many letters of equal width a text takes: two for those of Chinese, Japanese and Korean.

    Example:
        >>> letters("ab"), letters("電影")
        (2, 4)
    """
    wide = sum(unicodedata.east_asian_width(sign) in "WF" for sign in text)
    narrow = sum(unicodedata.combining(sign) > 0 for sign in text)
    return max(1, len(text) + wide - narrow)


def parts_of(pieces: Sequence[Sequence[Any]]) -> list[list[TextPart]]:
    """Return the parts of texts that were cut by `split_text`."""
    return [[TextPart(piece.text, piece.score) for piece in row] for row in pieces]
