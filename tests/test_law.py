"""What is explained is what the model says, whatever model, input form and wrapper: cases drawn by hypothesis.

`python -m scripts.reliability.law --count 2000` tries many more of the same cases.
"""

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hf_attn_mi import explain
from scripts.reliability.common import media_models
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


class Around(torch.nn.Module):
    """A module without a configuration around a model of images or audio."""

    def __init__(self, model):
        super().__init__()
        self.inner = model

    def forward(self, pixel_values=None, input_values=None):
        values = {"pixel_values": pixel_values, "input_values": input_values}
        return self.inner(**{key: value for key, value in values.items() if value is not None})


AROUND = {
    "bare": lambda model: model,
    "module": Around,
    "DataParallel": torch.nn.DataParallel,
    "compiled": lambda model: torch.compile(model, backend="eager"),
}


@pytest.mark.parametrize("wrapper", AROUND)
@pytest.mark.parametrize("kind", ["images", "audio"])
def test_rows_of_images_and_recordings_are_explained_as_the_model_answers_the_batch(kind, wrapper):
    bare, _ = media_models()[kind]
    model, generator = AROUND[wrapper](bare), torch.Generator().manual_seed(3)
    key, shape = {"images": ("pixel_values", (3, 3, 8, 8)), "audio": ("input_values", (3, 800))}[kind]
    inputs = {key: torch.randn(shape, generator=generator)}
    with torch.no_grad():
        own = model(**inputs).logits.double().softmax(1)
    for target in (None, 0, "label(1)", lambda outputs: outputs.logits[:, 1]):
        found = explain(model, inputs, target=target, layers="none")
        turned = explain(model, {key: inputs[key].flip(0)}, target=target, layers="none", batch_size=1)[::-1]
        for i, (one, other) in enumerate(zip(found, turned)):
            assert torch.allclose(one.scores, other.scores, atol=1e-4 * float(one.scores.abs().max()))
            if callable(target):
                assert one.probability is None
                continue
            expected = int(own[i].argmax()) if target is None else 1 if target == "label(1)" else 0
            assert one.target == expected
            assert one.probability == pytest.approx(float(own[i, expected]), abs=1e-5)


def test_a_wrong_answer_is_a_violation(monkeypatch):
    from scripts.reliability import law

    answers = law._answers
    monkeypatch.setattr(law, "_answers", lambda *a: [(t, None if p is None else p + 1e-4) for t, p in answers(*a)])
    with pytest.raises(AssertionError):
        check(Case("bert", "text", "bare", "attention", TEXTS[:1], 1, training=False))
