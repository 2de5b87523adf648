"""The section of docs/studies/faithfulness.md about the comparison with the authors' code (check_rankings.py)."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from benchmarks.common import Row

TITLE = "Checked against the authors' code"
ANCHOR = "checked-against-the-authors-code"
NOTE = """The methods marked "paper" and the code of their authors explain the same inputs: the same weights, token ids and class. "Published" is their code as their repository calls it. Where it explains another value or has another setting than the paper or than ours, a further row sets it equal, so that the difference that is left shows whether the method is the same. A difference is max |ours - theirs| / max |theirs|, over the tokens that are not special; each column gives the input on which agreement is worst, and the second column of differences the median input. Worst agreement first: by Spearman's correlation, then by difference. The comparison is run by `python benchmarks/studies/faithfulness/check_rankings.py`; its results are in `benchmarks/studies/faithfulness/results/authors.jsonl`."""  # noqa: E501


def section(rows: Sequence[Row], table: object) -> list[str]:
    """Return the lines of the section; none without rows.

    Args:
        rows: of authors.jsonl.
        table: the function of report.py that formats a table.
    """
    assert callable(table)
    compared = sorted((row for row in rows if row.get("difference")), key=_order)
    failed = [row for row in rows if not row.get("difference")]
    if not rows:
        return []
    head = [
        "method",
        "authors' code",
        "compared",
        "inputs",
        "largest difference",
        "median",
        "lowest Spearman",
        "lowest top-5 overlap",
        "what differs",
    ]
    lines = [
        [
            row["method"],
            row["repository"],
            row["setting"],
            str(len(row["difference"])),
            _figure(max(row["difference"])),
            _figure(statistics.median(row["difference"])),
            _correlation(_lowest(row["spearman"])),
            f"{min(row['top']):.0%}",
            row["difference_is"] or "rounding",
        ]
        for row in compared
    ]
    return [
        f"## {TITLE}",
        "",
        NOTE,
        "",
        *table(head, lines),
        *[f"- {row['method']}, {row['setting']}: not compared: {_reason(row)}." for row in failed],
        *[f"- {line}." for line in _sources(rows)],
        "",
    ]


def checked(rows: Iterable[Row]) -> set[str]:
    """Return the names of the methods that were compared."""
    return {row["method"] for row in rows if row.get("difference")}


def without_code(rows: Sequence[Row], methods: Iterable[str]) -> str:
    """Return the item of the limits about methods whose authors' code was not run."""
    missing = [method for method in methods if method not in checked(rows)]
    named = " and ".join(filter(None, [", ".join(missing[:-1]), *missing[-1:]]))
    hand = "checked by hand on a BERT whose mechanism is known (`tests/studies/test_rankings.py`)"
    published = "No method is checked against a published number, since those are for other models."
    others = f" The other methods are [compared with their authors' code](#{ANCHOR})." if checked(rows) else ""
    if not missing:
        return f"Every method of a paper is written from it, {hand}, and [compared](#{ANCHOR}). {published}"
    one = len(missing) == 1
    return (
        f"Not had: the authors' code of {named}, in a form that runs on BERT. {'It is' if one else 'They are'} written "
        f"from the {'paper' if one else 'papers'} instead and {hand}.{others} {published}"
    )


def _order(row: Row) -> tuple[float, float]:
    lowest = _lowest(row["spearman"])
    return (-2.0 if lowest is None else round(lowest, 6), -max(row["difference"]))


def _lowest(values: Sequence[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _correlation(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _figure(value: float) -> str:
    """Two digits, and rounding of float32 as a power of ten."""
    return f"{value:.2g}" if value == 0 or value >= 1e-3 else f"{value:.0e}"


def _reason(row: Row) -> str:
    reasons = row.get("reasons", {}).get(row["explainer"], [])
    return row.get("reason") or "; ".join(reasons) or "no scores"


def _sources(rows: Sequence[Row]) -> list[str]:
    """Repository, commit and versions; data, model and the largest difference of logits of the two programs."""
    lines = {}
    for row in rows:
        versions = ", ".join(f"{name} {version}" for name, version in row["peer_versions"].items())
        lines[f"{row['repository']} at {row['repository_commit'][:7]}, with {versions}: {row['settings']}"] = None
    runs = {(row["set"], row["model"]): None for row in rows}
    logits = max((row["logits"] for row in rows if row.get("logits") is not None), default=None)
    what = "; ".join(f"{name}, the model {model}" for name, model in runs)
    return [*lines, f"Data set: {what}" + ("" if logits is None else f"; logits differ by at most {logits:.0e}")]
