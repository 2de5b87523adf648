"""Some rows of docs/tasks.md anew, and what the page says; scripts/generate_tasks.py makes the whole page."""

import re
from pathlib import Path

import pytest

from tests.zoo.tasks import GAP_TOLERANCE, check_task, task_jobs

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"
JOBS = {(job.task, job.model_type): job for job in task_jobs()}
FEW = [
    ("entities", "t5gemma"),
    ("masks", "perceiver"),
    ("generated text", "m2m_100"),
    ("CTC", "wav2vec2"),
    ("similarity", "distilbert"),
    ("next sentence", "ernie"),
]


@pytest.mark.parametrize(("task", "model_type"), FEW)
def test_what_is_explained_is_the_models_own_value(task, model_type):
    found = check_task(JOBS[task, model_type])
    assert found.verdict == "right"
    assert found.gap <= GAP_TOLERANCE


def test_parameters_in_a_list_are_no_activations():
    found = check_task(JOBS["masks", "mobilebert"])  # its head multiplies with a concatenation of two weights
    assert found.verdict == "right"
    assert found.gap < 0.02  # rounding of large activations; half of the value was missing


def test_padding_that_matters_for_some_inputs_only_is_kept():
    assert check_task(JOBS["multiple choice", "mobilebert"]).verdict == "right"


def test_the_page_has_every_pair_and_none_that_is_wrong():
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if re.match(r"\| [\w ]+ \| `", line)]
    verdicts = [row.split(" | ")[3] for row in rows]
    assert set(verdicts) <= {"right", "refused", "not built"}
    assert verdicts.count("right") >= 120
    assert {(row.split(" | ")[0].strip("| "), row.split("`")[1]) for row in rows} == set(JOBS)
