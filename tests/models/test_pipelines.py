"""What a pipeline answers is what is explained; pipelines for other tasks are refused by name."""

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    pipeline,
)

from hf_attn_mi import InvalidInputError, certify, compare, explain, minimal_tokens, recheck, targets
from tests.sample_models import SIZES, TEXTS, distance, tiny_bert
from tests.zoo.building import rescale

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
        assert any("by the settings of the pipeline" in note for note in cut.info["warnings"])
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
    pipe = pipeline("text-classification", model=model, tokenizer=tokenizer)
    pipe.task = "table-question-answering"
    with pytest.raises(InvalidInputError, match=r"'table-question-answering'.*fill-mask.*pipe\.model"):
        explain(pipe, TEXTS[0])


NLI = {"id2label": {0: "contradiction", 1: "neutral", 2: "entailment"}}
NLI["label2id"] = {name: number for number, name in NLI["id2label"].items()}
ENTITIES = {"id2label": {0: "O", 1: "B-LOC", 2: "I-LOC", 3: "B-PER", 4: "I-PER"}}
ENTITIES["label2id"] = {name: number for number, name in ENTITIES["id2label"].items()}
CANDIDATES = ["film", "sports", "long news"]


def tiny(model_class, **options):
    torch.manual_seed(0)
    model = model_class(BertConfig(**SIZES, intermediate_size=64, **options))
    rescale(model)
    return model.eval()


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("preset", [False, True])
def test_zero_shot_scores_are_the_pipelines(demo, multi_label, preset, monkeypatch):
    model = tiny(BertForSequenceClassification, **NLI)
    settings = {"candidate_labels": CANDIDATES, "multi_label": multi_label, "hypothesis_template": "About {}."}
    plain = pipeline("zero-shot-classification", model=model, tokenizer=demo[1])
    pipe = pipeline("zero-shot-classification", model=model, tokenizer=demo[1], **settings)
    given = {} if preset else {"candidate_labels": CANDIDATES}
    for text in TEXTS[:2]:
        wanted = plain(text, **settings)
        best = explain(pipe, text, **given)
        assert best.target_name == wanted["labels"][0]
        for label, score in zip(wanted["labels"], wanted["scores"]):
            found = explain(pipe, text, candidate_labels=CANDIDATES, target=label)
            assert (found.target_name, found.texts) == (label, (text, f"About {label}."))
            assert found.probability == pytest.approx(score, abs=1e-6)
            assert found.completeness_gap < 1e-5
    token_set = minimal_tokens(pipe, TEXTS[0], keep=0.5)
    assert token_set.p_all == pytest.approx(plain(TEXTS[0], **settings)["scores"][0], abs=1e-6)
    assert recheck(pipe, token_set).holds
    assert not compare(pipe, TEXTS[:2], methods=["relevance"]).failures
    certificate = certify(pipe, TEXTS[0], checked_rows=1)
    assert certificate.target_name == explain(pipe, TEXTS[0]).target_name


def test_all_labels_of_zero_shot_are_one_batch(demo):
    model = tiny(BertForSequenceClassification, **NLI)
    pipe = pipeline("zero-shot-classification", model=model, tokenizer=demo[1], candidate_labels=CANDIDATES)
    explain(pipe, TEXTS[0])  # what is found out about the model once
    rows, words = [], model.get_input_embeddings().weight

    class Counted(TorchFunctionMode):  # a hook would be code of the caller, which is tested with every call
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is F.embedding and args[1] is words:
                rows.append(len(args[0]))
            return function(*args, **(kwargs or {}))

    with Counted():
        explain(pipe, TEXTS[0], layers="none")
    assert rows == [3, 1]


def test_zero_shot_refusals(demo):
    model, tokenizer = demo
    pipe = pipeline("zero-shot-classification", model=model, tokenizer=tokenizer)
    with pytest.raises(InvalidInputError, match=r"pass candidate_labels=\["):
        explain(pipe, TEXTS[0])
    with pytest.raises(InvalidInputError, match="no label of entailment"):
        explain(pipe, TEXTS[0], candidate_labels=CANDIDATES)
    with pytest.raises(InvalidInputError, match="'cooking' is none of the candidate labels"):
        explain(pipe, TEXTS[0], candidate_labels=CANDIDATES, target="cooking")
    with pytest.raises(InvalidInputError, match="candidate_labels must be a list"):
        explain(pipe, TEXTS[0], candidate_labels=[])


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_the_best_entity_of_a_pipeline_is_explained(demo, strategy):
    model = tiny(BertForTokenClassification, **ENTITIES)
    pipe = pipeline("token-classification", model=model, tokenizer=demo[1], aggregation_strategy=strategy)
    for text in [*TEXTS, "The film was made in Paris by Tom Henson."]:
        answers = pipe(text)
        found = explain(pipe, text)
        best = max(answers, key=lambda answer: answer["score"])
        assert found.probability == pytest.approx(float(best["score"]), abs=1e-6)
        name = best.get("entity", best.get("entity_group"))
        assert found.target_name == f"{name} of {text[best['start'] : best['end']]!r}"
        assert found.completeness_gap < 1e-5
        again = explain(pipe, text, target=found.info["target"])
        assert torch.equal(again.scores, found.scores)
        if len(answers) == 1:
            continue
        second = explain(pipe, text, target="pipeline_entity(1)")
        assert second.probability == pytest.approx(sorted(float(a["score"]) for a in answers)[-2], abs=1e-6)
    assert minimal_tokens(pipe, TEXTS[2], second_ranking=None).target_name == explain(pipe, TEXTS[2]).target_name


def test_a_text_without_an_entity_is_named(demo):
    model = tiny(BertForTokenClassification, **ENTITIES)
    with torch.no_grad():
        model.classifier.bias[0] = 1000
    pipe = pipeline("token-classification", model=model, tokenizer=demo[1])
    with pytest.raises(InvalidInputError, match=r"finds no entities in the text 'A quietly moving film\.'"):
        explain(pipe, TEXTS[0])


@pytest.mark.parametrize("settings", [{}, {"targets": ["film", "dull"]}], ids=str)
def test_the_best_word_of_a_fill_mask_pipeline(demo, settings):
    pipe = pipeline("fill-mask", model=tiny(BertForMaskedLM), tokenizer=demo[1], **settings)
    text = "The [MASK] was long."
    best = pipe(text)[0]
    found = explain(pipe, text)
    assert (found.target, found.target_name) == (best["token"], f"{best['token_str']!r} for mask")
    assert found.probability == pytest.approx(best["score"], abs=1e-6)


def test_a_feature_extraction_pipeline_takes_a_similarity(demo):
    model = tiny(BertModel)
    pipe = pipeline("feature-extraction", model=model, tokenizer=demo[1])
    states = [torch.tensor(pipe(text)[0]).mean(0) for text in TEXTS[:2]]
    found = explain(pipe, TEXTS[0], target=targets.similarity(TEXTS[1]))
    assert distance(found.scores, explain(pipe, TEXTS[0], target=targets.similarity(states[1])).scores) < 1e-4
    with pytest.raises(InvalidInputError, match="similarity"):
        explain(pipe, TEXTS[0])


class CrossEncoder:
    """Holds a model without being one, as sentence-transformers' classes did."""

    def __init__(self, model):
        self.model = model


def test_an_object_that_holds_a_model_is_refused_with_the_attribute(demo):
    with pytest.raises(InvalidInputError, match=r"model is a CrossEncoder.* pass its attribute \.model"):
        explain(CrossEncoder(demo[0]), TEXTS[0])
