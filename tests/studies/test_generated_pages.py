"""The pages of the studies are what their reports write from the stored rows."""

import re
from decimal import Decimal

import pytest

from benchmarks.common import ROOT, read_rows
from benchmarks.studies.causal import report as causal
from benchmarks.studies.faithfulness import report as faithfulness
from benchmarks.studies.information import report as information

PAGES, STUDIES = ROOT / "docs" / "studies", ROOT / "benchmarks" / "studies"
NUMBER = re.compile(r"\d*\.?\d+(?:e[-+]\d+)?")


def write_faithfulness(folder):
    results = STUDIES / "faithfulness" / "results"
    rows, checks = (read_rows(results / f"{name}.jsonl") for name in ("faithfulness", "authors"))
    (folder / "faithfulness.md").write_text(faithfulness.page(rows, checks), encoding="utf-8")


REPORTS = {
    "causal": lambda folder: causal.write_report(causal.RESULTS, folder),
    "information": lambda folder: information.write_report(
        STUDIES / "information" / "results" / "information.jsonl.gz", folder
    ),
    "faithfulness": write_faithfulness,
}


def differences(stored, made):
    """Lines that differ by more than one unit of the last digit: processors round in other ways."""
    found = []
    for line, other in zip(stored.splitlines(), made.splitlines()):
        numbers = list(zip(NUMBER.findall(line), NUMBER.findall(other)))
        near = all(
            abs(Decimal(a) - Decimal(b)) <= Decimal(1).scaleb(Decimal(a).as_tuple().exponent) for a, b in numbers
        )
        if NUMBER.sub("#", line) != NUMBER.sub("#", other) or not near:
            found.append((line, other))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", REPORTS)
def test_the_page_is_what_the_rows_say(name, tmp_path):
    REPORTS[name](tmp_path)
    stored, made = (folder.joinpath(f"{name}.md").read_text(encoding="utf-8") for folder in (PAGES, tmp_path))
    assert len(stored.splitlines()) == len(made.splitlines())
    assert differences(stored, made) == []


def test_a_changed_digit_or_word_is_seen():
    line = "| relevance | 0.319 [0.297, 0.341] | p < .001 | 1.2e-07 |"
    assert differences(line, line.replace("0.297", "0.298")) == []
    for old, new in (("0.297", "0.299"), ("relevance", "attnlrp"), (".001", ".003"), ("1.2e-07", "1.4e-07")):
        assert differences(line, line.replace(old, new)) == [(line, line.replace(old, new))]
