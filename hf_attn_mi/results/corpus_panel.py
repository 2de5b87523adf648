"""The panels of a `CorpusSummary` on a page: plain HTML and SVG, which need no script.

What a page holds is bounded: the most frequent classes with their first words; of the rest the names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hf_attn_mi.errors import counted
from hf_attn_mi.results.corpus_words import (
    MOST_CLASSES,
    MOST_NAMES,
    NAME,
    WORD,
    percent,
    score_text,
    shortened,
    word_panels,
)
from hf_attn_mi.results.document import html_environment

if TYPE_CHECKING:
    from markupsafe import Markup

    from hf_attn_mi.results.corpus_summary import CorpusSummary

MOST_BARS = 6  # classes with a bar of their own


def corpus_panels(summary: CorpusSummary, *, alone: bool, number: int = 1) -> Markup:
    """Return the panels of a summary as HTML. All text is escaped; there is no script and no style attribute.

    Args:
        summary: what is shown.
        alone: whether the page shows nothing else: its heading is then that of the page.
        number: of this summary among those of the page, for the ids.
    """
    from markupsafe import Markup

    prefix = panel_id(number)
    template = html_environment().get_template("corpus.html.j2")
    return Markup(
        template.render(
            prefix=prefix,
            top=1 if alone else 2,
            heading=summary.heading,
            labels=[
                (name, shortened(str(summary.info[name]), NAME))
                for name in ("model", "method")
                if summary.info.get(name)
            ],
            inputs=_inputs(summary),
            bars=_bars(summary),
            accuracy=None if summary.accuracy is None else percent(summary.accuracy),
            findings=_findings(summary, prefix),
            panels=word_panels(summary, prefix),
            others=_other_classes(summary),
            level=f"{summary.LEVEL:g}",
            facts=_provenance(summary),
        )
    )


def panel_id(number: int) -> str:
    """The id of a summary on the page, by its number."""
    return "corpus" if number == 1 else f"corpus{number}"


# --- overview --------------------------------------------------------------------------------------------------------


def _inputs(summary: CorpusSummary) -> list[str]:
    """Sentences about the rows."""
    data = summary.info.get("data")
    source = f" of {shortened(str(data), NAME)}" if data else ""
    skipped = "No row was skipped."
    if summary.skipped:
        where = f" in {shortened(str(summary.info['folder']), 2 * NAME)}/errors" if summary.info.get("folder") else ""
        verb = "was" if summary.skipped == 1 else "were"
        skipped = f"{counted(summary.skipped, 'row')} {verb} skipped; the reasons are{where or ' in the errors files'}."
    return [
        f"{counted(summary.rows, 'explanation')}{source}. {skipped}",
        *([summary.unfinished] if summary.missing else []),
        *([summary.unnamed_labels] if summary.unnamed else []),
        f"{summary.tested:,} pairs of a word and a class occur in {summary.least} inputs or more and were tested; "
        "rarer ones are left out.",
    ]


def _bars(summary: CorpusSummary) -> list[tuple[str, float, str]]:
    """(name, percent of the longest, count) of the classes; what has no bar of its own comes together."""
    counts = list(zip(summary.classes, summary.counts))
    if len(counts) > MOST_BARS:
        rest = counts[MOST_BARS - 1 :]
        counts = [*counts[: MOST_BARS - 1], (counted(len(rest), "other class"), sum(count for _, count in rest))]
    longest = max((count for _, count in counts), default=0) or 1
    return [(shortened(name, NAME), round(100 * count / longest, 2), f"{count:,}") for name, count in counts]


class Finding(NamedTuple):
    """A sentence of the overview: text, the word in it, text, and the panel that shows it."""

    before: str
    word: str
    after: str
    href: str


def _findings(summary: CorpusSummary, prefix: str) -> list[Finding]:
    """The first significant word of the first classes, of the errors, and of those against their class."""
    findings = []
    for place, name in enumerate(summary.classes[:3]):
        best = next((one for one in summary.of_class(name) if one.significant), None)
        if best is not None:
            after = f" contributes most to {shortened(name, NAME)}: {score_text(best.mean)}."
            findings.append(Finding("", shortened(best.word, WORD), after, f"#{prefix}-class-{place + 1}"))
    error = next((one for one in summary.errors if one.significant), None)
    if error is not None:
        after = (
            f": its contribution to {shortened(error.target_name, NAME)} differs by {score_text(error.difference)} in "
            "wrong predictions."
        )
        findings.append(Finding("", shortened(error.word, WORD), after, f"#{prefix}-errors"))
    opposing = next((one for one in summary.opposing if one.significant), None)
    if opposing is not None:
        label = shortened(opposing.label, NAME)
        after = f" speaks against {label}, although {percent(opposing.share, 0)} of its inputs are {label}."
        findings.append(Finding("", shortened(opposing.word, WORD), after, f"#{prefix}-opposing"))
    return findings


def _other_classes(summary: CorpusSummary) -> list[tuple[str, str, str]]:
    """(name, count, first words) of the classes without a panel; the last entry counts those that are not named."""
    counts = list(zip(summary.classes, summary.counts))[MOST_CLASSES:]
    named = []
    for name, count in counts[:MOST_NAMES]:
        words = ", ".join(shortened(one.word, WORD) for one in summary.of_class(name)[:3])
        named.append((shortened(name, NAME), f"{count:,}", words or "no frequent word is above chance"))
    if len(counts) > MOST_NAMES:
        left = counts[MOST_NAMES:]
        named.append((f"and {counted(len(left), 'more class')}", f"{sum(count for _, count in left):,}", ""))
    return named


def _provenance(summary: CorpusSummary) -> list[tuple[str, str]]:
    info = summary.info
    names = {name: name for name in ("model", "method", "data", "folder")}
    names |= {"resamples": "resamples of the bootstrap", "seed": "random seed"}
    facts = [(text, shortened(str(info[name]), 2 * NAME)) for name, text in names.items() if info.get(name) is not None]
    versions = info.get("versions")
    if versions:
        facts.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    return facts
