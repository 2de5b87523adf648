"""The benchmarks of explain over forward and backward, and of one commit over another, measure what they say."""

from contextlib import contextmanager
from functools import partial

import pytest

from benchmarks import common
from benchmarks.common import EMBEDDED_MODEL, ROOT, CheckFailed
from benchmarks.inputs import load_classifier, load_tokenizer
from benchmarks.speed import compare_commits, over_backward, replays
from benchmarks.speed.timed_model import TimedModel


def test_every_architecture_is_timed_and_its_scores_are_checked(monkeypatch):
    monkeypatch.setattr(over_backward, "SHORTEST_TURN", 0.0)
    for name in over_backward.architectures(None):
        measured = over_backward.Measured.of(name, 1, 1)
        shape = over_backward.IMAGES[0] if name == "ViT" else (1, 16)
        seconds = measured.ratios(shape, ["none", "full"])
        assert set(seconds) == {"bare", "none", "full"}
        assert all(len(column) == 1 and column[0] > 0 for column in seconds.values())


def test_scores_that_do_not_add_up_get_no_figure(monkeypatch):
    measured = over_backward.Measured.of("MiniLM", 1, 1)
    explain = over_backward.explain

    def wrong(model, inputs, **options):
        explanation = explain(model, inputs, **options)
        return type("Shifted", (), {"scores": explanation.scores, "bias": explanation.bias + 1})

    monkeypatch.setattr(over_backward, "explain", wrong)
    with pytest.raises(CheckFailed, match="add up to"):
        measured.ratios((1, 16), ["none"])


def test_a_commit_is_measured_in_a_process_of_its_own():
    worker = compare_commits.Worker(ROOT, EMBEDDED_MODEL)
    try:
        assert {"short", "list", "attnlrp"} <= set(worker.tasks)
        assert 0.0 < worker.seconds("short, none") < 60.0
    finally:
        worker.close()
    assert worker.process.returncode == 0


@pytest.mark.parametrize(("slower", "status"), [(1.0, 0), (2.0, 1)])
def test_a_commit_that_is_slower_is_a_failure(slower, status, monkeypatch, capsys):
    class Fake:
        def __init__(self, source, model):
            self.tasks = ["short"]
            self.time = slower if source == "after" else 1.0

        def seconds(self, task):
            return self.time

        def close(self):
            pass

    @contextmanager
    def checked_out(commit):
        yield commit

    monkeypatch.setattr(compare_commits, "Worker", Fake)
    monkeypatch.setattr(compare_commits, "checked_out", checked_out)
    monkeypatch.setattr("sys.argv", ["compare_commits", "before", "after"])
    assert compare_commits.main() == status
    assert f"ratio {slower:g}" in capsys.readouterr().out


def test_processor_seconds_alternate_the_order():
    order = []
    seconds = common.cpu_seconds_in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, calls=2)
    assert order == ["a", "a", "b", "b", "b", "b", "a", "a"]
    assert {name: len(column) for name, column in seconds.items()} == {"a": 2, "b": 2}


def short_replays(monkeypatch):
    monkeypatch.setattr(replays, "METHODS", ("kernel_shap", "occlusion"))
    monkeypatch.setattr(replays, "PER_EVAL", (4, 16))
    words = ["a quiet film about an old man and his dog, and nothing else happens"]
    return TimedModel(load_classifier(EMBEDDED_MODEL), load_tokenizer(EMBEDDED_MODEL), words, 1, quick=True)


@pytest.mark.parametrize("baseline", replays.BASELINES)
def test_perturbation_methods_are_timed_beside_plain_captum(baseline, monkeypatch):
    rows = list(replays.against_captum(short_replays(monkeypatch), 9, baseline))
    assert [row["method"] for row in rows] == ["kernel_shap", "occlusion"]
    for row in rows:
        assert row["ratio"]["median"] > 0
        assert row["largest_difference"] <= 1e-5
        assert row["perturbations_per_eval"] in (4, 16)


def test_other_scores_than_captums_get_no_figure(monkeypatch):
    timed, plain = short_replays(monkeypatch), replays.captum_scores
    monkeypatch.setattr(replays, "captum_scores", lambda *given: plain(*given) + 1e-3)
    with pytest.raises(CheckFailed, match="differ from Captum's"):
        next(replays.against_captum(timed, 9, "pad"))


def test_a_part_that_is_run_again_leaves_the_rows_of_others(tmp_path):
    def part(value):
        return lambda: [common.result_row("name", "what", [value])]

    output = tmp_path / "rows.jsonl"
    common.run_parts([("first", part(1.0), [1]), ("second", part(2.0), [1])], output)
    common.run_parts([("second", part(3.0), [1])], output)
    assert [(row["part"], row["ours"]) for row in common.read_rows(output)] == [("first", 1.0), ("second", 3.0)]
    with pytest.raises(ZeroDivisionError):  # a run that is cut off loses nothing that it did not replace
        common.run_parts([("first", part(4.0), [1]), ("second", lambda: 1 / 0, [1])], output)
    assert {row["part"]: row["ours"] for row in common.read_rows(output)} == {"first": 4.0, "second": 3.0}


def test_rows_of_another_machine_stay_when_a_part_runs_again(tmp_path):
    output = tmp_path / "rows.jsonl"
    other = common.result_row("name", "what", [1.0]) | {"part": "first", "hardware": {"cpu": "another"}}
    common.write_rows([other], output)
    for figures in ([2.0], [3.0]):
        common.run_parts(
            [("first", partial(lambda own: [common.result_row("name", "what", own)], figures), [1])], output
        )
    rows = common.read_rows(output)
    assert [row["ours"] for row in rows] == [1.0, 3.0]
    assert common.processors(rows) == ["another", common.processor(rows[1])]
