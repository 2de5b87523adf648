"""Ctrl-C during tasks with one result for all inputs: what was finished is in the error."""

import json
from importlib import import_module

import pytest

from hf_attn_mi import Comparison, Explanation, Report, Results, compare, report
from hf_attn_mi.cli import main
from hf_attn_mi.errors import Interrupted
from tests.results import result_samples

THREE = ["A warm film.", "not so funny", "dull"]


def interrupt_at(monkeypatch, place, number):
    """Make the call of this number of the function at `place` a Ctrl-C."""
    module, _, attribute = place.rpartition(".")
    holder = import_module(module)
    original, calls = getattr(holder, attribute), []

    def interrupted(*arguments, **options):
        calls.append(None)
        if len(calls) == number:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(holder, attribute, interrupted)


# --- compare ----------------------------------------------------------------------------------------------------------


def test_the_inputs_that_were_measured_are_compared(demo, monkeypatch):
    model, tokenizer = demo
    options = {"methods": ["attention", "random"], "tokenizer": tokenizer}
    whole = compare(model, THREE, **options)
    interrupt_at(monkeypatch, "hf_attn_mi.tasks.compare_metrics._of_input", 3)
    with pytest.raises(Interrupted) as stop:
        compare(model, THREE, **options)
    found = stop.value.results
    assert isinstance(found, Comparison)
    assert stop.value.places == [0, 1]
    for method in whole.methods:
        for metric in whole.metrics:
            assert found.values[method][metric] == (*whole.values[method][metric][:2], None)
    assert "Interrupted: 2 of 3 inputs were measured" in found.to_text(color="none")
    assert Comparison.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_scores_of_finished_methods_can_be_compared_later(demo, monkeypatch):
    model, tokenizer = demo
    whole = compare(model, THREE, methods=["attention", "relevance"], tokenizer=tokenizer)
    with monkeypatch.context() as patch:
        interrupt_at(patch, "hf_attn_mi.tasks.compare.run_method", 2)
        with pytest.raises(Interrupted) as stop:
            compare(model, THREE, methods=["attention", "relevance"], tokenizer=tokenizer)
    assert stop.value.results is None
    assert list(stop.value.scores) == ["attention"]
    later = compare(model, THREE, methods=["relevance"], scores=stop.value.scores, tokenizer=tokenizer)
    assert later.table["attention"] == whole.table["attention"]


def test_a_metric_of_the_method_that_was_not_finished_is_undefined(demo, monkeypatch):
    model, tokenizer = demo
    interrupt_at(monkeypatch, "hf_attn_mi.tasks.compare.sensitivities", 1)
    with pytest.raises(Interrupted) as stop:
        compare(model, THREE, methods=["random"], metrics=["sufficiency", "max_sensitivity"], tokenizer=tokenizer)
    values = stop.value.results.values["random"]
    assert values["max_sensitivity"] == (None,) * 3
    assert None not in values["sufficiency"]


# --- report -----------------------------------------------------------------------------------------------------------

PARTS = {  # where Ctrl-C comes, and the parts that are missing then
    "hf_attn_mi.tasks.report._other_targets": {"attention", "token_set", "certificate"},
    "hf_attn_mi.tasks.minimal_tokens._token_sets": {"token_set", "certificate"},
    "hf_attn_mi.tasks.certify._certify": {"certificate"},
    "hf_attn_mi.tasks.report_parts.attention_detail": set(),
}


@pytest.mark.parametrize("place", PARTS)
def test_a_page_without_the_parts_that_were_not_finished(demo, monkeypatch, place):
    model, tokenizer = demo
    interrupt_at(monkeypatch, place, 2 if "_certify" in place or "_token_sets" in place else 1)
    options = {"methods": ["attention"], "subgraph": False, "batch_size": 1, "tokenizer": tokenizer}
    with pytest.raises(Interrupted) as stop:
        report(model, THREE, **options)
    page = stop.value.results
    assert isinstance(page, Report)
    assert stop.value.places == [0, 1, 2]
    assert list(page.info["warnings"]) == ["Interrupted: parts that were not finished are left out."]
    stopped = "Interrupted before this was computed."
    last = page.items[2]
    assert {name for name, reason in last.notes.items() if reason == stopped} == PARTS[place] | {"attention"}
    assert [one.explanation.texts for one in page.items] == [(text,) for text in THREE]
    if "_certify" in place:  # the first input was finished
        assert page.items[0].certificate is not None
        assert page.items[1].certificate is None
    assert page.to_html()
    assert Report.from_dict(json.loads(json.dumps(page.to_dict()))) == page


def test_before_the_first_part_the_explanations_are_kept(demo, monkeypatch):
    interrupt_at(monkeypatch, "hf_attn_mi.tasks.report.read_output", 1)
    with pytest.raises(Interrupted) as stop:
        report(demo[0], THREE, tokenizer=demo[1])
    assert [one.texts for one in stop.value.results] == [(text,) for text in THREE]


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in THREE), encoding="utf-8")
    return path


def test_compare_writes_what_was_measured(capsys, monkeypatch, tmp_path, rows):
    interrupt_at(monkeypatch, "hf_attn_mi.tasks.compare_metrics._of_input", 3)
    path = tmp_path / "a.json"
    assert main(["compare", "--data", str(rows), "--methods", "random", "--json", str(path)]) == 130
    assert "interrupted: the output has 2 of 3 inputs, those that were finished." in capsys.readouterr().err
    assert json.loads(path.read_text(encoding="utf-8"))["values"]["random"]["sufficiency"][2] is None


@pytest.mark.parametrize(
    ("command", "place", "words"),
    [
        ("compare", "hf_attn_mi.tasks.compare.run_method", "once every method has scored all of them"),
        ("mi", "hf_attn_mi.tasks.fit_information.estimate", "--limit N fits a smaller one"),
    ],
)
def test_a_command_says_why_nothing_is_written(capsys, monkeypatch, tmp_path, rows, command, place, words):
    rows.write_text(rows.read_text(encoding="utf-8") * 20, encoding="utf-8")
    interrupt_at(monkeypatch, place, 1)
    path = tmp_path / "a.json"
    assert main([command, "--data", str(rows), "--json", str(path)]) == 130
    error = capsys.readouterr().err
    assert "interrupted: nothing is written." in error
    assert words in error
    assert not path.exists()


def test_report_writes_the_page_so_far(capsys, monkeypatch, tmp_path):
    page, data = tmp_path / "a.html", tmp_path / "a.json"
    call = ["report", *THREE, "--html", str(page), "--json", str(data), "--also", "attention"]
    with monkeypatch.context() as patch:
        interrupt_at(patch, "hf_attn_mi.tasks.certify._certify", 1)
        assert main(call) == 130
    assert len(Report.load(data).items) == 3
    assert "Interrupted before this was computed." in page.read_text(encoding="utf-8")
    with monkeypatch.context() as patch:
        interrupt_at(patch, "hf_attn_mi.tasks.report.read_output", 1)
        assert main(call) == 130
    assert all(isinstance(one, Explanation) for one in Results.load(data))
    with monkeypatch.context() as patch:
        interrupt_at(patch, "hf_attn_mi.tasks.compare.run_method", 1)
        assert main([*call[:2], *call[4:], "--compare"]) == 130
    assert Report.load(data).items[0].certificate is not None  # what came before the comparison
    capsys.readouterr()


def test_methods_are_compared_on_the_target_and_the_inputs_of_the_page(capsys, monkeypatch, tmp_path):
    calls = []

    def compared(_, inputs, **options):
        calls.append((inputs, options))
        return result_samples.comparison()

    monkeypatch.setattr("hf_attn_mi.compare", compared, raising=False)
    data = tmp_path / "a.json"
    common = ["--json", str(data), "--html", str(tmp_path / "a.html"), "--also", "random", "--compare"]
    call = ["report", "A warm film.", " ", "dull", "--truncate", "--errors", "skip", "--target", "negative"]
    assert main([*call, *common]) == 1
    ((inputs, options),) = calls
    assert inputs == ["A warm film.", "dull"]
    assert (options["target"], options["truncation"]) == ("negative", True)
    assert Report.load(data).comparison == result_samples.comparison()
    capsys.readouterr()


def test_of_several_targets_those_that_were_finished_are_kept(demo, monkeypatch):
    model, tokenizer = demo
    options = {"methods": ["random"], "targets": [0, 1], "tokenizer": tokenizer}
    whole = compare(model, THREE, **options)
    interrupt_at(monkeypatch, "hf_attn_mi.tasks.compare_metrics._of_input", 5)
    with pytest.raises(Interrupted) as stop:
        compare(model, THREE, **options)
    first, second = stop.value.results
    assert first.values == whole[0].values
    assert second.target_name == whole[1].target_name
    assert second.values["random"]["sufficiency"] == (whole[1].values["random"]["sufficiency"][0], None, None)
