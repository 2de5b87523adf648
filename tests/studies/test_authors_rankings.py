"""benchmarks/studies/faithfulness/check_rankings.py: the agreement of two lists of scores, and a row of an adapter."""

import sys
from pathlib import Path

import pytest

from benchmarks.common import EMBEDDED_MODEL
from benchmarks.studies.faithfulness import check_rankings
from benchmarks.studies.faithfulness.authors.registry import COMPARISONS, Comparison
from benchmarks.studies.faithfulness.data import SETS, Inputs
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
