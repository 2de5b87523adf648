"""The part of docs/studies/causal.md on attention weights: as its results say, with figures computed again here."""

import copy
import re
import statistics

import pytest

from benchmarks.common import read_rows, write_rows
from benchmarks.studies.causal import report_attention as report
from benchmarks.studies.causal.suites import EMBEDDED, SUITES
from hf_attn_mi.results import AttentionSubgraph
from hf_attn_mi.tasks.recheck import recheck
from tests.tasks.test_sets_by_hand import Saved


@pytest.fixture(scope="module")
def study():
    return report.Study(report.RESULTS)


def cells_of(page, first, more=""):
    """The cells of the table row that begins so."""
    (row,) = [line for line in page.splitlines() if line.startswith(f"| {first} |") and more in line]
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_page_is_what_the_results_say(study):
    page = report.PAGE.read_text(encoding="utf-8")
    assert report.with_section(page, report.section_of(study)) == page


def test_three_figures_computed_again(study):
    page = report.sets_table(study)
    for name in {row["suite"] for row in study.rows if row["part"] == "sets"}:
        records = [row["record"] for row in study.rows if (row["part"], row["suite"]) == ("sets", name)]
        sizes = sorted(len(one["units"]) for one in records if one["units"])
        cells = cells_of(page, SUITES[name].title)
        assert cells[1] == f"{len(records)} of {SUITES[name].planned}"
        found = [float(one.replace(",", "")) for one in re.findall(r"\d[\d.,]*", cells[7])]
        assert found[0] == pytest.approx(statistics.median(sizes), rel=5e-3)
        assert found[-2:] == [sizes[0], sizes[-1]]
    kept = [row["kept"] for row in study.keys if (row["suite"], row["removal"]) == ("sst2", "the smallest")]
    assert cells_of(report.keys_table(study), SUITES["sst2"].title, "the smallest")[2].startswith(
        f"{sum(kept)} / {len(kept)} "
    )


def test_every_published_record_was_run_again_and_holds(study):
    stored = [(row["part"], row["suite"], row["input"]) for row in study.rows if "record" in row]
    assert len(stored) == len(set(stored)) > 0
    holding = {(row["part"], row["suite"], row["input"]) for row in study.checks if row["holds"]}
    assert set(stored) == holding


def test_published_sets_of_the_embedded_model_hold_by_hand(study, demo):
    """From the stored row: by `recheck`, and by a BERT that shares no code with the package."""
    model = copy.deepcopy(demo[0])
    rows = [row for row in study.rows if SUITES[row["suite"]].model == EMBEDDED and row.get("record", {}).get("units")]
    assert rows
    short = sorted(rows, key=lambda row: (row["part"] != "further", len(row["record"]["units"])))
    for row in (short[0], *[one for one in short if one["part"] == "sets"][:3]):
        hand = Saved(model, row["record"])
        hand.check_set()
        hand.check_removals()
        assert recheck(model, AttentionSubgraph.from_dict(row["record"]), tokenizer=demo[1]).holds


def test_the_verdict_follows_its_rule(study):
    def verdict(kept):
        rows = [{"suite": "sst2", "removal": "the smallest", "kept": one, "p": 0.9, "p_new": 0.9} for one in kept]
        other = copy.copy(study)
        other.keys = rows
        return report.claim_four(other)[0]

    assert verdict([True] * 30) == "does not hold"
    assert verdict([False] * 200) == "holds"
    assert verdict([True] + [False] * 29) == "not decided"
    assert verdict([True] * 19) == "not decided"  # too few inputs
    assert verdict([]) == "not decided"


def test_the_section_replaces_the_earlier_one_only():
    page = f"# Title\n\ntext\n\n{report.HEADING}\n\nold\n\n## Next\n\nmore\n"
    new = report.with_section(page, f"{report.HEADING}\n\nnew")
    assert new == f"# Title\n\ntext\n\n{report.HEADING}\n\nnew\n\n## Next\n\nmore\n"
    assert report.with_section(new, f"{report.HEADING}\n\nnew") == new
    assert report.with_section("# Title\n", f"{report.HEADING}\n\nnew") == f"# Title\n\n{report.HEADING}\n\nnew\n"


def test_rows_are_read_packed_and_plain(tmp_path):
    write_rows([{"a": 1}], tmp_path / "rows.jsonl")
    assert read_rows(tmp_path / "rows.jsonl") == [{"a": 1}]
    assert read_rows(tmp_path / "none.jsonl") == []
    assert read_rows(report.RESULTS / "subgraphs.jsonl.gz")[0]["part"] in ("sets", "further", "heads")
