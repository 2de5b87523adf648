"""The words of a `CorpusSummary` as rows of a page: names, places on an axis, numbers and texts."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from hf_attn_mi.errors import counted
from hf_attn_mi.results.words import format_score

if TYPE_CHECKING:
    from hf_attn_mi.results.corpus_summary import ClassWord, CorpusSummary, ErrorWord, OpposingWord

MOST_CLASSES = 8  # classes with a panel of their own; the others are named
MOST_ROWS = 20  # words of a panel; the others are named
MOST_NAMES = 60  # names in a sentence
WORD, NAME, EXAMPLE = 32, 60, 240  # characters that are shown of a word, a name and an example
_MARGIN = 2.5  # percent of the width of a drawing that is left free on each side
_TICKS = 4  # numbers on an axis, about

Interval = tuple[float, float]


class Tick(NamedTuple):
    """A number on an axis; `place` is percent of its width."""

    text: str
    place: float


class Axis:
    """A linear axis that holds zero and all numbers given.

    Args:
        numbers: what has a place on it; those that are not finite are left out.

    Example:
        >>> axis = Axis([-1.0, 3.0])
        >>> [axis.place(x) for x in (-1.0, 0.0, 3.0)], [tick.text for tick in axis.ticks]
        ([2.5, 26.25, 97.5], ['\u22121', '0', '1', '2', '3'])
    """

    def __init__(self, numbers: Iterable[float]) -> None:
        known = [0.0, *(number for number in numbers if math.isfinite(number))]
        self.low, self.high = min(known), max(known)
        if self.low == self.high:
            self.high = 1.0

    def place(self, number: float) -> float:
        """The place of a number, in percent of the width."""
        share = (number - self.low) / (self.high - self.low)
        return round(_MARGIN + (100 - 2 * _MARGIN) * min(1.0, max(0.0, share)), 2)

    @property
    def ticks(self) -> list[Tick]:
        """Round numbers over the whole axis."""
        rough = (self.high - self.low) / _TICKS
        unit = 10.0 ** math.floor(math.log10(rough))
        step = unit * next(factor for factor in (1, 2, 5, 10) if factor * unit >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        numbers = [number * step for number in range(first, last + 1)]
        return [Tick(signed(f"{number:.6g}"), self.place(number)) for number in numbers]


@dataclass(frozen=True)
class Row:
    """A word in a panel.

    Attributes:
        word: at most `WORD` characters.
        whole: the whole word, where it is longer; "" else.
        group: the class that it is about, where the panel holds several; "" else.
        kind: "for" above zero, "against" below.
        significant: whether the test rejects, after Holm's correction.
        value: the mean or the difference.
        dot, line, chance: places on the axis; None for what is not known.
        count: the number of inputs.
        p: the adjusted p value, short; "" if it is not known.
        title: what the drawing says, for the pointer.
        facts: (name, value) of everything that is known.
        examples: for each its pieces (text, whether it is the word).
    """

    word: str
    whole: str
    group: str
    kind: str
    significant: bool
    value: str
    dot: float
    line: Interval | None
    chance: float | None
    count: str
    p: str
    title: str
    facts: Sequence[tuple[str, str]]
    examples: Sequence[Sequence[tuple[str, bool]]]


@dataclass(frozen=True)
class Panel:
    """A list of words with a drawing.

    Attributes:
        id: of the element.
        title: its heading.
        about: a line below the heading.
        meaning: what the numbers mean.
        axis: of the drawing.
        rows: the words.
        columns: the names of the columns: word, drawing, value, count.
        rest: a sentence with the words that are left out; "" if there are none.
        empty: a sentence that says why there are no words; "" if there are some.
        whole: whether it has the whole width of the page.
    """

    id: str
    title: str
    about: str
    meaning: str
    axis: Axis
    rows: Sequence[Row]
    columns: tuple[str, str, str, str]
    rest: str = ""
    empty: str = ""
    whole: bool = False


_ABOUT_WORDS = (
    "The contribution of a word to an input is the mean score of its occurrences there, in lower case. Each input "
    "counts once, so that a word that is repeated in one text does not count more. The unit is that of the scores of "
    "the method; of scores that add up, as those of relevance, the logit of the class less the mean of the others. "
)
_LINE = "The dot is the mean over inputs, the line its 95 % interval (bootstrap over inputs). "
_OPEN = "A click on a word shows all numbers and the texts."


def word_panels(summary: CorpusSummary, prefix: str) -> list[Panel]:
    """Return the panels of words: one for each of the first classes, one of errors, one of words against their class.

    Args:
        summary: what is shown.
        prefix: of the ids.
    """
    shown = [(name, summary.of_class(name)) for name in summary.classes[:MOST_CLASSES]]
    axis = Axis(
        number
        for _, words in shown
        for one in words[:MOST_ROWS]
        for number in (one.mean, one.chance, *(one.interval or ()))
    )
    panels = [
        _class_panel(summary, name, words, axis, f"{prefix}-class-{place + 1}")
        for place, (name, words) in enumerate(shown)
    ]
    return [*panels, _error_panel(summary, f"{prefix}-errors"), _opposing_panel(summary, f"{prefix}-opposing")]


def _class_panel(summary: CorpusSummary, name: str, words: Sequence[ClassWord], axis: Axis, identifier: str) -> Panel:
    rows = [
        _row(
            one,
            axis,
            one.mean,
            chance=one.chance,
            count=one.inputs,
            facts=[
                ("mean contribution", _with_interval(one.mean, one.interval)),
                ("chance", f"{score_text(one.chance)}, a word at random from these inputs"),
                ("inputs with the word", f"{one.inputs:,}, where it occurs {_times(one.count)}"),
            ],
        )
        for one in words[:MOST_ROWS]
    ]
    count = summary.counts[summary.classes.index(name)]
    return Panel(
        identifier,
        f"Words for {shortened(name, NAME)}",
        f"{counted(count, 'input')}, {percent(count / max(1, summary.rows))} of all",
        f"{_ABOUT_WORDS}{_LINE}The tick is what a word drawn at random from the same inputs contributes (chance); "
        f"only words above it, and above zero, are shown. A filled dot differs from chance: "
        f"p < {summary.LEVEL:g} after Holm's correction for the {summary.tested:,} "
        f"words and classes that were tested. {_OPEN}",
        axis,
        rows,
        ("word", "mean contribution", "mean", "inputs"),
        _rest(one.word for one in words[MOST_ROWS:]),
        "" if rows else f"No word of {summary.least} or more inputs of this class contributes more than chance.",
    )


def _error_panel(summary: CorpusSummary, identifier: str) -> Panel:
    words: Sequence[ErrorWord] = summary.errors
    axis = Axis(number for one in words[:MOST_ROWS] for number in (one.difference, *(one.interval or ())))
    rows = [
        _row(
            one,
            axis,
            one.difference,
            group=one.target_name,
            count=one.errors,
            facts=[
                ("difference", _with_interval(one.difference, one.interval)),
                ("mean in wrong predictions", f"{score_text(one.mean_errors)} in {counted(one.errors, 'input')}"),
                ("mean in correct predictions", f"{score_text(one.mean_correct)} in {counted(one.correct, 'input')}"),
            ],
        )
        for one in words[:MOST_ROWS]
    ]
    empty = ""
    if summary.accuracy is None:
        empty = "The data have no gold labels that name a class of the model, so that errors are not known."
    elif not rows:
        empty = f"No word occurs in {summary.least} wrong and {summary.least} correct predictions of one class."
    return Panel(
        identifier,
        "Words of errors",
        "contribution in wrong predictions of a class, less that in correct predictions of it",
        f"{_ABOUT_WORDS}The dot is the mean contribution in wrong predictions of a class less that in correct "
        "predictions of the same class: to the right, the word supports the class more where the prediction is wrong. "
        f"The line is the 95 % interval (bootstrap of both groups). A filled dot differs from zero: p < "
        f"{summary.LEVEL:g} by Welch's test after Holm's correction. {_OPEN}",
        axis,
        rows,
        ("word, predicted class", "difference", "difference", "errors"),
        _rest(one.word for one in words[MOST_ROWS:]),
        empty,
    )


def _opposing_panel(summary: CorpusSummary, identifier: str) -> Panel:
    words: Sequence[OpposingWord] = summary.opposing
    axis = Axis(number for one in words[:MOST_ROWS] for number in (one.mean, *(one.interval or ())))
    rows = [
        _row(
            one,
            axis,
            one.mean,
            group=one.label,
            count=one.inputs,
            facts=[
                ("mean contribution to this class", _with_interval(one.mean, one.interval)),
                (
                    "inputs with the word",
                    f"{one.inputs:,}; of all that hold it, {percent(one.share, 0)} are of this class",
                ),
            ],
        )
        for one in words[:MOST_ROWS]
    ]
    basis = "gold label" if summary.accuracy is not None else "explained class"
    return Panel(
        identifier,
        "Words against their class",
        f"words of which two thirds of the inputs have one {basis}, and that speak against it",
        f"{_ABOUT_WORDS}{_LINE}These words mostly occur with one class, and the model counts them against it: the "
        "whole interval is below zero. Of two classes, what speaks for one speaks against the other. A filled dot "
        f"differs from zero: p < {summary.LEVEL:g} by Student's test after Holm's correction. {_OPEN}",
        axis,
        rows,
        ("word, its class", "mean contribution to this class", "mean", "inputs"),
        _rest(one.word for one in words[MOST_ROWS:]),
        "" if rows else "There is no such word.",
    )


def _row(
    one: ClassWord | ErrorWord | OpposingWord,
    axis: Axis,
    value: float,
    *,
    facts: Sequence[tuple[str, str]],
    count: int,
    group: str = "",
    chance: float | None = None,
) -> Row:
    interval = one.interval
    p = "" if one.adjusted is None else "< 0.001" if one.adjusted < 0.001 else _p_text(one.adjusted)
    adjusted = "not known: the values do not vary" if one.adjusted is None else _p_text(one.adjusted)
    plain = "" if one.p_value is None else f" ({_p_text(one.p_value)} before)"
    title = f"{shortened(one.word, WORD)}: {_with_interval(value, interval)}"
    return Row(
        word=shortened(one.word, WORD),
        whole=shortened(one.word, EXAMPLE) if len(one.word) > WORD else "",
        group=shortened(group, WORD),
        kind="for" if value > 0 else "against",
        significant=one.significant,
        value=score_text(value),
        dot=axis.place(value),
        line=None if interval is None else (axis.place(interval[0]), axis.place(interval[1])),
        chance=None if chance is None else axis.place(chance),
        count=f"{count:,}",
        p=p,
        title=title if chance is None else f"{title}; chance {score_text(chance)}",
        facts=[*facts, ("p, Holm-corrected", f"{adjusted}{plain}")],
        examples=[marked(example, one.word) for example in one.examples],
    )


def _p_text(p_value: float) -> str:
    return signed(f"{p_value:.2g}".replace("e-0", "e-"))


def marked(text: str, word: str) -> list[tuple[str, bool]]:
    """A text of at most `EXAMPLE` characters, cut into pieces: (text, whether it is the word, standing alone).

    Example:
        >>> marked("Art is artful art", "art")
        [('Art', True), (' is artful ', False), ('art', True)]
    """
    text = shortened(text, EXAMPLE)
    pieces, done = [], 0
    alone = ""
    if 0 < len(word) <= len(text):  # a longer one cannot stand in it, and its pattern would be slow
        before, after = (r"\b" if re.match(r"\w", end) else "" for end in (word[0], word[-1]))
        alone = before + re.escape(word) + after
    for match in re.finditer(alone, text, re.IGNORECASE) if alone else ():
        pieces += [(text[done : match.start()], False), (match[0], True)]
        done = match.end()
    return [piece for piece in (*pieces, (text[done:], False)) if piece[0]]


def _rest(words: Iterable[str]) -> str:
    names = [shortened(word, WORD) for word in words]
    if not names:
        return ""
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return f"{counted(len(names), 'further word')}: {', '.join(names[:MOST_NAMES])}{more}."


def shortened(text: str, most: int) -> str:
    """The text on one line, with its end left out where it is longer than `most`."""
    flat = " ".join(text[: 8 * most].split())
    return flat if len(flat) <= most and len(text) <= 8 * most else f"{flat[: most - 1]}\u2026"


def _with_interval(value: float, interval: Interval | None) -> str:
    return score_text(value) + (
        "" if interval is None else f", 95 % {score_text(interval[0])} to {score_text(interval[1])}"
    )


def score_text(value: float) -> str:
    """A signed score with three digits.

    Example:
        >>> score_text(4.3), score_text(0.0)
        ('+4.30', '0')
    """
    if value == 0 or not 1e-3 <= abs(value) < 1e3:
        return signed(format_score(value))
    return signed(f"{value:+#.3g}".rstrip("."))


def percent(share: float, digits: int = 1) -> str:
    """A share of one as percent."""
    return f"{100 * share:.{digits}f}\u202f%"


def signed(text: str) -> str:
    """A number with the sign for minus."""
    return text.replace("-", "\u2212")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"
