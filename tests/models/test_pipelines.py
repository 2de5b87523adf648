"""What a text-classification pipeline answers is what is explained; other pipelines are refused by name."""

import pytest
from transformers import pipeline

from hf_attn_mi import InvalidInputError, compare, explain, minimal_tokens
from tests.sample_models import TEXTS, tiny_bert

LONG = "A joy to watch. " * 10 + "The rest is dull, boring, awful and bad. " * 20


def answer(pipe, text):
    """The first answer of the pipeline, however deep it stands."""
    found = pipe(text)
    while isinstance(found, list):
        found = found[0]
    return found


def alike(pipe, text, explanation):
    assert explanation.target_name == answer(pipe, text)["label"]
    assert explanation.probability == pytest.approx(answer(pipe, text)["score"], abs=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"truncation": True, "max_length": 40},
        {"function_to_apply": "sigmoid"},
        {"function_to_apply": "softmax", "top_k": None},
        {"truncation": True, "max_length": 12, "top_k": 1},
    ],
    ids=str,
)
def test_the_settings_of_a_pipeline_are_its_own(demo, settings):
    model, tokenizer = demo
    pipe = pipeline("text-classification", model=model, tokenizer=tokenizer, **settings)
    for text in (TEXTS[2], LONG):
        alike(pipe, text, explain(pipe, text))
    if "max_length" in settings:
        cut = explain(pipe, LONG)
        assert len(cut.tokens) == settings["max_length"]
        assert any("by the pipeline's own settings" in note for note in cut.info["warnings"])
        token_set = minimal_tokens(pipe, LONG, second_ranking=None)
        assert token_set.p_all == pytest.approx(answer(pipe, LONG)["score"], abs=1e-5)
    assert compare(pipe, TEXTS[:3], methods=["relevance", "random"]).inputs == 3


def test_a_single_output_is_a_sigmoid_in_a_pipeline(demo):
    pipe = pipeline("text-classification", model=tiny_bert(num_labels=1), tokenizer=demo[1])
    alike(pipe, TEXTS[0], explain(pipe, TEXTS[0]))


def test_no_function_gives_no_probability(demo):
    model, tokenizer = demo
    pipe = pipeline("text-classification", model=model, tokenizer=tokenizer, function_to_apply="none")
    explanation = explain(pipe, TEXTS[0])
    assert explanation.target_name == answer(pipe, TEXTS[0])["label"]
    assert explanation.probability is None


def test_a_pair_as_pipelines_take_it(demo):
    model, tokenizer = demo
    pipe = pipeline("text-classification", model=model, tokenizer=tokenizer)
    pair = {"text": TEXTS[0], "text_pair": TEXTS[3]}
    alike(pipe, pair, explain(pipe, pair))


def test_other_tasks_are_refused_by_name(demo):
    model, tokenizer = demo
    pipe = pipeline("zero-shot-classification", model=model, tokenizer=tokenizer)
    with pytest.raises(InvalidInputError, match=r"'zero-shot-classification'.*pipe\.model"):
        explain(pipe, TEXTS[0])


class CrossEncoder:
    """Holds a model without being one, as sentence-transformers' classes did."""

    def __init__(self, model):
        self.model = model


def test_an_object_that_holds_a_model_is_refused_with_the_attribute(demo):
    with pytest.raises(InvalidInputError, match=r"model is a CrossEncoder.* pass its attribute \.model"):
        explain(CrossEncoder(demo[0]), TEXTS[0])
