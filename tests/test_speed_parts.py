"""The benchmarks that say where time goes, and those beside other packages, measure what they say."""

import sys
import time

import pytest

from benchmarks.common import EMBEDDED_MODEL, CheckFailed
from benchmarks.speed import excess, peers
from benchmarks.speed.over_backward import TASKS, Measured


class Work:
    """Two functions that take processor time; `outer` calls `inner`."""

    def inner(self):
        _spend(0.03)

    def outer(self):
        _spend(0.01)
        self.inner()


def _spend(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_a_part_does_not_count_the_parts_inside_it():
    original = Work.inner
    with excess.timed({"outer": ((Work, "outer"),), "inner": ((Work, "inner"),)}) as seconds:
        Work().outer()
    assert 0.01 <= seconds["outer"] < 0.03 <= seconds["inner"]
    assert Work.inner is original


def test_the_parts_of_a_call_are_the_whole_call():
    measured = Measured.of("MiniLM", 1, 1)
    inputs = measured.batch((1, 8))
    measured.explain(inputs, **TASKS["full"])
    started = time.process_time()
    parts = excess.call_parts(measured, inputs, TASKS["full"])
    total = time.process_time() - started
    assert all(seconds > 0 for seconds in parts.values())
    assert sum(parts.values()) <= total
    assert set(excess.bare_parts(measured, inputs)) < set(parts)


def test_attnlrp_needs_the_products_that_relevance_leaves_out():
    rows = {row["name"]: row["ratio"]["median"] for row in excess.multiplications("MiniLM", 1, True)}
    assert rows["operations of matrix products/MiniLM relevance over forward + backward, 1 x 16"] < 1
    assert rows["operations of matrix products/MiniLM attnlrp over relevance, 1 x 16"] > 1


ADAPTER = """
import json, sys
print(json.dumps({"versions": {"fake": "1"}, "settings": ""}), flush=True)
for line in sys.stdin:
    given = json.loads(line)
    answer = {"id": 0, "scores": {"fake": [0.0] * len(given["ids"])}, "seconds": {"fake": 1000.0}}
    refusal = {"id": 0, "scores": {}, "reasons": "too long"}
    print(json.dumps(answer if len(given["ids"]) < LIMIT else refusal), flush=True)
"""


@pytest.mark.parametrize("task", ["explain", "bare"])
def test_the_first_call_and_its_parts_are_timed(task):
    found = excess.one_process(EMBEDDED_MODEL, task)
    assert min(found["first"], found["second"]) > 0
    if task == "bare":
        return
    for call in ("first", "second"):
        parts = {name: seconds for name, seconds in found.items() if name.startswith(f"{call} ")}
        assert len(parts) == len(excess.FIRST_PARTS) + 1
        assert sum(parts.values()) == pytest.approx(found[call])
        assert parts[f"{call} forward, its operations followed"] > 0
    assert found["first weights read, to find NaN"] > 0
    assert found["first rank of W_O"] > 0
    assert found["second weights read, to find NaN"] == found["second rank of W_O"] == 0


def test_commands_are_timed_in_processes_that_keep_what_they_compile(monkeypatch):
    runs = []

    def seconds(command, environment):
        runs.append((command, environment))
        return len(runs), 0.0

    monkeypatch.setattr(excess, "seconds_of_process", seconds)
    rows = {row["name"]: row for row in excess.commands(1)}
    assert [name.partition("/")[2].partition(":")[0] for name in rows] == ["explain", "subgraph", "transformers alone"]
    assert rows["commands/subgraph"]["target"] == "<= 4"
    assert [row["ours"] for row in rows.values()] == [4, 5, 6]  # the first round is not counted
    assert len({environment["PYTHONPYCACHEPREFIX"] for _, environment in runs}) == 1
    assert not any(environment["PYTHONDONTWRITEBYTECODE"] for _, environment in runs)


@pytest.mark.parametrize("limit", [1000, 1])
def test_a_peer_answers_in_a_process_of_its_own_and_without_scores_gets_no_row(limit, tmp_path, monkeypatch):
    (tmp_path / "interpret.py").write_text(ADAPTER.replace("LIMIT", str(limit)))
    monkeypatch.setattr(peers, "ADAPTERS", tmp_path)
    monkeypatch.setattr(peers, "TEXTS", {"short": "A film."})
    found = peers.against("interpret", sys.executable, EMBEDDED_MODEL, 1)
    if limit == 1:
        with pytest.raises(CheckFailed, match="too long"):
            next(found)
        return
    (row,) = found
    assert row["peer"] == 1000.0
    assert row["ratio"]["median"] == pytest.approx(1000.0 / row["ours"])
    assert row["peer_versions"] == {"fake": "1"}
