"""`Report`: everything that is known about some predictions, as one self-contained, interactive page."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hf_attn_mi.atomic_files import as_path, write_file
from hf_attn_mi.errors import InvalidInputError, counted, shown
from hf_attn_mi.figures import draw
from hf_attn_mi.results.attention_subgraph import AttentionSubgraph
from hf_attn_mi.results.certificate import Certificate
from hf_attn_mi.results.comparison import Comparison
from hf_attn_mi.results.corpus_summary import CorpusSummary
from hf_attn_mi.results.document import Block, Facts, Heading, Paragraph
from hf_attn_mi.results.explanation import Explanation, Word
from hf_attn_mi.results.plots.reports import report_plots
from hf_attn_mi.results.record import Record
from hf_attn_mi.results.report_export import FORMS
from hf_attn_mi.results.report_page import report_frame, report_page
from hf_attn_mi.results.report_parts import AttentionDetail, ClassOutput
from hf_attn_mi.results.skipped_input import SkippedInput
from hf_attn_mi.results.token_set import TokenSet
from hf_attn_mi.results.words import Words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED = 3  # words that the sentence names at most
NAMED_SHARE = 0.6  # share of the strongest word's score that a further named word reaches
FEW_TEXTS = 3  # inputs up to which the text of a report lists the words
PAGES = (".html", ".htm")


@dataclass(frozen=True)
class ReportItem:
    """One input of a report.

    Attributes:
        classes: what the model gives to each class, in the order of their numbers; () for a target function.
        explanations: one for each explained class or other target by the method of the report; the first one is of the
            target.
        methods: explanations of the same class by other methods.
        value: the explained value of the target; None if it is not known.
        anchors: tokens whose outputs are read (of an entity, an answer, a mask); () for a class of the whole input.
        label: name of the class that the input has according to its author; None if it is not known.
        token_set: the minimal set of tokens; None if it was not computed, like the certificate and the attention.
        certificate: the certificate of efficient attention.
        attention: the heads of the input.
        subgraph: attention weights that carry the prediction.
        notes: for what was not computed, the reason: "token_set", "certificate", "attention", "subgraph", or a method's
            name.
    """

    classes: tuple[ClassOutput, ...]
    explanations: tuple[Explanation, ...]
    methods: tuple[Explanation, ...] = ()
    value: float | None = None
    anchors: tuple[int, ...] = ()
    label: str | None = None
    token_set: TokenSet | None = None
    certificate: Certificate | None = None
    attention: AttentionDetail | None = None
    subgraph: AttentionSubgraph | None = None
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def explanation(self) -> Explanation:
        """The explanation of the target."""
        return self.explanations[0]

    @property
    def prediction(self) -> ClassOutput | None:
        """The class that the model gives the largest value; None without classes."""
        return max(self.classes, key=lambda one: one.value, default=None)

    @property
    def correct(self) -> bool | None:
        """Whether the prediction is the label; None if one of the two is not known."""
        prediction = self.prediction
        return None if self.label is None or prediction is None else prediction.name == self.label

    @property
    def because(self) -> tuple[Word, ...]:
        """The words that the sentence names: those with the highest scores, () if none supports the target.

        A word that occurs several times is named once; punctuation is not named.
        """
        named: dict[str, Word] = {}
        for word in self.explanation.top(len(self.explanation.tokens), by="positive"):
            if len(named) < NAMED and not _is_punctuation(word.text.strip()):
                named.setdefault(word.text.strip().casefold(), word)
        strongest = max((word.score for word in named.values()), default=0.0)
        return tuple(word for word in named.values() if word.score >= NAMED_SHARE * strongest)

    @property
    def sentence(self) -> str:
        """The prediction, its probability and the words that made it, as in "positive, 97.6 %, because of 'joy'"."""
        words = ", ".join(repr(word.text.strip()) for word in self.because)
        opening = self.explanation.target_name
        if self.explanation.probability is not None:
            opening += f", {100 * self.explanation.probability:.1f} %"
        if not self.explanation.info.get("class_linked", True):
            return f"{opening}; {self.explanation.info.get('method')} puts most weight on {words or 'no word'}."
        return f"{opening}, because of {words}." if words else f"{opening}; no word supports it."


@dataclass(frozen=True, eq=False, repr=False)
class Report(Record):
    """What a model predicts on some inputs, which words and attention weights made it, and how that is known.

    `save("report.html")` writes one self-contained page: nothing is loaded, and its only script is its own. A name that
    ends in .json or .json.gz gets the data instead, which `load` reads. `to_pandas` has a row for each input.

    Attributes:
        items: one for each input; () if the report is about a corpus alone.
        comparison: a comparison of methods on these or other inputs; its verdict is shown. None if there is none.
        second: a report on the same inputs that is shown beside this one; see `beside`. None if there is none.
        info: how it was computed, JSON-like.
        skipped: inputs that could not be used, with the reasons (errors="skip"); they are not among `items`.
        corpus: a summary of a whole data set, which is shown below the inputs, or alone. None if there is none.

    Raises:
        InvalidInputError: neither an item nor a corpus; an item without an explanation; `info` that is not JSON-like.
    """

    TYPE: ClassVar[str] = "hf_attn_mi.Report"
    NOUN: ClassVar[str] = "report"
    ADDED: ClassVar[frozenset[str]] = frozenset({"corpus"})

    items: tuple[ReportItem, ...]
    comparison: Comparison | None = None
    second: Report | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    skipped: tuple[SkippedInput, ...] = ()
    corpus: CorpusSummary | None = None

    def to_html(self) -> str:
        """Return the page: one file of HTML, CSS, data and a script that loads nothing.

        Its content security policy allows this script only, by its hash. Texts and tokens are data, never markup. The
        panels of a corpus need no script, and the page of a corpus alone has none.
        """
        return report_page(self)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the page (.html, .htm) or the data (.json, .json.gz), whole or not at all.

        Args:
            path: the file; its suffix selects the format.
            overwrite: replace an existing file. Else the file is created exclusively.

        Raises:
            InvalidInputError: another suffix, a missing folder, or an existing file without `overwrite=True`.
        """
        name = as_path(path).name.lower()
        if name.endswith(PAGES):
            write_file(self.to_html().encode("utf-8"), path, overwrite=overwrite)
        elif name.endswith((".json", ".json.gz")):
            super().save(path, overwrite=overwrite)
        else:
            raise InvalidInputError(
                f"path={str(path)!r}: the name must end in .json or .json.gz (the data) or in .html (the page)"
            )

    def export(self, path: str | Path, *, input: int = 0, overwrite: bool = False) -> None:
        """Write the words of one input with their scores, for a paper or a table.

        Args:
            path: .svg or .png (the words in their colors; .png needs the extra 'plots'), .tex (LaTeX with colorbox) or
                .csv (each word with its score for every class and method of the report).
            input: the number of the input, from 0.
            overwrite: replace an existing file.

        Raises:
            InvalidInputError: another suffix, an input that does not exist, or a path as in `save`.
            BackendUnavailableError: .png without matplotlib.
        """
        item = self._item(input)
        suffix = as_path(path).suffix.lower()
        if suffix not in FORMS:
            raise InvalidInputError(f"path={str(path)!r}: the name must end in {', '.join(FORMS)}")
        in_set = () if item.token_set is None else item.token_set.indices
        content = FORMS[suffix]((*item.explanations, *item.methods), frozenset(in_set))
        write_file(content, path, overwrite=overwrite)

    def plot(
        self,
        path: str | Path | None = None,
        *,
        kind: str | None = None,
        ax: Axes | None = None,
        input: int = 0,
        head: tuple[int, int] | None = None,
    ) -> Figure:
        """Return a matplotlib figure of one input.

        Args:
            path, ax: as in `Record.plot`.
            kind: "text" (the words in their colors, the minimal token set underlined; for an image or a recording
                "image" or "sound"), "words", "tokens", "heads", "attention" (raw, effective and efficient weights of a
                head on one scale), "intervals" (where the weights of its row can lie), "token_set", "certificate" or
                "subgraph".
            input: the number of the input, from 0.
            head: (place of the layer, head) for "attention" and "intervals"; None for the largest contribution.

        Raises:
            BackendUnavailableError: matplotlib is not installed (extra `plots`).
            InvalidInputError: another kind or input, what this report does not hold, or a path that cannot be written.
        """
        return draw(report_plots(self._item(input), head), self.NOUN, path, kind, ax)

    def _item(self, place: int) -> ReportItem:
        if not self.items:
            raise InvalidInputError("this report is about a corpus alone: report.corpus has its words and plots.")
        if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < len(self.items):
            raise InvalidInputError(f"input must be a whole number from 0 to {len(self.items) - 1}, not {shown(place)}")
        return self.items[place]

    def _repr_html_(self) -> str:
        return report_frame(self)

    def _check(self) -> None:
        if not self.items and self.corpus is None:
            raise InvalidInputError("items is empty: a report is about one input or more, or about a corpus")
        for place, item in enumerate(self.items):
            if not item.explanations:
                raise InvalidInputError(f"items[{place}].explanations is empty: one of the target is needed")
        if self.second is not None:
            _check_second(self, self.second)

    def beside(self, second: Report) -> Report:
        """Return this report with another one on the same inputs, by another model or method, beside it.

        Args:
            second: a report on the same texts, in the same order.

        Raises:
            InvalidInputError: other texts, or a report that has a second one already.
        """
        if not isinstance(second, Report):
            raise InvalidInputError(f"second must be a Report, not {type(second).__name__}")
        return replace(self, second=second)

    def _blocks(self) -> Sequence[Block]:
        names = {name: str(self.info[name]) for name in ("model", "method") if name in self.info}
        blocks: list[Block] = []
        if self.items:
            blocks.append(Heading(f"Report on {counted(len(self.items), 'input')}", names))
        for item in self.items:
            blocks.append(Paragraph(item.sentence[:1].upper() + item.sentence[1:]))
            if len(self.items) <= FEW_TEXTS:
                one = item.explanation
                blocks.append(Words(one._pieces(), one.target_name, bool(one.info.get("class_linked", True))))
            blocks.append(Facts(list(_evidence(item))))
        for skipped in self.skipped:
            blocks += skipped._blocks()
        if self.comparison is not None:
            blocks.append(Paragraph(self.comparison.recommendation, wrapped=True))
        if self.corpus is not None:
            blocks += self.corpus._blocks()
        return blocks if self.second is None else [*blocks, *self.second._blocks()]

    def _columns(self) -> dict[str, list[Any]]:
        items = self.items
        return {
            "text": [" | ".join(item.explanation.texts) for item in items],
            "target": [item.explanation.target_name for item in items],
            "probability": [item.explanation.probability for item in items],
            "label": [item.label for item in items],
            "correct": [item.correct for item in items],
            "because": [", ".join(word.text.strip() for word in item.because) for item in items],
            "token_set": [None if item.token_set is None else item.token_set.outcome for item in items],
            "certificate": [None if item.certificate is None else item.certificate.outcome for item in items],
        }

    def _summary(self) -> dict[str, object]:
        return {"inputs": len(self.items), "model": self.info.get("model"), "method": self.info.get("method")}


def _is_punctuation(text: str) -> bool:
    return all(unicodedata.category(sign).startswith("P") for sign in text)


def _check_second(first: Report, second: Report) -> None:
    if second.second is not None:
        raise InvalidInputError("second has a second report itself: at most two can be shown side by side")
    texts = [[item.explanation.texts for item in report.items] for report in (first, second)]
    if texts[0] != texts[1]:
        raise InvalidInputError(
            f"second is about other inputs: {len(texts[0])} and {len(texts[1])} inputs, which must have the same texts"
        )


def _evidence(item: ReportItem) -> Iterator[str]:
    """The facts about one prediction, one line each."""
    if item.label is not None:
        verdict = "" if item.correct is None else ": correct" if item.correct else ": the prediction is wrong"
        yield f"Gold label {item.label}{verdict}."
    tokens = item.token_set
    if tokens is not None and tokens.defined and tokens.p_set is not None and tokens.p_rest is not None:
        words = ", ".join(repr(word.text) for word in tokens.words)
        yield (
            f"Minimal token set ({tokens.outcome}): {words}. Alone it has {_percent(tokens.p_set)}, all other tokens "
            f"together {_percent(tokens.p_rest)}."
        )
    elif tokens is not None:
        yield f"Minimal token set ({tokens.outcome}): {tokens.reason}"
    subgraph = item.subgraph
    if subgraph is not None and subgraph.units:
        one = len(subgraph.units) == 1
        yield (
            f"{len(subgraph.units):,} of {subgraph.unit_count:,} attention weights "
            f"{'carries' if one else 'carry'} {subgraph.target_name!r} ({subgraph.outcome}): alone "
            f"{'it has' if one else 'they have'} {_percent(subgraph.p_set)}, all others together "
            f"{_percent(subgraph.p_rest)}."
        )
    elif subgraph is not None:
        yield f"Attention weights ({subgraph.outcome}): {subgraph.reason}"
    certificate = item.certificate
    if certificate is not None:
        changed, rows = (sum(getattr(layer, name) for layer in certificate.layers) for name in ("changed", "rows"))
        yield (
            f"Certificate of efficient attention ({certificate.outcome}): {changed} of {rows} attention rows were "
            f"replaced, the {certificate.output} moved by {certificate.change.relative:.1e} of their size."
        )


def _percent(probability: float | None) -> str:
    return "none" if probability is None else f"{100 * probability:.1f} %"
