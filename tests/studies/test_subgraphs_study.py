"""benchmarks/studies/causal/subgraphs.py: what is stored, continued, counted and run again."""

import argparse
import json

import pytest
import torch

from benchmarks.common import CheckFailed, read_rows
from benchmarks.studies.causal import subgraphs as study
from benchmarks.studies.causal.suites import load_suite


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """The results of the quick run: two texts, all parts."""
    path = tmp_path_factory.mktemp("study") / "subgraphs.jsonl"
    suite = load_suite("quick", None, [])
    study.run_sets("sets", "quick", suite, 2, path)
    study.run_sets("further", "quick", suite, 1, path)
    return path


def recheck_options():
    return argparse.Namespace(models=[], suites=["quick"])


def test_a_run_is_continued_and_stores_whole_records(output):
    rows = read_rows(output)
    assert [(row["part"], row["input"]) for row in rows] == [("sets", 0), ("sets", 1), ("further", 0)]
    suite = load_suite("quick", None, [])
    study.run_sets("sets", "quick", suite, 2, output)
    assert read_rows(output) == rows
    assert all(len(row["record"]["singles"]) == len(row["record"]["units"]) for row in rows)
    further = rows[-1]["record"]
    assert [one["removal"] for one in further["removals"]] == list(study.REMOVALS[1:])
    assert len(further["family_members"]) == study.OTHERS


def test_a_reference_is_as_long_as_the_input_and_has_another_label():
    suite = load_suite("quick", None, [])
    for number in (0, 1):
        reference, own = study.reference_of(suite, number), suite.inputs(number)
        assert reference["input_ids"].shape == own["input_ids"].shape
        assert reference["input_ids"][0, 1] == suite.inputs(1 - number)["input_ids"][0, 1]  # the other text begins it
    alone = type(suite)(suite.model, suite.tokenizer, suite.rows[:1], [0], suite.tokens)
    with pytest.raises(CheckFailed, match="no input has another label"):
        study.reference_of(alone, 0)


def test_stored_sets_are_run_again_and_an_edited_one_is_named(output, tmp_path, capsys):
    rows = read_rows(output)[:2]
    path = tmp_path / "subgraphs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    study.recheck_all(recheck_options(), path)
    assert "2 of 2 stored records hold" in capsys.readouterr().out
    rows[0]["record"]["p_set"] -= 0.01
    edited = tmp_path / "edited" / "subgraphs.jsonl"
    edited.parent.mkdir()
    edited.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(CheckFailed, match="does not hold"):
        study.recheck_all(recheck_options(), edited)
    shown = capsys.readouterr().out
    assert "1 of 2 stored records hold" in shown
    assert "the set: " in shown


def test_heads_are_removed_by_their_outputs(output):
    """Without any head the model sees one token; without none it is the model; the heads of the sets matter."""
    suite = load_suite("quick", None, [])
    records = [row["record"] for row in read_rows(output)[:2]]
    heads = study.every_head(records[0])
    assert len(heads) == 36
    own = [int(suite.model(**suite.inputs(number)).logits.argmax()) for number in (0, 1)]
    assert [study.predicted_without(suite, number, []) for number in (0, 1)] == own
    used = set().union(*map(study.heads_of, records))
    unused = [head for head in heads if head not in used]
    assert 0 < len(unused) < 36
    assert [study.predicted_without(suite, number, unused) for number in (0, 1)] == own
    changed = [study.predicted_without(suite, number, heads) for number in (0, 1)]
    assert changed[0] == changed[1]  # nothing of the text reaches the class
    assert changed != own
    assert torch.is_grad_enabled()


def test_accuracy_is_measured_on_inputs_without_a_set(output, tmp_path):
    suite = load_suite("quick", None, [])
    path = tmp_path / "subgraphs.jsonl"
    path.write_text(output.read_text())
    study.run_heads("quick", suite, 2, path)
    assert len(read_rows(path)) == 3  # no input is left: both have a set
    rows = [row for row in read_rows(output) if row["input"] == 1]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    study.run_heads("quick", suite, 2, path)
    row = read_rows(path)[-1]
    assert (row["part"], row["input"], row["sets"], row["of"]) == ("heads", 0, 1, 36)
    assert len(row["without"]["0.0"]["random"]) == study.RANDOM_DRAWS
    study.run_heads("quick", suite, 2, path)
    assert len(read_rows(path)) == len(rows) + 1
