"""Scored words in their text: how a text is cut into them, and in which colors they are shown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, NamedTuple

LEVELS = 10  # steps of color on each side of zero

Rgb = tuple[int, int, int]
# Blue and orange-red stay apart under every common color blindness; zero is the background of the theme.
_ZERO: tuple[Rgb, Rgb] = ((255, 255, 255), (27, 28, 32))  # light, dark
_POSITIVE: tuple[Rgb, Rgb] = ((33, 102, 172), (91, 164, 235))
_NEGATIVE: tuple[Rgb, Rgb] = ((205, 74, 20), (240, 120, 62))


class Piece(NamedTuple):
    """A part of a text in reading order: a word with its score, or the text between words (score None)."""

    text: str
    score: float | None = None
    label: str = ""  # how lists name the word; its text when empty

    @property
    def name(self) -> str:
        """The name of the word in lists and tooltips."""
        return self.label.strip() or self.text.strip() or "(blank)"


@dataclass(frozen=True)
class Words:
    """The scored words of one input, as a block of a document.

    Attributes:
        texts: the pieces of each text (see `split_text`); two for a sentence pair.
        label: the class explained.
        class_linked: whether the sign of a score says for or against that class.
        unit: what has a score: "word", "patch" or "moment".
    """

    texts: Sequence[Sequence[Piece]]
    label: str
    class_linked: bool = True
    unit: str = "word"
    kind: ClassVar[Literal["words"]] = "words"

    @cached_property
    def ranked(self) -> list[Piece]:
        """The words, strongest first, NaN last, equals in reading order."""
        words = [piece for pieces in self.texts for piece in pieces if piece.score is not None]
        return sorted(words, key=lambda piece: magnitude_order(piece.score or 0.0))

    @property
    def units(self) -> str:
        """The plural of `unit`."""
        return f"{self.unit}es" if self.unit.endswith("ch") else f"{self.unit}s"

    @cached_property
    def scale(self) -> float:
        """The largest finite magnitude of a score, which has the full color."""
        return max((abs(x) for p in self.ranked if (x := p.score) is not None and math.isfinite(x)), default=0.0)

    @property
    def samples(self) -> list[tuple[float, str]]:
        """Scores over the whole scale with their CSS class, for the legend."""
        shares = (-1.0, -0.5, 0.0, 0.5, 1.0) if self.scale > 0 else ()
        return [(share * self.scale, self.css(share * self.scale)) for share in shares]

    def css(self, score: float) -> str:
        """Return the CSS class of a score's color."""
        level = level_of(score, self.scale)
        return "u" if level is None else css_of_level(level)

    def legend(self, positive: str, negative: str) -> str:
        """Return what the two colors or signs mean; without a class, they mean only the sign of the score."""
        if self.scale == 0:
            return f"No {self.unit} has a score other than zero."
        scale = f"scale: ±{self.scale:.4g}, the largest {self.unit}."
        if self.class_linked:
            return f"{positive} speaks for {self.label}, {negative} against; {scale}"
        return (
            f"The scores of this method do not refer to a class: {positive} and {negative} are the sign of the score, "
            f"not evidence for or against {self.label}; {scale}"
        )


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


def magnitude_order(score: float) -> float:
    """Return the sorting key of a score: largest magnitude first, NaN last."""
    return math.inf if math.isnan(score) else -abs(score)


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


def css_of_level(level: int) -> str:
    """Return the CSS class of a color level."""
    return "z" if level == 0 else f"{'p' if level > 0 else 'n'}{abs(level)}"


def level_colors(level: int, *, dark: bool = False) -> tuple[Rgb, Rgb]:
    """Return background and text color (sRGB, 0-255) of a level.

    Example:
        >>> level_colors(10)
        ((33, 102, 172), (255, 255, 255))
    """
    zero = _ZERO[dark]
    full = (_POSITIVE if level > 0 else _NEGATIVE)[dark]
    share = abs(level) / LEVELS
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(zero, full))
    return (red, green, blue), text_color((red, green, blue))


def text_color(background: Rgb) -> Rgb:
    """Return black or white, whichever stands out more.

    One of the two always has a WCAG contrast of at least sqrt(21) = 4.58 > 4.5 (level AA), whatever the background.
    """
    channels = (c / 255 for c in background)
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return (0, 0, 0) if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else (255, 255, 255)


def format_score(score: float) -> str:
    """Return a signed number with four digits: "+0.1235", "-2", "0", "NaN", "+inf"."""
    if math.isnan(score):
        return "NaN"
    return "0" if score == 0 else f"{score:+.4g}"
