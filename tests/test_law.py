"""What is explained is what the model says, whatever model, input form and wrapper: cases drawn by hypothesis.

`python -m scripts.reliability.law --count 2000` tries many more of the same cases.
"""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from scripts.reliability.law import FORMS, MODELS, WRAPPERS, Case, check, draw

pytest.importorskip("peft")
TEXTS = ("a warm film", "not very funny ! x", "dull")


@settings(
    max_examples=30,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_target_and_probability_are_those_of_the_model_and_nothing_else_matters(data):
    check(draw(lambda values: data.draw(st.sampled_from(list(values)))))


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_wrapper_gives_what_the_wrapped_model_says(wrapper):
    check(Case("three classes", "list of texts", wrapper, "relevance", TEXTS, 16, training=True))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_inputs_gives_what_the_model_says(form):
    texts = tuple((text, "very") for text in TEXTS) if "pair" in form else TEXTS
    texts = texts[:1] if form in ("text", "pair", "one row") else texts
    check(Case("bert", form, "bare", "relevance", texts, 16, training=False))


@pytest.mark.parametrize("model", MODELS)
def test_every_model_is_explained_as_padded_rows(model):
    check(Case(model, "padded on the left", "bare", "relevance", TEXTS, 16, training=False))


def test_a_masked_token_at_the_end_is_not_taken_for_padding():
    texts = ("a", "not x plot very")
    check(Case("gpt2", "padded on the right", "bare", "relevance", texts, 1, training=False))  # what is tried first
    check(Case("gpt2", "mask with holes", "bare", "relevance", texts, 1, training=False))


def test_a_wrong_answer_is_a_violation(monkeypatch):
    from scripts.reliability import law

    answers = law._answers
    monkeypatch.setattr(law, "_answers", lambda *a: [(t, None if p is None else p + 1e-4) for t, p in answers(*a)])
    with pytest.raises(AssertionError):
        check(Case("bert", "text", "bare", "attention", TEXTS[:1], 1, training=False))
