"""The words of one input with their scores, as a table, for LaTeX, and as a picture."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import NamedTuple

from hf_attn_mi.figures import new_figure
from hf_attn_mi.results.explanation import Explanation, Word
from hf_attn_mi.results.words import LEVELS, Rgb, level_colors, level_of, split_text

WIDTH = 720  # width of a picture, in points
SIZE, LINE = 15.0, 28.0  # size of a letter and height of a line, in points
ADVANCE = 0.6  # width of a letter of a typewriter font, as a share of its size
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_WHITE_FROM = 60  # percent of color from which on LaTeX text is white


class _Box(NamedTuple):
    """A word in a picture: its place, text, colors and whether it is underlined."""

    x: float
    y: float
    text: str
    background: Rgb | None
    color: Rgb
    underlined: bool

    @property
    def width(self) -> float:
        return len(self.text) * SIZE * ADVANCE


def _csv(explanations: Sequence[Explanation], in_set: frozenset[int]) -> bytes:
    """A row for each word: its text, a column for each explanation, and whether it is in the minimal token set."""
    words = [one.to_words() for one in explanations]
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    names = [f"{one.info.get('method', 'score')}:{one.target_name}" for one in explanations]
    writer.writerow(["word", *names, "in_minimal_set"])
    for place, word in enumerate(words[0]):
        scores = [row[place].score for row in words]
        writer.writerow([word.text.strip(), *scores, int(bool(in_set & set(word.tokens)))])
    return file.getvalue().encode("utf-8", "replace")


def _latex(explanations: Sequence[Explanation], in_set: frozenset[int]) -> bytes:
    """Colorboxes; it needs the package xcolor."""
    explanation = explanations[0]
    scale = _scale(explanation)
    rows = []
    for pieces in _pieces(explanation):
        parts = []
        for text, word in pieces:
            shown = "".join(_LATEX.get(sign) or (f"\\{sign}" if sign in "{}$&#_%" else sign) for sign in text)
            if word is not None and in_set & set(word.tokens):
                shown = f"\\underline{{{shown}}}"
            strength = 0 if word is None or not scale else round(100 * abs(word.score) / scale)
            if word is not None and strength:
                shown = f"\\textcolor{{white}}{{{shown}}}" if strength > _WHITE_FROM else shown
                shown = f"\\colorbox{{{'for' if word.score > 0 else 'against'}!{strength}}}{{{shown}}}"
            parts.append(shown)
        rows.append("".join(parts))
    (plus, _), (minus, _) = level_colors(LEVELS), level_colors(-LEVELS)
    colors = "".join(
        f"\\definecolor{{{name}}}{{RGB}}{{{','.join(map(str, color))}}}"
        for name, color in (("for", plus), ("against", minus))
    )
    body = "\\par\n".join(rows)
    return f"% \\usepackage{{xcolor}}\n{colors}\n{{\\setlength{{\\fboxsep}}{{1pt}}%\n{body}}}\n".encode(
        "utf-8", "replace"
    )


def _svg(explanations: Sequence[Explanation], in_set: frozenset[int]) -> bytes:
    boxes = list(_boxes(explanations[0], in_set))
    height = max((box.y for box in boxes), default=0.0) + LINE
    parts = []
    for box in boxes:
        if box.background is not None:
            parts.append(
                f'<rect x="{box.x - 2:.1f}" y="{box.y + 4:.1f}" width="{box.width + 4:.1f}" height="{LINE - 8:.1f}" '
                f'rx="3" fill="rgb{box.background}"/>'
            )
        line = ' text-decoration="underline"' if box.underlined else ""
        text = escape(_printable(box.text))
        parts.append(
            f'<text x="{box.x:.1f}" y="{box.y + LINE / 2 + SIZE / 3:.1f}" textLength="{box.width:.1f}" '
            f'fill="rgb{box.color}"{line}>{text}</text>'
        )
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}"'
    style = f'font-family="monospace" font-size="{SIZE:g}"'
    return f'{opening} {style}><rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'.encode()


def _png(explanations: Sequence[Explanation], in_set: frozenset[int]) -> bytes:
    boxes = list(_boxes(explanations[0], in_set))
    height = max((box.y for box in boxes), default=0.0) + LINE
    figure = new_figure(WIDTH / 72, height / 72)
    figure.set_layout_engine("none")
    for box in boxes:
        face = None if box.background is None else _share(box.background)
        figure.text(
            box.x / WIDTH,
            1 - (box.y + LINE / 2) / height,
            _printable(box.text).replace("$", r"\$"),
            va="center",
            family="monospace",
            size=SIZE,
            color=_share(box.color),
            weight="bold" if box.underlined else "normal",
            bbox=None if face is None else {"facecolor": face, "edgecolor": "none", "pad": 1.5},
        )
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=144)
    return file.getvalue()


def _printable(text: str) -> str:
    """The text without characters that no file or font can hold."""
    return re.sub(r"[\x00-\x1f\ud800-\udfff]", "\ufffd", text)


def _share(color: Rgb) -> tuple[float, ...]:
    return tuple(part / 255 for part in color)


def _boxes(explanation: Explanation, in_set: frozenset[int]) -> Iterator[_Box]:
    """The words in lines, each letter as wide as every other."""
    scale, x, y = _scale(explanation), 8.0, 4.0
    advance = SIZE * ADVANCE
    for row in _pieces(explanation):
        for text, word in row:
            parts = [text] if word is not None else re.findall(r"\s+|\S+", text)
            for part in parts:
                if word is None and not part.strip():
                    x += advance
                    continue
                if x > 8.0 and x + len(part) * advance > WIDTH - 8:
                    x, y = 8.0, y + LINE
                level = None if word is None else level_of(word.score, scale)
                background, color = level_colors(level) if level else (None, (0, 0, 0))
                underlined = word is not None and bool(in_set & set(word.tokens))
                yield _Box(x, y, part, background, color, underlined)
                x += len(part) * advance
        x, y = 8.0, y + LINE


def _pieces(explanation: Explanation) -> Iterator[list[tuple[str, Word | None]]]:
    """For each text its words and what lies between them; words without a place in a text come last."""
    words = explanation.to_words()
    texts = explanation.texts if explanation.offsets is not None else ()
    placed = [word for word in words if None not in (word.start, word.end) and (word.sequence or 0) < len(texts)]
    for number, text in enumerate(texts):
        spans = [
            (word.start, word.end, float(place), "")
            for place, word in enumerate(words)
            if word in placed and (word.sequence or 0) == number and word.start is not None and word.end is not None
        ]
        pieces = split_text(text, spans)
        yield [(piece.text, None if piece.score is None else words[int(piece.score)]) for piece in pieces]
    rest: list[tuple[str, Word | None]] = []
    for word in words:
        if word not in placed:
            rest += [(word.text, word), (" ", None)]
    if rest:
        yield rest


def _scale(explanation: Explanation) -> float:
    return max((abs(word.score) for word in explanation.to_words()), default=0.0)


FORMS: dict[str, Callable[[Sequence[Explanation], frozenset[int]], bytes]] = {
    ".svg": _svg,
    ".png": _png,
    ".tex": _latex,
    ".csv": _csv,
}
