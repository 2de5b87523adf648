"""Short forms of scripts/reliability/corpus_faults.py, and what is done when memory runs out."""

import json
import signal
import subprocess
import sys

import pytest
import torch

from hf_attn_mi import InvalidInputError, explain_dataset, load_results
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.tasks import batch_explainer, corpus_run
from hf_attn_mi.tasks.corpus_progress import Progress
from hf_attn_mi.tasks.interruption import stop_requests
from hf_attn_mi.tasks.token_budget import TokenBudget
from scripts.reliability import corpus_faults
from scripts.reliability.common import ROOT, bert, tokenizer


def faults(call):
    """The faults that are found in a fresh process: this one has threads, whose locks a fork would inherit."""
    source = f"import json; from scripts.reliability.corpus_faults import *; print(json.dumps({call}))"
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, cwd=ROOT, check=False, timeout=400
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])["failures"]


def test_a_run_of_two_processes_that_is_killed_is_completed_by_the_next():
    assert faults("kills(2, 300, seed=3)") == []


def test_a_process_that_does_not_end_is_ended():
    source = """
import time
from pathlib import Path
from scripts.reliability import corpus_faults as faults

faults.LONGEST = 1
faults.call = lambda *arguments: time.sleep(60)
print(faults.run_forked([], Path()))
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=ROOT, timeout=50)
    assert done.stdout == "False\n", done.stderr


def test_a_full_disk_is_a_clear_error_and_nothing_is_lost():
    assert corpus_faults.full_disks(1, 200, seed=1)["failures"] == []


def test_damaged_files_are_found_and_written_anew():
    assert corpus_faults.damages(3, 120, seed=0)["failures"] == []


def test_a_signal_leaves_whole_shards():
    assert faults("interrupts(2, 200, seed=0)") == []


def test_a_second_run_is_refused_until_the_first_is_dead():
    assert faults("two_runs(1, 200)") == []


def test_the_comparison_finds_rows_that_are_missing_or_different(tmp_path):
    rows = corpus_faults.rows_of(12)
    corpus_faults.call(rows, tmp_path / "a", shard_size=5)
    corpus_faults.call(rows[:11], tmp_path / "b", shard_size=5)
    corpus_faults.call(rows, tmp_path / "c", shard_size=5, method="attention")
    assert corpus_faults.differences(tmp_path / "b", tmp_path / "a") == ["11 rows instead of 12"]
    assert "scores differ" in corpus_faults.differences(tmp_path / "c", tmp_path / "a")[0]


def test_who_stops_a_run_is_told_what_is_finished(tmp_path, caplog, monkeypatch):
    """A signal after the first batch of a shard: how long it takes; at the end how much of the data is done."""
    caplog.set_level("WARNING", logger="hf_attn_mi")
    monkeypatch.setattr(corpus_run, "NOTICED", 0.0)
    rows, update = corpus_faults.rows_of(12), Progress.update

    def interrupt(progress, count):
        update(progress, count)
        if progress.rows == count:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Progress, "update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        corpus_faults.call(rows, tmp_path / "out", shard_size=5, batch_size=2)
    assert "stopping: this shard is finished in about " in caplog.text
    assert "stopped after 5 rows; 5 of 12 rows in " in caplog.text
    with pytest.raises(KeyboardInterrupt):
        corpus_faults.call(rows, tmp_path / "out", shard_size=5, batch_size=2)
    assert "10 of 12 rows in " in caplog.text
    caplog.clear()
    with pytest.raises(KeyboardInterrupt):
        corpus_faults.call(rows, tmp_path / "out", shard_size=5, batch_size=2)
    assert "the signal came during the last shard" in caplog.text


def interrupt_twice():
    with stop_requests():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the second one came through")


def test_a_signal_is_delayed_and_not_lost():
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        with stop_requests() as stop:
            signal.raise_signal(signal.SIGTERM)
            assert stop.made
            assert received == []
        assert received == [signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt):
            interrupt_twice()
    finally:
        signal.signal(signal.SIGTERM, before)


def limited(monkeypatch, most, error):
    """Let the passes of more than so many tokens run out of memory; returns the sizes of those that ran."""
    original, sizes = batch_explainer.explain_batch, []

    def run(runner, inputs, *rest):
        tokens = len(inputs) * max(one.token_count for one in inputs)
        if tokens > most:
            raise error
        sizes.append(tokens)
        return original(runner, inputs, *rest)

    monkeypatch.setattr(batch_explainer, "explain_batch", run)
    return sizes


ERRORS = {
    "MemoryError": MemoryError(),
    "CPU": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    "CUDA": torch.OutOfMemoryError("CUDA out of memory."),
}


@pytest.mark.parametrize("name", ERRORS)
def test_batches_are_halved_when_memory_runs_out(tmp_path, monkeypatch, name):
    rows = [*corpus_faults.rows_of(40), {"id": "long", "text": "a fine film " * 15, "label": 0}]
    corpus_faults.call(rows, tmp_path / "free")
    sizes = limited(monkeypatch, 40, ERRORS[name])
    run = corpus_faults.call(rows, tmp_path / "narrow")
    assert 20 < max(sizes) <= 40  # halved until it fits, and no further
    assert (run.complete, run.failed) == (True, 1)
    assert "memory ran out for one input of 47 tokens" in load_results(tmp_path / "narrow").errors()["reason"][0]
    first = {one.row: one.explanation.scores for one in load_results(tmp_path / "free").with_rows()}
    for one in load_results(tmp_path / "narrow").with_rows():
        torch.testing.assert_close(one.explanation.scores, first[one.row], atol=1e-5, rtol=0)


def test_an_unexpected_error_of_one_row_does_not_stop_the_others(tmp_path, monkeypatch):
    original = batch_explainer.explain_batch

    def run(runner, inputs, *rest):
        if any("poison" in one.texts[0] for one in inputs):
            raise ZeroDivisionError("division by zero")
        return original(runner, inputs, *rest)

    monkeypatch.setattr(batch_explainer, "explain_batch", run)
    rows = ["fine", "a poison", "dull", "very funny"]
    assert corpus_faults.call(rows, tmp_path / "out").failed == 1
    errors = load_results(tmp_path / "out").errors()
    assert list(errors["row"]) == [1]
    assert "ZeroDivisionError: division by zero" in errors["reason"][0]


def inputs_of(lengths):
    return [EncodedInput({"input_ids": torch.zeros(length, dtype=torch.long)}, length) for length in lengths]


def test_a_batch_holds_a_number_of_tokens_that_grows():
    inputs, budget = inputs_of([8] * 3000), TokenBudget("auto", torch.device("cpu"))
    sizes = []
    for _ in range(6):
        sizes.append(len(budget.take(range(3000), inputs, mixed=True)))
        budget.succeeded()
    assert sizes == [128, 128, 128, 128, 256, 256]  # 256: the most inputs of a batch
    long = inputs_of([128] * 100)
    assert len(budget.take(range(100), long, mixed=True)) * 128 == 2048
    budget.restart()
    assert len(budget.take(range(100), long, mixed=True)) * 128 == 1024
    budget.exhausted(1, 128)  # one input that does not fit says nothing about batches
    budget.exhausted(16, 2048)
    assert len(budget.take(range(100), long, mixed=True)) == 8
    budget.restart()
    assert len(budget.take(range(100), long, mixed=True)) == 8  # for good
    assert budget.take(range(3), inputs_of([3, 4, 4]), mixed=False) == [0]
    assert budget.take(range(1), inputs_of([10**6]), mixed=True) == [0]
    with pytest.raises(InvalidInputError, match="batch_size must be 'auto' or a positive whole number, not 0"):
        explain_dataset(bert(), ["a"], output="out", tokenizer=tokenizer(), batch_size=0)
