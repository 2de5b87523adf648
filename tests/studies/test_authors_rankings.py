"""benchmarks/studies/faithfulness/check_rankings.py: the agreement of scores, a row of an adapter, and the section."""

import sys
from pathlib import Path

import pytest

from benchmarks.common import EMBEDDED_MODEL
from benchmarks.studies.causal import planted
from benchmarks.studies.faithfulness import agreement_report, check_rankings, report
from benchmarks.studies.faithfulness.authors.registry import COMPARISONS, Comparison
from benchmarks.studies.faithfulness.data import SETS, Inputs
from benchmarks.studies.faithfulness.rankings.transformer_attribution import transformer_attribution
from benchmarks.studies.faithfulness.run import run_peer

ADAPTER = '''"""An adapter whose checkout gives the scores."""
import exchange
import transformers
import torch


def make(name):
    from checked_out import factor

    model, tokenizer = exchange.load(name)
    return {
        "logits": lambda ids, target: model(torch.tensor([ids])).logits[0].tolist(),
        "doubled": lambda ids, target: [factor * place for place in range(len(ids))],
        "broken": lambda ids, target: 1 / 0,
    }


exchange.serve(make, (), "place times a factor", reads_ids=True)
'''


def test_agreement_by_hand():
    """Gaps of at most 2 of a largest score 10; three of six ranks differ, by 1, 1 and 2."""
    ours, theirs = [9.0, 4.0, 3.0, 2.0, 3.5, 0.0], [10.0, 4.0, 3.0, 2.0, 1.5, 0.0]
    found = check_rankings.agreement(ours, theirs)
    assert found["difference"] == pytest.approx(0.2)
    assert found["spearman"] == pytest.approx(1 - 6 * (1 + 1 + 4) / (6 * 35))  # ranks of the middle three: 3, 4, 5
    assert found["top"] == 1.0
    assert check_rankings.agreement([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0])["top"] == pytest.approx(4 / 5)
    assert check_rankings.agreement([1.0, 1.0], [2.0, 1.0]) == {"difference": 0.5, "spearman": None, "top": 1.0}
    with pytest.raises(ValueError, match="the same number"):
        check_rankings.agreement([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="finite"):
        check_rankings.agreement([1.0], [float("nan")])


def test_a_row_compares_ordinary_tokens_of_the_same_model(demo, tmp_path):
    """An adapter that reads token ids and imports from a checkout; special tokens count in `all_tokens` only."""
    (tmp_path / "adapter.py").write_text(ADAPTER, encoding="utf-8")
    checkout = tmp_path / "owner+code"
    checkout.mkdir()
    (checkout / "checked_out.py").write_text("factor = 2.0\n", encoding="utf-8")
    assert check_rankings.checkout_of("owner/code", tmp_path) == checkout
    assert check_rankings.checkout_of("owner/other", tmp_path) is None
    inputs = Inputs(demo[0], demo[1], ["A warm and quietly moving film."], None, None, str(EMBEDDED_MODEL))
    python = Path(sys.executable)
    options = {"folder": tmp_path, "checkout": checkout}
    scores, row = run_peer("adapter", python, SETS["sst2"], inputs, [0], (), **options)
    assert row["reasons"]["broken"] == ["ZeroDivisionError in adapter.py, line 14"]

    def ours(model, ids, target):
        found = 2.0 * check_rankings.torch.arange(len(ids), dtype=float)
        found[0] = 100.0  # of [CLS]
        return found

    comparison = Comparison("a method", "adapter", "owner/code", "doubled", "as ours", "[CLS]", ours)
    compared = check_rankings.compare(comparison, inputs, scores, dict(row))
    assert compared["logits"] < 1e-4
    assert (compared["difference"], compared["spearman"], compared["top"]) == ([0.0], [1.0], [1.0])
    assert compared["all_tokens"] == [pytest.approx(100 / scores["doubled"][0][-1])]
    assert compared["tokens"] == [len(scores["doubled"][0]) - 2]
    assert "a method, as ours: 1 inputs, difference 0" in check_rankings.line_of(compared)
    scores["logits"] = [[value + 1 for value in scores["logits"][0]]]
    other = check_rankings.compare(comparison, inputs, scores, dict(row))
    assert "not the same model" in other["reason"]
    assert "difference" not in other


def test_every_comparison_has_an_adapter_and_a_row_of_its_own():
    keys = [comparison.key for comparison in COMPARISONS]
    assert len(set(keys)) == len(keys)
    for comparison in COMPARISONS:
        assert (check_rankings.HERE / "authors" / f"{comparison.script}.py").exists()


def test_stored_rows_without_a_known_difference_differ_by_rounding_and_the_docs_have_their_figures():
    rows = {(row["method"], row["setting"]): row for row in check_rankings.read_rows(check_rankings.RESULTS)}
    assert rows
    assert all(max(row["difference"]) < 1e-4 for row in rows.values() if not row["difference_is"])
    assert max(rows["relevance", "without biases, from words"]["difference"]) < 1e-5
    later = rows["relevance", "without biases"]
    text = (check_rankings.ROOT / "docs" / "methods" / "relevance.md").read_text(encoding="utf-8")
    assert f"by up to {100 * max(later['difference']):.0f} % of the largest" in text
    assert f"correlation of {min(later['spearman']):.2f} or more".replace("0.", ".") in text


def checked_row(method="GIM", setting="published", difference=(0.5, 0.25), spearman=(0.9, 1.0), **fields):
    fields = {"top": [0.8] * len(difference), "difference_is": "", "repository_commit": "0123456789", **fields}
    return {
        "method": method,
        "setting": setting,
        "repository": f"owner/{method}",
        "explainer": "published",
        "settings": "its defaults",
        "peer_versions": {"torch": "2.0"},
        "set": "sst2",
        "model": "a-model",
        "logits": 2e-6,
        "difference": list(difference),
        "spearman": list(spearman),
        **fields,
    }


def test_the_section_has_the_worst_agreement_first():
    rows = [
        checked_row("GIM", difference=(0.004, 0.002, 0.001), spearman=(1.0, None, 0.98), difference_is="a setting"),
        checked_row("AttCAT", difference=(2e-7,), spearman=(1.0,), top=[1.0]),
        checked_row("ALTI", difference=(3.0,), spearman=(0.5,), difference_is="another sum"),
        checked_row("GlobEnc", difference=(), spearman=(), reason="not the same model: logits differ by 3"),
    ]
    lines = agreement_report.section(rows, report.table)
    table = [line for line in lines if line.startswith("| ")]
    assert table[1:] == [
        "| ALTI | owner/ALTI | published | 1 | 3 | 3 | 0.500 | 80% | another sum |",
        "| GIM | owner/GIM | published | 3 | 0.004 | 0.002 | 0.980 | 80% | a setting |",
        "| AttCAT | owner/AttCAT | published | 1 | 2e-07 | 2e-07 | 1.000 | 100% | rounding |",
    ]
    assert "- GlobEnc, published: not compared: not the same model: logits differ by 3." in lines
    assert "- owner/GIM at 0123456, with torch 2.0: its defaults." in lines
    assert agreement_report.section([], report.table) == []


def test_the_limits_name_the_methods_without_code_of_their_authors():
    rows = [checked_row("GIM"), checked_row("ALTI", difference=(), spearman=())]
    text = agreement_report.without_code(rows, ["GIM", "ALTI", "AtMan", "AttCAT"])
    assert text.startswith(
        "Not had: the authors' code of ALTI, AtMan and AttCAT, in a form that runs on BERT. They are"
    )
    assert f"(#{agreement_report.ANCHOR})" in text
    assert "of ALTI, in a form" in agreement_report.without_code(rows, ["GIM", "ALTI"])
    assert "Not had" not in agreement_report.without_code(rows, ["GIM"])
    assert agreement_report.ANCHOR not in agreement_report.without_code([], ["GIM"])


def test_rows_of_transformer_attribution_are_divided_by_their_sums_on_request():
    """Where one head of the second layer decides, only the row of [CLS] in that layer is more than that of I."""
    model = planted.planted_bert(planted.MECHANISMS["a head of the second layer"][0])
    plain, divided = (transformer_attribution(model, planted.IDS[0], 0, normalize_rows=flag) for flag in (False, True))
    assert float(plain.sum()) > 1.01
    assert check_rankings.torch.allclose(divided, plain / plain.sum(), atol=1e-6)
