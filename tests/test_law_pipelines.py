"""What a pipeline answers is what is explained, whatever its task and settings: cases drawn by hypothesis.

`python -m scripts.reliability.law_pipelines --count 500` tries many more of the same cases.
"""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from scripts.reliability import law_pipelines
from scripts.reliability.law_pipelines import LABELS, SETTINGS, PipelineCase, check, draw

TEXTS = ("a warm film", "not very funny ! x", "dull")


@settings(
    max_examples=15,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_target_and_probability_are_those_of_the_pipeline(data):
    check(draw(lambda values: data.draw(st.sampled_from(list(values)))))


@pytest.mark.parametrize("task", SETTINGS)
def test_every_task_gives_what_its_pipeline_answers(task):
    inputs = {
        "image-classification": ((1, 8), (2, 13)),
        "audio-classification": ((1, 13), (2, 30)),
        "fill-mask": ("a [MASK] film", "[MASK] very funny"),
    }
    first = tuple((name, [] if name == "ignore_labels" else values[0]) for name, values in SETTINGS[task].items())
    assert check(PipelineCase(task, first, inputs.get(task, TEXTS), 16)) == "equal"


@pytest.mark.parametrize("strategy", ["none", "simple", "max"])
def test_a_pipeline_that_ignores_no_label_has_the_entity_it_answers(strategy):
    settings = (("aggregation_strategy", strategy), ("ignore_labels", []))
    assert check(PipelineCase("token-classification", settings, ("very a dull a", "very funny x !"), 1)) == "equal"


def test_a_wrong_answer_is_a_violation(monkeypatch):
    answer = law_pipelines._answer
    monkeypatch.setattr(law_pipelines, "_answer", lambda *a: (answer(*a)[0], answer(*a)[1] + 1e-4))
    case = PipelineCase("zero-shot-classification", (("candidate_labels", LABELS),), TEXTS[:1], 1)
    with pytest.raises(AssertionError):
        check(case)
