"""TokenScores words as one self-contained piece of HTML or as terminal text: pure functions on plain arguments."""

from __future__ import annotations

import html
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

LEVELS = 10  # steps of color on each side of zero

Rgb = tuple[int, int, int]
# Blue and orange-red keep apart under every common color blindness; zero is the background of the theme.
_ZERO: tuple[Rgb, Rgb] = ((255, 255, 255), (27, 28, 32))  # light, dark
_POSITIVE: tuple[Rgb, Rgb] = ((33, 102, 172), (91, 164, 235))
_NEGATIVE: tuple[Rgb, Rgb] = ((205, 74, 20), (240, 120, 62))
_CUBE = (0, 95, 135, 175, 215, 255)  # the six steps of the 256-color terminal palette


_MEANINGS = {
    "score of a word": (
        "sum of its tokens' scores, signed: positive speaks for the class named above. With methods relevance and "
        "attnlrp in logits (class logit minus the mean of the others), with attnlrp_iterative in logits times the factor of "
        "its stage (read the order), with the attention methods the attention its tokens receive."
    ),
    "probability": "what the model gives to the class named above.",
    "completeness gap": "|value - sum of scores - bias terms| / max(|value|, sum of |scores|): what stays unexplained.",
    "n, rank": "real tokens, and the rank of a head's values. Where n <= rank the output determines the attention.",
    "difference": "||A - A_eff|| / ||A||: the share of a head's attention that leaves no trace in its output.",
    "entropy": "of the attention rows, in nats, mean over queries: 0 looks at one token, ln n at all alike.",
}  # docs/reading_results.md says more


class Piece(NamedTuple):
    """A stretch of text in reading order: a word with its score, or the text between words (score None)."""

    text: str
    score: float | None = None
    label: str = ""  # how lists name the word; its text when empty


def split_text(text: str, words: Iterable[tuple[int, int, float, str]]) -> list[Piece]:
    """Return `text` cut into words and what lies between; the pieces joined give `text` back exactly.

    Whitespace at a word's edges (byte-level tokenizers count the space before) stays outside of the word's piece.
    Where spans overlap, the characters belong to the first word and the later one has less text, or none.

    Args:
        text: the original text.
        words: (start, end, score, label), characters of `text`.

    Example:
        >>> split_text("so good", [(0, 2, 0.1, "so"), (2, 7, 0.5, "good")])[1:]
        [Piece(text=' ', score=None, label=''), Piece(text='good', score=0.5, label='good')]
    """
    pieces: list[Piece] = []
    done = 0
    for start, end, score, label in sorted(words, key=lambda word: word[:2]):
        start, end = max(start, done), max(end, done)
        inner = text[start:end].strip()
        if inner:
            start = text.index(inner, start)
            end = start + len(inner)
        if start > done:
            pieces.append(Piece(text[done:start]))
        pieces.append(Piece(text[start:end], score, label))
        done = end
    if done < len(text):
        pieces.append(Piece(text[done:]))
    return pieces


def level_of(score: float, scale: float) -> int | None:
    """Return the color level of a score, -LEVELS to LEVELS, 0 at zero; None for NaN. `scale` has the full color.

    Example:
        >>> level_of(-0.5, 1.0)
        -5
    """
    if math.isnan(score):
        return None
    if score == 0 or scale <= 0:
        return 0
    return round(LEVELS * max(-1.0, min(1.0, score / scale)))


def level_colors(level: int, *, dark: bool = False) -> tuple[Rgb, Rgb]:
    """Return background and text color (sRGB, 0-255) of a level.

    The text is black or white, whichever stands out more: one of the two always has a WCAG contrast of at least
    sqrt(21) = 4.58 > 4.5 (level AA), whatever the background.

    Example:
        >>> level_colors(10)
        ((33, 102, 172), (255, 255, 255))
    """
    zero = _ZERO[dark]
    full = (_POSITIVE if level > 0 else _NEGATIVE)[dark]
    share = abs(level) / LEVELS
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(zero, full))
    return (red, green, blue), _text_color((red, green, blue))


def format_score(score: float) -> str:
    """Return a signed number with four digits: "+0.1235", "-2", "0", "NaN", "+inf"."""
    if math.isnan(score):
        return "NaN"
    return "0" if score == 0 else f"{score:+.4g}"


def html_fragment(
    texts: Sequence[Sequence[Piece]],
    *,
    label: str,
    details: Mapping[str, str],
    facts: Sequence[str] = (),
    layers: Sequence[Sequence[str]] = (),
    top: int = 8,
) -> str:
    """Return one `<section>` with its own style: colored text, legend, top words, facts and a table of layers.

    No script and nothing from outside. All that is passed in is escaped; the text content of each text's block is
    the original text. Every word can be hovered and focused and then tells its score.

    Args:
        texts: the pieces of each text (see `split_text`); two for a sentence pair.
        label: the class explained.
        details: name and value for the header: probability, method, model.
        facts: one line each on how far the scores can be trusted.
        layers: rows of a table, the first one its header; folded away until opened.
        top: words in the list of the strongest.

    Example:
        >>> "<mark>" in html_fragment([[Piece("<mark>", 1.0)]], label="A & B", details={})
        False
    """
    scored = _scored(texts)
    scale = _scale(scored)
    blocks = []
    for number, pieces in enumerate(texts, start=1):
        caption = f'<p class="m">Text {number}</p>' if len(texts) > 1 else ""
        blocks.append(f'{caption}<div class="t" dir="auto">{"".join(_chip(piece, scale) for piece in pieces)}</div>')
    header = " · ".join(f"{_escape(name)} <b>{_escape(value)}</b>" for name, value in details.items())
    strongest = [
        f'<tr><td><bdi>{_escape(_name(piece))}</bdi></td><td class="{_css_class(score, scale)}">'
        f"{format_score(score)}</td></tr>"
        for piece, score in scored[:top]
    ]
    head = "<tr><th>strongest words</th><th>score</th></tr>"
    words_table = f"<table>{head}{''.join(strongest)}</table>" if scored else "<p>No words.</p>"
    fact_list = f"<ul>{''.join(f'<li>{_escape(fact)}</li>' for fact in facts)}</ul>" if facts else ""
    return (
        f'<section class="hf-attn-mi">{_STYLE}<h2>{_escape(label)}</h2><p class="m">{header}</p>{"".join(blocks)}'
        f"{_legend(label, scale)}{words_table}{fact_list}{_layer_table(layers)}{_meanings()}</section>"
    )


def _meanings() -> str:
    rows = "".join(f"<dt>{_escape(name)}</dt><dd>{_escape(meaning)}</dd>" for name, meaning in _MEANINGS.items())
    return f'<details class="n"><summary>What these numbers mean</summary><dl>{rows}</dl></details>'


def html_page(fragments: Sequence[str], title: str) -> str:
    """Return one self-contained HTML page of results of `html_fragment`; the style is kept once.

    Args:
        fragments: HTML, put in as it is.
        title: plain text, escaped.

    Example:
        >>> html_page([], "1 < 2").count("1 &lt; 2")
        2
    """
    body = "\n".join(fragment.replace(_STYLE, "") for fragment in fragments)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{_escape(title)}</title>{_STYLE}</head>\n'
        f'<body class="hf-attn-mi-page"><h1>{_escape(title)}</h1>\n{body}\n</body></html>\n'
    )


def terminal_text(
    texts: Sequence[Sequence[Piece]],
    *,
    label: str,
    details: Mapping[str, str],
    facts: Sequence[str] = (),
    color: bool = True,
    top: int = 10,
) -> str:
    """Return lines for a terminal: a heading, the strongest words with signed bars, and the facts.

    With `color` the whole text comes too, each word on its 256-color background. Without, there is no escape
    sequence at all. Control characters of the input are shown as symbols, so that a text cannot steer the terminal.

    Args:
        texts, label, details, facts, top: as in `html_fragment`.
        color: whether to write ANSI colors.

    Example:
        >>> print(terminal_text([[Piece("good", 0.5)]], label="positive", details={}, color=False).splitlines()[1])
          good  +0.5  ++++++++++++++++++++
    """
    scored = _scored(texts)
    scale = _scale(scored)
    header = ", ".join(f"{name} {value}" for name, value in details.items())
    lines = [_printable(f"{label} ({header})" if header else label)]
    if color:
        lines += ["".join(_ansi(piece, scale) for piece in pieces) for pieces in texts]
    rows = [(_fit(" ".join(_name(piece).split()), 24), score) for piece, score in scored[:top]]
    name_width = max((_width(name) for name, _ in rows), default=0)
    number_width = max((len(format_score(score)) for _, score in rows), default=0)
    for name, score in rows:
        number, bar = format_score(score), ""
        if (level := level_of(score, scale)) is not None:
            bar = ("+" if score > 0 else "-") * (2 * abs(level))
        padding = " " * (name_width - _width(name))
        lines.append(f"  {name}{padding}  {number:>{number_width}}  {bar}".rstrip())
    lines.append(_printable(_meaning(label, scale, words=("+", "-"))))
    return "\n".join(lines + [_printable(fact) for fact in facts])


def _scored(texts: Sequence[Sequence[Piece]]) -> list[tuple[Piece, float]]:
    """The words with their scores, strongest first, NaN last, equals in reading order."""
    words = [(piece, piece.score) for pieces in texts for piece in pieces if piece.score is not None]
    return sorted(words, key=lambda word: math.inf if math.isnan(word[1]) else -abs(word[1]))


def _scale(scored: Sequence[tuple[Piece, float]]) -> float:
    return max((abs(score) for _, score in scored if math.isfinite(score)), default=0.0)


def _name(piece: Piece) -> str:
    return piece.label.strip() or piece.text.strip() or "(blank)"


def _meaning(label: str, scale: float, *, words: tuple[str, str]) -> str:
    if scale == 0:
        return "No word has a score other than zero."
    return f"{words[0]} speaks for {label}, {words[1]} against; scale: ±{scale:.4g}, the largest word."


def _luminance(color: Rgb) -> float:
    """Relative luminance of WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (x / 255 for x in color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _text_color(background: Rgb) -> Rgb:
    luminance = _luminance(background)
    return (0, 0, 0) if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else (255, 255, 255)


def _escape(text: str) -> str:
    """HTML-escape; also what the HTML parser would change (carriage return) or a file cannot hold (lone surrogates)."""
    return re.sub("[\x00\ud800-\udfff]", "\ufffd", html.escape(text)).replace("\r", "&#13;")


def _css_class(score: float, scale: float) -> str:
    level = level_of(score, scale)
    if level is None:
        return "u"
    return "z" if level == 0 else f"{'p' if level > 0 else 'n'}{abs(level)}"


def _chip(piece: Piece, scale: float) -> str:
    if piece.score is None:
        return _escape(piece.text)
    tip = _escape(f"{_name(piece)}: {format_score(piece.score)}")
    empty = "" if piece.text.strip() else " e"
    return (
        f'<span class="c {_css_class(piece.score, scale)}{empty}" tabindex="0" role="note" '
        f'title="{tip}" aria-label="{tip}">{_escape(piece.text)}</span>'
    )


def _legend(label: str, scale: float) -> str:
    samples = ""
    if scale > 0:
        shares = (-1.0, -0.5, 0.0, 0.5, 1.0)
        samples = " ".join(
            f'<span class="c {_css_class(share, 1.0)}">{format_score(share * scale)}</span>' for share in shares
        )
    meaning = _meaning(label, scale, words=("Blue", "orange with a dotted line"))
    return f'<p class="l">{samples} {_escape(meaning)}</p>'


def _layer_table(rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{_escape(cell)}</th>" for cell in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{_escape(cell)}</td>' for cell in row)}</tr>" for row in rows[1:])
    return f"<details><summary>Attention per layer</summary><table><tr>{head}</tr>{body}</table></details>"


def _level_rules(dark: bool) -> str:
    rules = []
    for level in range(-LEVELS, LEVELS + 1):
        background, text = level_colors(level, dark=dark)
        selector = "z" if level == 0 else f"{'p' if level > 0 else 'n'}{abs(level)}"
        rules.append(f".hf-attn-mi .{selector}{{background:{_hex(background)};color:{_hex(text)}}}")
    return "".join(rules)


def _hex(color: Rgb) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


_STYLE = (
    "<style>"
    ".hf-attn-mi{font:15px/1.7 system-ui,sans-serif;background:#fff;color:#1a1a1a;padding:1em;margin:1em 0;"
    "border:1px solid #bbb;border-radius:6px;print-color-adjust:exact;-webkit-print-color-adjust:exact}"
    ".hf-attn-mi h2{font-size:1.2em;margin:0;color:inherit}.hf-attn-mi p{margin:.4em 0}"
    ".hf-attn-mi .m,.hf-attn-mi .l,.hf-attn-mi li,.hf-attn-mi summary{font-size:.87em}"
    ".hf-attn-mi .t{white-space:pre-wrap;overflow-wrap:anywhere;line-height:2;margin:.6em 0}"
    ".hf-attn-mi .c{border-radius:3px;position:relative}.hf-attn-mi .l .c{padding:2px 6px}"
    '.hf-attn-mi [class*=" n"]{border-bottom:2px dotted}'
    ".hf-attn-mi .u{background:#666;color:#fff;outline:1px dashed}"
    '.hf-attn-mi .e::before{content:"\\00b7"}'
    ".hf-attn-mi .c:focus{outline:2px solid}"
    ".hf-attn-mi .c:focus::after{content:attr(title);position:absolute;left:0;top:100%;z-index:1;white-space:pre;"
    "background:#000;color:#fff;padding:0 6px;border-radius:3px;line-height:1.6}"
    ".hf-attn-mi table{border-collapse:collapse;font-size:.87em;margin:.6em 0;color:inherit}"
    ".hf-attn-mi tr{background:none!important}"  # notebooks stripe tables in their own theme
    ".hf-attn-mi th,.hf-attn-mi td{padding:1px 10px;border-bottom:1px solid #bbb;text-align:left}"
    ".hf-attn-mi-page{max-width:60em;margin:2em auto;padding:0 1em;font:15px/1.7 system-ui,sans-serif;"
    "background:#fff;color:#1a1a1a}"
    f"{_level_rules(dark=False)}"
    "@media (prefers-color-scheme:dark){.hf-attn-mi,.hf-attn-mi-page{background:#1b1c20;color:#ececec}"
    f"{_level_rules(dark=True)}}}"
    "</style>"
)


def _ansi(piece: Piece, scale: float) -> str:
    text = _printable(piece.text)
    if piece.score is None or not (level := level_of(piece.score, scale)):
        return text
    cube = [min(range(6), key=lambda step: abs(_CUBE[step] - channel)) for channel in level_colors(level)[0]]
    shown = (_CUBE[cube[0]], _CUBE[cube[1]], _CUBE[cube[2]])
    foreground = 16 if _text_color(shown) == (0, 0, 0) else 231
    paint = f"\x1b[38;5;{foreground};48;5;{16 + 36 * cube[0] + 6 * cube[1] + cube[2]}m"
    # Off before a line break, or the color fills the rest of the row.
    return paint + text.replace("\n", f"\x1b[0m\n{paint}") + "\x1b[0m"


def _printable(text: str) -> str:
    """Control characters as symbols, newline and tab kept; lone surrogates, which no stream can write, replaced."""
    text = re.sub(r"[\x00-\x08\x0b-\x1f]", lambda match: chr(0x2400 + ord(match[0])), text)
    return re.sub("[\x7f-\x9f\ud800-\udfff]", "\ufffd", text)


def _width(text: str) -> int:
    """Columns of a terminal: two for wide characters, none for combining ones and joiners."""
    return sum(
        0 if unicodedata.category(char) in ("Mn", "Me", "Cf") else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )


def _fit(text: str, width: int) -> str:
    text = _printable(text)
    if _width(text) <= width:
        return text
    kept, used = "", 1  # one column for the ellipsis
    for char in text:
        used += _width(char)
        if used > width:
            break
        kept += char
    return kept + "…"
