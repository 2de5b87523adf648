"""Short forms of the scripts in scripts/reliability/, and the page made of their results."""

from pathlib import Path

import pytest
import torch

from scripts import generate_reliability
from scripts.reliability import cases, exceptions, fuzz, kill_saves, leak


def test_random_inputs_are_answered_or_refused_and_nothing_is_left_changed():
    result = fuzz.run(200, seed=20)
    assert result["failures"] == []
    assert (result["raw exceptions"], result["hangs"]) == (0, 0)
    assert result["answered"] > 40


def test_exceptions_and_interrupts_leave_everything_as_it_was():
    result = exceptions.run(12, seed=0, every=("explain: relevance", "certify", "capture_attention"))
    assert result["failures"] == []
    assert result["interrupts"].get("interrupted", 0) > 3


def test_a_kill_during_a_save_leaves_the_old_or_the_new_file():
    result = kill_saves.run(2, seed=0)
    assert result["failures"] == []


def test_many_calls_leave_nothing_behind():
    result = leak.run(30, seed=0)
    assert result["failures"] == []


def test_the_page_is_made_of_the_stored_results():
    rows = generate_reliability.read()
    assert generate_reliability.PAGE.read_text(encoding="utf-8") == generate_reliability.page(rows)
    assert {name: row["failures"] for name, row in rows.items() if row["failures"]} == {}


def missing_tests(listed):
    """Those of some cases that are not there."""
    names = [name for case in listed for name in case.tests]
    folder = Path(__file__).parent
    return [
        name
        for name in names
        if f"\ndef {name.partition('::')[2]}(" not in (folder / name.partition("::")[0]).read_text(encoding="utf-8")
    ]


def test_every_test_of_the_table_of_cases_is_there():
    listed = (*cases.ANSWERS, *cases.REASONS)
    assert all(case.tests for case in listed)
    assert missing_tests(listed) == []
    gone = cases.Case("any", "any", ("test_reliability.py::test_that_is_gone",))
    assert missing_tests([gone]) == list(gone.tests)


@pytest.mark.parametrize("fault", ["a raw exception", "a changed model"])
def test_the_fuzzer_finds(monkeypatch, fault):
    def faulty(model, *_, **__):
        if fault == "a raw exception":
            raise RuntimeError("raw")
        if isinstance(model, torch.nn.Module):
            model.train()

    monkeypatch.setattr("hf_attn_mi.explain", faulty, raising=False)
    failures = fuzz.run(12, seed=1)["failures"]
    assert any(("RuntimeError" if fault == "a raw exception" else "training") in failure for failure in failures)
