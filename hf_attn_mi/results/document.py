"""What a result shows, as blocks; and the three forms they are given: terminal text (rich), HTML (jinja2), Markdown."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from io import StringIO
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from hf_attn_mi.results.words import (
    LEVELS,
    Piece,
    Rgb,
    Words,
    css_of_level,
    format_score,
    level_colors,
    level_of,
    text_color,
)

if TYPE_CHECKING:
    from jinja2 import Environment
    from rich.console import Console
    from rich.style import Style
    from rich.table import Table as RichTable

ColorDepth = Literal["truecolor", "256", "16", "none"]
Tone = Literal["", "good", "bad", "neutral"]

WIDTH = 118  # columns of a terminal
_UNBROKEN = 10_000_000  # columns: lines are broken by this module or not at all
_TOP = 10  # words in the list of the strongest
_NAME = 24  # columns of a word in that list
_TONES = {"": "", "good": "bold green", "bad": "bold red", "neutral": "bold yellow"}
_SYSTEMS: dict[ColorDepth, Literal["truecolor", "256", "standard"] | None] = {
    "truecolor": "truecolor",
    "256": "256",
    "16": "standard",
    "none": None,
}
_BRIGHT_RED = 9  # the only one of these that black stands out on more than white
# Backgrounds of terminals with fewer colors, from weak to strong. All of one row have one hue: the nearest color of the
# whole palette to a weak blue is lavender or cyan, to a weak orange pink or yellow.
_PALETTES: dict[ColorDepth, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "256": ((153, 110, 74, 67, 25), (223, 216, 173, 209, 166)),
    "16": ((12, 4), (_BRIGHT_RED, 1)),
}


class Cell(NamedTuple):
    """A cell of a table."""

    text: str
    bold: bool = False
    interval: tuple[float, float, float] | None = None  # low, middle, high from 0 to 1, drawn in HTML


@dataclass(frozen=True)
class Heading:
    """The title of a result, with names and values."""

    title: str
    details: Mapping[str, str]
    kind: ClassVar[Literal["heading"]] = "heading"


@dataclass(frozen=True)
class Paragraph:
    """Sentences. `tone` colors an outcome, which the words name too; `wrapped` breaks long lines in a terminal."""

    text: str
    tone: Tone = ""
    small: bool = False
    wrapped: bool = False
    kind: ClassVar[Literal["paragraph"]] = "paragraph"


@dataclass(frozen=True)
class Facts:
    """One statement a line."""

    lines: Sequence[str]
    kind: ClassVar[Literal["facts"]] = "facts"


@dataclass(frozen=True)
class Table:
    """Rows of strings or cells. A `folded` table is a detail: closed in HTML, left out in a terminal."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    title: str = ""
    folded: bool = False
    kind: ClassVar[Literal["table"]] = "table"

    @property
    def cells(self) -> list[list[Cell]]:
        """The rows with every entry as a `Cell`."""
        return [[Cell(item) if isinstance(item, str) else item for item in row] for row in self.rows]


@dataclass(frozen=True)
class Drawing:
    """Scores drawn over an image or a waveform: `html` is markup of this package; other forms show the words."""

    html: str
    words: Words
    kind: ClassVar[Literal["drawing"]] = "drawing"


Block = Drawing | Heading | Paragraph | Facts | Table | Words


# --- terminal --------------------------------------------------------------------------------------------------------


def terminal_text(blocks: Iterable[Block], color: ColorDepth | None = "none") -> str:
    """Return the lines of a document for a terminal.

    With colors the explained text comes too, each word on its color. Without, there is no escape sequence at all.
    Control characters are shown as symbols, so that no text can control the terminal.

    Args:
        blocks: the blocks of the document.
        color: the color support of the terminal; None for those of standard output (none where it is not a terminal or
            NO_COLOR is set). Then lines are also broken between words to fit the columns of the terminal; elsewhere a
            statement is one line, however long, which programs can search.

    Example:
        >>> print(terminal_text([Words([[Piece("good", 0.5)]], label="positive")]).splitlines()[0])
          good  +0.5  ++++++++++++++++++++
    """
    from rich.console import Console
    from rich.text import Text

    output = Console(force_jupyter=False)
    depth = _depth(output) if color is None else color
    width = output.width if color is None and output.is_terminal else None
    console = Console(
        file=StringIO(),
        force_jupyter=False,  # in a notebook rich would display the lines instead of writing them to the file
        force_terminal=True,
        color_system=_SYSTEMS[depth],
        no_color=False,
        width=_UNBROKEN,
        legacy_windows=False,
    )
    for block in blocks:
        if isinstance(block, Heading):
            details = ", ".join(f"{name} {value}" for name, value in block.details.items())
            text = _printable(f"{block.title} ({details})" if details else block.title)
            console.print(Text(_broken(text, width), style="bold"))
        elif isinstance(block, Paragraph):
            text = _broken(_printable(block.text), min(width or WIDTH, WIDTH) if block.wrapped else width)
            console.print(Text(text, style=_TONES[block.tone]))
        elif isinstance(block, Facts):
            for line in block.lines:
                console.print(Text(_broken(_printable(line), width, "  ")))
        elif isinstance(block, Drawing):
            _print_words(console, block.words, "none", width)
        elif isinstance(block, Words):
            _print_words(console, block, depth, width)
        elif not block.folded:
            _print_table(console, block, width or WIDTH)
    assert isinstance(console.file, StringIO)
    return "\n".join(line.rstrip(" ") for line in console.file.getvalue().removesuffix("\n").split("\n"))


def _broken(text: str, width: int | None, indent: str = "") -> str:
    """The text with its lines broken between words; further lines begin with the indent of the first and `indent`."""
    if width is None:
        return text
    lines = []
    for line in text.split("\n"):
        below = line[: len(line) - len(line.lstrip())] + indent
        broken = textwrap.wrap(line, width, subsequent_indent=below, break_on_hyphens=False, break_long_words=False)
        lines += broken or [""]
    return "\n".join(lines)


def _depth(console: Console) -> ColorDepth:
    """The colors of standard output; rich reads NO_COLOR, FORCE_COLOR, TERM and COLORTERM."""
    if console.no_color or not console.is_terminal:
        return "none"
    depths: dict[str | None, ColorDepth] = {"truecolor": "truecolor", "256": "256", "standard": "16", "windows": "16"}
    return depths.get(console.color_system, "none")


def _print_words(console: Console, words: Words, depth: ColorDepth, width: int | None) -> None:
    from rich.text import Text

    for pieces in words.texts if depth != "none" else ():
        text = Text.assemble(*((_printable(piece.text), _style(piece, words.scale, depth)) for piece in pieces))
        for line in [text] if width is None else text.wrap(console, width):
            console.print(line)
    table = _grid()
    for name in ("name", "score", "bar"):
        table.add_column(
            justify="right" if name == "score" else "left",
            max_width=_NAME if name == "name" else None,
            no_wrap=True,
            overflow="ellipsis",
        )
    for piece in words.ranked[:_TOP]:
        score = piece.score or 0.0
        bar = ("+" if score > 0 else "-") * (2 * abs(level_of(score, words.scale) or 0))
        name = " ".join(_printable(piece.name[: 10 * _NAME]).split())
        table.add_row(Text(name), Text(format_score(score)), Text(bar))
    console.print(table)
    console.print(Text(_broken(_printable(words.legend("+", "-")), width)))


def _style(piece: Piece, scale: float, depth: ColorDepth) -> str | Style:
    """The colors of a word in a terminal."""
    from rich.color import Color
    from rich.palette import Palette
    from rich.style import Style

    level = 0 if piece.score is None else level_of(piece.score, scale)
    if not level:
        return ""
    background, text = level_colors(level)
    if depth == "truecolor":
        return Style(color=Color.from_rgb(*text), bgcolor=Color.from_rgb(*background))
    numbers = _PALETTES[depth][level < 0]
    if depth == "16":
        number = numbers[2 * abs(level) > LEVELS]
        return Style(color=Color.from_ansi(0 if number == _BRIGHT_RED else 15), bgcolor=Color.from_ansi(number))
    colors = [Color.from_ansi(number) for number in numbers]
    nearest = colors[Palette([color.get_truecolor() for color in colors]).match(background)]
    black = text_color(nearest.get_truecolor()) == (0, 0, 0)
    return Style(color=Color.from_ansi(16 if black else 231), bgcolor=nearest)


def _grid() -> RichTable:
    from rich.table import Table as RichTable

    return RichTable(box=None, show_header=False, padding=(0, 0, 0, 2))


def _print_table(console: Console, table: Table, width: int) -> None:
    """Print a table in groups of columns that a terminal can hold; the first column is repeated in each."""
    from rich.cells import cell_len
    from rich.table import Table as RichTable
    from rich.text import Text

    lines = [[Cell(name) for name in table.header], *table.cells]
    widths = [max(cell_len(_printable(line[i].text)) for line in lines) for i in range(len(table.header))]
    groups, used = [[0]], widths[0]
    for i in range(1, len(widths)):
        used += 2 + widths[i]
        if used > width and len(groups[-1]) > 1:
            groups.append([0])
            used = widths[0] + 2 + widths[i]
        groups[-1].append(i)
    if table.title:
        console.print(Text(_printable(table.title)))
    for number, group in enumerate(groups):
        if number:
            console.print()
        shown = RichTable(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        for _ in group:
            shown.add_column(no_wrap=True)
        for line in lines:
            shown.add_row(*(Text(_printable(line[i].text), style="bold" if line[i].bold else "") for i in group))
        console.print(shown)


def _printable(text: str) -> str:
    """Control characters as symbols, newline and tab kept; lone surrogates, which no stream can write, replaced."""
    text = re.sub(r"[\x00-\x08\x0b-\x1f]", lambda match: chr(0x2400 + ord(match[0])), text)
    return re.sub("[\x7f-\x9f\ud800-\udfff]", "\ufffd", text)


# --- HTML ------------------------------------------------------------------------------------------------------------


def html_section(blocks: Iterable[Block], *, style: bool = True) -> str:
    """Return a document as one `<section>`, without scripts and external resources; all text is escaped.

    The content of each text's block is the original text. Every word can be hovered over and focused, and then shows
    its score.

    Args:
        blocks: the blocks of the document.
        style: whether the section includes its `<style>`.

    Example:
        >>> "<mark>" in html_section([Words([[Piece("<mark>", 1.0)]], label="A & B")])
        False
    """
    return html_environment().get_template("section.html.j2").render(blocks=list(blocks), style=style)


def html_page(sections: Iterable[Iterable[Block]], title: str) -> str:
    """Return one self-contained HTML page.

    Args:
        sections: the blocks of each document.
        title: plain text.

    Example:
        >>> html_page([], "1 < 2").count("1 &lt; 2")
        2
    """
    return html_environment().get_template("page.html.j2").render(sections=list(map(list, sections)), title=title)


@cache
def html_environment() -> Environment:
    """Return the environment of all HTML templates; it escapes all values."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup, escape

    def safe(value: Any) -> Any:
        """Escape also what the HTML parser would change (carriage return) or a file cannot hold (lone surrogates)."""
        if not isinstance(value, str) or isinstance(value, Markup):
            return value
        return Markup(str(escape(re.sub("[\x00\ud800-\udfff]", "\ufffd", value))).replace("\r", "&#13;"))

    environment = Environment(
        loader=PackageLoader("hf_attn_mi.results"),
        autoescape=True,
        finalize=safe,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.globals |= {"levels": _levels, "score": format_score}
    return environment


def _levels(dark: bool) -> list[tuple[str, str, str]]:
    """CSS class, background and text color of each color level."""
    colors = {level: level_colors(level, dark=dark) for level in range(-LEVELS, LEVELS + 1)}
    return [
        (css_of_level(level), hex_color(background), hex_color(text)) for level, (background, text) in colors.items()
    ]


def hex_color(color: Rgb) -> str:
    """Return a color as CSS writes it."""
    return "#{:02x}{:02x}{:02x}".format(*color)


# --- Markdown --------------------------------------------------------------------------------------------------------


def markdown_text(blocks: Iterable[Block]) -> str:
    """Return the paragraphs, lines and tables of a document in Markdown; table syntax is escaped."""
    parts = []
    for block in blocks:
        if isinstance(block, Paragraph):
            parts.append(_markdown(block.text))
        elif isinstance(block, Facts):
            parts.append("\n".join(f"- {_markdown(line)}" for line in block.lines))
        elif isinstance(block, Table):
            rows = [[f"**{_markdown(c.text)}**" if c.bold else _markdown(c.text) for c in row] for row in block.cells]
            lines = ([_markdown(name) for name in block.header], ["---"] * len(block.header), *rows)
            parts += [_markdown(block.title)] if block.title else []
            parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts) + "\n"


def _markdown(text: str) -> str:
    flat = " ".join(text.split())
    for sign in ("\\", "|", "<", "`", "*"):
        flat = flat.replace(sign, f"\\{sign}" if sign != "<" else "&lt;")
    return flat
