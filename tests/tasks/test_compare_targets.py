"""`compare(..., targets=...)`: one comparison for each target, over all inputs, and what is refused."""

import pytest
import torch
from transformers import BertConfig, BertForMultipleChoice, BertForSequenceClassification, BertForTokenClassification
from transformers import pipeline as make_pipeline

from hf_attn_mi import InvalidInputError, Results, compare, targets
from tests.sample_models import SIZES, TEXTS
from tests.zoo.building import rescale

ENTITIES = {"id2label": {0: "O", 1: "B-LOC", 2: "I-LOC"}, "label2id": {"O": 0, "B-LOC": 1, "I-LOC": 2}}
NLI = {"id2label": {0: "entailment", 1: "contradiction"}, "label2id": {"entailment": 0, "contradiction": 1}}
METHODS = ("relevance", "random")


def tiny(model_class, **options):
    torch.manual_seed(0)
    model = model_class(BertConfig(**SIZES, intermediate_size=64, **options))
    rescale(model)
    return model.eval()


def test_each_comparison_is_that_of_its_target_alone(demo, tmp_path):
    model, _ = demo
    margin = targets.margin("positive", "negative")
    found = compare(model, TEXTS[:3], methods=METHODS, targets=["negative", margin, None])
    assert isinstance(found, Results)
    names = ["negative", "positive rather than negative", "the prediction"]
    assert [one.target_name for one in found] == names
    for one, target in zip(found, ("negative", margin, None), strict=True):
        alone = compare(model, TEXTS[:3], methods=METHODS, target=target)
        assert one.values == alone.values
        assert alone.target_name == ("" if target is None else one.target_name)
    assert found[0].values != found[1].values
    assert "target negative" in found.to_text(color="none")
    assert list(found.to_pandas()["target"].unique()) == names
    assert all(f"target: {name}" in found.to_html() for name in names)
    found.save(tmp_path / "comparisons.json")
    assert Results.load(tmp_path / "comparisons.json") == found


def test_all_labels_are_those_of_the_model(demo):
    model, _ = demo
    found = compare(model, TEXTS[:2], methods=METHODS, targets="all")
    assert [one.target_name for one in found] == ["negative", "positive"]
    listed = compare(model, TEXTS[:2], methods=METHODS, targets=[0, 1])
    assert [one.values for one in found] == [one.values for one in listed]


def test_all_labels_of_a_zero_shot_pipeline(demo):
    labels = ["film", "sports"]
    pipe = make_pipeline(
        "zero-shot-classification",
        model=tiny(BertForSequenceClassification, **NLI),
        tokenizer=demo[1],
        candidate_labels=labels,
    )
    found = compare(pipe, TEXTS[:2], methods=METHODS, targets="all")
    assert [one.target_name for one in found] == labels


def test_targets_that_belong_to_one_input_are_no_comparison_of_all(demo):
    ner = tiny(BertForTokenClassification, **ENTITIES)
    with pytest.raises(InvalidInputError, match="entities or choices of one input are not those of another"):
        compare(ner, TEXTS[:2], tokenizer=demo[1], methods=METHODS, targets="all")
    choices = [("The film was", ["good.", "bad."]), ("The cast is", ["old.", "dull."])]
    model = tiny(BertForMultipleChoice)
    with pytest.raises(InvalidInputError, match="entities or choices of one input are not those of another"):
        compare(model, choices, tokenizer=demo[1], methods=METHODS, targets="all")
    found = compare(model, choices, tokenizer=demo[1], methods=METHODS, targets=[0, 1])
    assert [one.target_name for one in found] == ["choice(0)", "choice(1)"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": [0], "target": 1}, "target and targets: pass one of them"),
        ({"targets": []}, "targets must be a list of one or more targets, or 'all'"),
        ({"targets": "positive"}, "targets must be a list"),
        ({"targets": [[0, 1]]}, "targets holds a list"),
        ({"targets": ["happy"]}, "target 'happy' is not a label"),
    ],
    ids=str,
)
def test_wrong_targets_of_a_comparison_are_refused(demo, arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        compare(demo[0], TEXTS[:2], methods=METHODS, **arguments)
