"""`CorpusSummary`: what a model has learned, from the scores of a whole data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from hf_attn_mi.errors import InvalidInputError, counted
from hf_attn_mi.results.document import Block, Facts, Heading, Paragraph, Table
from hf_attn_mi.results.plots.corpus import draw_class_words, draw_error_words
from hf_attn_mi.results.record import Record
from hf_attn_mi.results.report_page import corpus_page
from hf_attn_mi.results.words import format_score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEVEL = 0.05  # family-wise, of the tests
MOST_LISTED = 20  # classes that the text lists, the most frequent first


UNIT = (
    "Contributions have the unit of the scores of the method; of scores that add up, as those of 'relevance', that of "
    "the explained value: the logit of the class less the mean of the others."
)


def _rejects(adjusted: float | None) -> bool:
    return adjusted is not None and adjusted < LEVEL


@dataclass(frozen=True)
class ClassWord:
    """A word and its mean contribution to a class.

    Attributes:
        word: in lower case.
        target_name: the class that was explained.
        inputs: inputs that were explained as this class and hold the word.
        count: times that it occurs in them.
        mean: mean over these inputs of its mean score in each.
        interval: 95 %, bootstrap over inputs.
        chance: the same mean for a word of the same inputs that is drawn at random.
        p_value: an upper bound, that the word contributes as a word drawn at random from each of the inputs (see
            `hf_attn_mi.evaluation.random_word`); None where the scores do not vary.
        adjusted: the same after Holm's correction over all words and classes that were tested.
        examples: where it contributes most: some words around it.
    """

    word: str
    target_name: str
    inputs: int
    count: int
    mean: float
    interval: tuple[float, float] | None
    chance: float
    p_value: float | None
    adjusted: float | None
    examples: tuple[str, ...] = ()

    @property
    def significant(self) -> bool:
        """Whether the test rejects at the family-wise level of 0.05."""
        return _rejects(self.adjusted)


@dataclass(frozen=True)
class ErrorWord:
    """A word whose contribution to a class differs between wrong and correct predictions.

    Attributes:
        word: in lower case.
        target_name: the predicted class.
        errors: wrong predictions with the word.
        correct: correct predictions with the word.
        mean_errors: mean contribution in the wrong ones.
        mean_correct: mean contribution in the correct ones.
        difference: mean_errors - mean_correct.
        interval: 95 % of the difference, bootstrap over inputs.
        p_value: of Welch's t-test that there is no difference; None where the values do not vary.
        adjusted: the same after Holm's correction over all words and classes that were tested.
        examples: from the errors.
    """

    word: str
    target_name: str
    errors: int
    correct: int
    mean_errors: float
    mean_correct: float
    difference: float
    interval: tuple[float, float] | None
    p_value: float | None
    adjusted: float | None
    examples: tuple[str, ...] = ()

    @property
    def significant(self) -> bool:
        """Whether the test rejects at the family-wise level of 0.05."""
        return _rejects(self.adjusted)


@dataclass(frozen=True)
class OpposingWord:
    """A word that speaks against the class in whose inputs it mostly occurs.

    Attributes:
        word: in lower case.
        label: the class of most inputs with the word: the gold label, or the explained class without labels.
        share: the share of its inputs with this label.
        inputs: inputs with the word whose contribution to the class is known.
        mean: mean contribution to the class, below zero.
        interval: 95 %, bootstrap over inputs.
        p_value: of Student's t-test that the mean is zero; None where the values do not vary.
        adjusted: the same after Holm's correction over all words that were tested.
        examples: where it contributes most against the class.
    """

    word: str
    label: str
    share: float
    inputs: int
    mean: float
    interval: tuple[float, float] | None
    p_value: float | None
    adjusted: float | None
    examples: tuple[str, ...] = ()

    @property
    def significant(self) -> bool:
        """Whether the test rejects at the family-wise level of 0.05."""
        return _rejects(self.adjusted)


@dataclass(frozen=True, eq=False, repr=False)
class CorpusSummary(Record):
    """What the model has learned: words that speak for each class, words of errors, and words against their class.

    Attributes:
        rows: explanations that were read.
        classes: explained classes, the most frequent first.
        counts: explanations of each class.
        accuracy: share of correct predictions; None without gold labels.
        words: of each class those with the largest mean contribution that is above zero and above chance.
        errors: those with the largest differences between wrong and correct predictions.
        opposing: those that speak against the class of most of their inputs.
        tested: number of tests of words and classes against chance.
        least: words in fewer inputs were left out.
        info: model, method, versions, data, folder and seed.
        skipped: rows that could not be explained; their reasons are in the errors files of the folder.
        inputs: rows of the data set that were explained, fewer than `rows` where each has several targets; None in
            files of earlier versions, which count explanations only.
        missing: rows of the data set that were not explained yet, because the run is not finished.
        labeled: predictions with a gold label that names a class; None in files of earlier versions.
        unnamed: explanations with a gold label that names no class of the model.

    Raises:
        InvalidInputError: counts and classes disagree.
    """

    TYPE: ClassVar[str] = "hf_attn_mi.CorpusSummary"
    NOUN: ClassVar[str] = "summary of a data set"
    ADDED: ClassVar[frozenset[str]] = frozenset({"skipped", "inputs", "missing", "labeled", "unnamed"})
    LEVEL: ClassVar[float] = LEVEL

    rows: int
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    accuracy: float | None
    words: tuple[ClassWord, ...]
    errors: tuple[ErrorWord, ...]
    opposing: tuple[OpposingWord, ...]
    tested: int
    least: int
    info: Mapping[str, Any] = field(default_factory=dict)
    skipped: int = 0
    inputs: int | None = None
    missing: int = 0
    labeled: int | None = None
    unnamed: int = 0

    @property
    def heading(self) -> str:
        """What the summary is about."""
        return f"What the model has learned from {counted(self.rows if self.inputs is None else self.inputs, 'input')}"

    def to_html(self) -> str:
        """Return one self-contained HTML page: nothing is loaded, and no script runs.

        The same panels stand in a `Report` that holds this summary.
        """
        return corpus_page(self)

    @property
    def unfinished(self) -> str:
        """A sentence about the rows that were not explained yet."""
        verb = "is" if self.missing == 1 else "are"
        return (
            f"{counted(self.missing, 'row')} of the data set {verb} not explained yet: run explain-dataset again, "
            "then summarize."
        )

    @property
    def unnamed_labels(self) -> str:
        """A sentence about gold labels that name no class."""
        verb = "names" if self.unnamed == 1 else "name"
        return (
            f"{counted(self.unnamed, 'gold label')} {verb} no class of the model ({', '.join(self.classes[:4])}...): "
            "these inputs count for no accuracy and no error."
        )

    def of_class(self, name: str) -> tuple[ClassWord, ...]:
        """Return the words of a class, the largest mean contribution first."""
        return tuple(one for one in self.words if one.target_name == name)

    def _check(self) -> None:
        if len(self.classes) != len(self.counts):
            raise InvalidInputError(f"counts has {len(self.counts)} entries for {len(self.classes)} classes")

    def _blocks(self) -> list[Block]:
        details = {key: str(self.info[key]) for key in ("model", "method", "data") if self.info.get(key) is not None}
        parts = [f"{name}: {count:,}" for name, count in zip(self.classes, self.counts)]
        left = f" and {counted(len(parts) - MOST_LISTED, 'more class')}" if len(parts) > MOST_LISTED else ""
        facts = [f"Unfinished: {self.unfinished}"] if self.missing else []
        facts.append(f"Explained classes: {', '.join(parts[:MOST_LISTED])}{left}.")
        if self.skipped:
            facts.append(f"{counted(self.skipped, 'row')} could not be explained; the errors files say why.")
        if self.accuracy is not None:
            basis = "" if self.labeled is None else f" of {counted(self.labeled, 'prediction')} with a gold label"
            facts.append(f"Accuracy: {self.accuracy:.1%}{basis}.")
        if self.unnamed:
            facts.append(self.unnamed_labels)
        facts.append(
            f"Words in fewer than {self.least} inputs are left out; {self.tested:,} words and classes were tested "
            f"against chance (* : p < {LEVEL} after Holm's correction). {UNIT}"
        )
        blocks: list[Block] = [Heading(self.heading, details), Facts(facts)]
        for name in self.classes[:MOST_LISTED]:
            rows = [_class_row(one) for one in self.of_class(name)]
            if rows:
                header = ("word", "mean", "95 %", "chance", "inputs", "example")
                blocks.append(Table(header, rows, title=f"Words for {name}"))
        if left:
            rule = f"These are words of the {MOST_LISTED} most frequent classes; `to_pandas` has those of all classes."
            blocks.append(Paragraph(rule))
        if self.errors:
            columns = (
                "word", "predicted", "in errors", "in correct", "difference", "95 %", "errors / correct", "example"
            )  # fmt: skip
            title = f"Words of errors: the largest differences, {_significant(self.errors)}"
            blocks.append(Table(columns, [_error_row(one) for one in self.errors], title=title))
        if self.opposing:
            names = ("word", "mostly in", "share", "mean", "95 %", "inputs", "example")
            title = f"Words that speak against the class they mostly occur in, {_significant(self.opposing)}"
            blocks.append(Table(names, [_opposing_row(one) for one in self.opposing], title=title))
        if not self.words:
            blocks.append(Paragraph(f"No word of {self.least} or more inputs contributes more than chance."))
        return blocks

    def _plots(self) -> dict[str, Callable[[Axes | None], Figure]]:
        plots: dict[str, Callable[[Axes | None], Figure]] = {}
        if self.words:
            plots["words"] = partial(draw_class_words, self)
        if self.errors:
            plots["errors"] = partial(draw_error_words, self)
        return plots

    def _columns(self) -> dict[str, list[Any]]:
        names = ("word", "target_name", "inputs", "count", "mean", "chance", "p_value", "adjusted")
        columns: dict[str, list[Any]] = {name: [getattr(one, name) for one in self.words] for name in names}
        for place, name in enumerate(("low", "high")):
            columns[name] = [None if one.interval is None else one.interval[place] for one in self.words]
        return columns

    def _summary(self) -> dict[str, object]:
        return {"rows": self.rows, "classes": len(self.classes), "words": len(self.words), "errors": len(self.errors)}


def _class_row(one: ClassWord) -> list[str]:
    numbers = [
        f"{format_score(one.mean)}{_mark(one)}",
        _interval(one.interval),
        format_score(one.chance),
        f"{one.inputs:,}",
    ]
    return [one.word, *numbers, _example(one.examples)]


def _error_row(one: ErrorWord) -> list[str]:
    means = [format_score(one.mean_errors), format_score(one.mean_correct)]
    numbers = [f"{format_score(one.difference)}{_mark(one)}", _interval(one.interval)]
    return [one.word, one.target_name, *means, *numbers, f"{one.errors} / {one.correct}", _example(one.examples)]


def _opposing_row(one: OpposingWord) -> list[str]:
    numbers = [f"{format_score(one.mean)}{_mark(one)}", _interval(one.interval), f"{one.inputs:,}"]
    return [one.word, one.label, f"{one.share:.0%}", *numbers, _example(one.examples)]


def _significant(words: Sequence[ErrorWord | OpposingWord]) -> str:
    """How many of the words that are shown the test rejects."""
    return f"{sum(one.significant for one in words)} of {len(words)} significant"


def _mark(one: ClassWord | ErrorWord | OpposingWord) -> str:
    return "*" if one.significant else ""


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{format_score(interval[0])} to {format_score(interval[1])}"


def _example(examples: Sequence[str]) -> str:
    return examples[0] if examples else ""
