"""The table of targets in docs/benchmarks.md: its figures are those of the stored rows, and every miss has a reason."""

import json
import re

import pytest

from benchmarks.common import ROOT
from benchmarks.speed import targets
from scripts.generate_benchmarks import of_targets

FILES = ROOT / "benchmarks" / "speed" / "results"
PAGE = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
MISSING = ("no profile", "not counted")


def lines_of(name):
    return [json.loads(line) for line in (FILES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def cells_of(what):
    """The cells of the target's line on the page."""
    (line,) = (line for line in PAGE.splitlines() if line.startswith(f"| {what} |"))
    return [cell.strip() for cell in line.split("|")[1:-1]]


@pytest.mark.parametrize(
    ("what", "name", "pattern", "limit"),
    [
        (
            '`explain(layers="full")` over forward + backward, ModernBERT, any length',
            "over_backward",
            r"(growth )?over forward and backward/ModernBERT full, \d+ x \d+",
            1.15,
        ),
        (
            '`explain(layers="none")` over forward + backward, BERT, 128 tokens and more',
            "over_backward",
            r"(growth )?over forward and backward/BERT none, \d+ x \d{3,}",
            1.06,
        ),
        (
            "attnlrp over relevance, MiniLM, every size",
            "over_backward",
            r"over forward and backward/MiniLM attnlrp over relevance, .*",
            1.05,
        ),
        ("first `explain` of a process over the second", "excess", r".*explain, first over second", 1.5),
    ],
)
def test_figures_on_the_page_are_the_worst_of_the_rows(what, name, pattern, limit):
    medians = [row["ratio"]["median"] for row in lines_of(name) if re.fullmatch(pattern, row["name"])]
    _, bound, worst, _, count, met, _ = cells_of(what)
    assert bound == f"<= {limit}"
    assert float(worst.split()[0]) == pytest.approx(max(medians), abs=5e-3)
    assert count == f"{sum(one <= limit for one in medians)} of {len(medians)}"
    assert met == ("yes" if max(medians) <= limit else "**no**")


def test_the_smallest_figure_is_the_worst_where_more_is_better():
    rows = [row for row in lines_of("replays") if re.fullmatch(r"perturbation methods.*, pad, .*", row["name"])]
    cells = cells_of("perturbation methods, times faster than plain Captum, baseline `pad`")
    assert float(cells[2].split()[0]) == pytest.approx(min(row["ratio"]["median"] for row in rows), abs=5e-3)


def test_peers_that_are_faster_are_named():
    rows = [row for row in lines_of("peers") if "attnlrp" in row["name"]]
    assert rows
    for row in rows:
        ratio = row["ratio"]["median"]
        assert (f"{row['name'].partition('/')[2]}: ours is {ratio:.2f} times as fast." in PAGE) == (ratio < 1)
    slower = [
        f"{row['ratio']['median']:.2f}"[1:] + f" ({re.search(r'([0-9]+) tokens', row['name'])[1]}"
        for row in sorted(rows, key=lambda row: row["ratio"]["median"])
        if row["ratio"]["median"] < 1
    ]
    readme = " ".join(README.split())
    assert "lxt's AttnLRP takes " in readme
    assert all(f" {one}" in readme.split("lxt's AttnLRP takes")[1][:60] for one in slower)


def test_every_missed_target_has_a_reason_that_rows_give():
    results = targets.stored()
    missed = [one for one in targets.judge(results) if one.rows and one.excess > 1]
    assert missed
    for one in missed:
        reason = one.target.reason(results, one.rows[0]) if one.target.reason else ""
        assert reason, one.target.what
        assert not any(words in reason for words in MISSING), (one.target.what, reason)


def row_of(name, ours, peer=None):
    ratio = None if peer is None else {"median": ours / peer, "min": ours / peer, "max": ours / peer}
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "ratio_is": "ours / peer"}


def test_missed_targets_come_first_and_those_without_rows_last():
    name = "over forward and backward/{} none, 1 x 16"
    rows = [row_of(name.format("BERT"), 2.0, 1.0), row_of(name.format("MiniLM"), 3.0, 1.0)]
    found = targets.judge(
        {"over_backward": rows, "explain": [row_of("import/over torch and transformers, warm", 1, 1)]}
    )
    names = [one.rows[0]["name"] if one.rows else None for one in found]
    assert names[:3] == [rows[1]["name"], rows[0]["name"], "import/over torch and transformers, warm"]
    assert set(names[3:]) == {None}
    text = targets.table({"over_backward": rows})
    assert "| 3.00 (3.00 to 3.00) | MiniLM none, 1 x 16 | 0 of 1 | **no** |" in text[2]
    assert "| not measured |" in text[-1]


def test_the_profile_of_the_nearest_length_is_taken_and_named():
    excess = [
        row_of("where the time goes/BERT full, 1 x 16: forward", 0.5, 0.1),
        row_of("where the time goes/BERT full, 1 x 128: forward", 0.030, 0.010),
        row_of("where the time goes/BERT full, 1 x 128: layer statistics", 0.040),
        row_of("where the time goes/BERT none, 1 x 64: forward", 9.0, 1.0),
    ]
    reason = targets.time_of_parts({"excess": excess}, row_of("x/BERT full, 1 x 64", 2.0, 1.0))
    assert (
        reason
        == "`excess`, 1 x 128: beside the 10 ms of forward and backward, layer statistics +40.0 ms, forward +20.0 ms"
        "; these parts, of another shape, give 7.00 in place of 2.00: the difference is not explained"
    )
    explained = targets.time_of_parts({"excess": excess}, row_of("x/BERT full, 1 x 128", 7.1, 1.0))
    assert explained.endswith("forward +20.0 ms")  # parts that give the ratio to 2 %


def test_figures_of_two_machines_are_named_and_explained_by_their_own_profile():
    first, second = ({"hardware": {"cpu": name}} for name in ("AMD EPYC", "Intel(R) Xeon(R) Processor"))
    name = "over forward and backward/BERT none, 1 x 16"
    part = "where the time goes/BERT none, 1 x 16: forward"
    rows = [row_of(name, 1.2, 1.0) | first, row_of(name, 1.3, 1.0) | second]
    results = {"over_backward": rows, "excess": [row_of(part, 0.2, 0.1) | second, row_of(part, 0.5, 0.1) | first]}
    line = next(line for line in targets.table(results) if "BERT none, 1 x 16" in line)
    assert "| 1.30 (1.30 to 1.30) | BERT none, 1 x 16 (Intel Xeon) | 0 of 2 |" in line
    assert "forward +100.0 ms" in line
    assert "forward +400.0 ms" in targets.time_of_parts(results, rows[0])


def test_the_excess_of_attnlrp_is_that_over_relevance():
    name = "where the time goes/BERT {}, 1 x 16: {}"
    excess = [
        row_of("operations of matrix products/BERT attnlrp over relevance, 1 x 16", 1.2, 1.0),
        row_of(name.format("none", "forward"), 0.010, 0.010),
        row_of(name.format("attnlrp", "forward"), 0.014, 0.010),
        row_of(name.format("attnlrp", "backward"), 0.001, 0.010),
    ]
    row = row_of("over forward and backward/BERT attnlrp over relevance, 1 x 32", 2.0, 1.0)
    reason = targets.multiplications({"excess": excess}, row)
    assert reason.startswith("attnlrp needs 1.20 times the multiplications of relevance, which sends no gradient")
    assert "`excess`, 1 x 16: beside the 10 ms of relevance, forward +4.0 ms, backward +1.0 ms; these parts" in reason
    assert reason.endswith("give 1.50 in place of 2.00: the difference is not explained")


def test_what_was_not_measured_is_said():
    text = of_targets({})
    assert text.count("not measured") == len(targets.TARGETS)
