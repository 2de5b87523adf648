"""`explain(..., targets=...)`: several targets of one input from one forward pass, in the order of the inputs."""

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMultipleChoice,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    pipeline,
)

from hf_attn_mi import InvalidInputError, certify, explain, minimal_attention, minimal_tokens, recheck, targets
from hf_attn_mi.models.pass_counter import counted
from tests.sample_models import SIZES, TEXTS, distance, load_demo
from tests.zoo.building import rescale

ENTITIES = {"id2label": {0: "O", 1: "B-LOC", 2: "I-LOC"}, "label2id": {"O": 0, "B-LOC": 1, "I-LOC": 2}}
NLI = {"id2label": {0: "contradiction", 1: "entailment"}, "label2id": {"contradiction": 0, "entailment": 1}}


def tiny(model_class, **options):
    torch.manual_seed(0)
    model = model_class(BertConfig(**SIZES, intermediate_size=64, **options))
    rescale(model)
    return model.eval()


def alike(found, wanted):
    assert found.target_name == wanted.target_name
    assert found.probability == pytest.approx(wanted.probability, abs=1e-6)
    assert distance(found.scores, wanted.scores) < 1e-5


@pytest.mark.parametrize("method", ["relevance", "attnlrp", "integrated_gradients", "attention"])
def test_each_explanation_is_that_of_its_target_alone(demo, method):
    model, _ = demo
    found = explain(model, TEXTS, targets=["negative", 1, None], method=method)
    assert len(found) == 3 * len(TEXTS)
    for i, text in enumerate(TEXTS):
        for k, target in enumerate((0, 1, None)):
            alike(found[3 * i + k], explain(model, text, target=target, method=method))
        assert found[3 * i].texts == (text,)
        assert torch.equal(found[3 * i].layers[0].received, found[3 * i + 1].layers[0].received)


def test_the_forward_pass_is_shared_and_each_target_has_one_backward_pass(demo):
    model, _ = demo
    explain(model, TEXTS[:1])
    with counted(model) as passes:
        found = explain(model, TEXTS[:1], targets=[0, 1, targets.margin(0, 1)])
    assert (passes.forwards, passes.backwards) == (1, 3)
    assert all(one.completeness_gap < 1e-5 for one in found)
    single = explain(model, TEXTS[0], targets=[0])
    assert [one.target for one in single] == [0]


def test_all_labels_of_a_classifier(demo):
    model, _ = demo
    found = explain(model, TEXTS[:2], targets="all")
    assert [one.target_name for one in found] == ["negative", "positive"] * 2
    assert found[0].probability + found[1].probability == pytest.approx(1, abs=1e-6)
    assert distance(found[0].scores, -found[1].scores) < 1e-6


def test_all_entities_of_a_token_classifier(demo):
    model = tiny(BertForTokenClassification, **ENTITIES)
    found = explain(model, TEXTS, tokenizer=demo[1], targets="all")
    wanted = []
    for text in TEXTS:
        inputs = demo[1](text, return_tensors="pt")
        with torch.no_grad():
            best = model(**inputs).logits[0].argmax(1)
        wanted += [
            explain(model, text, tokenizer=demo[1], target=f"token(position={i}, label={int(best[i])})")
            for i in range(1, len(best) - 1)
            if best[i] > 0
        ]
    assert len(found) == len(wanted) > len(TEXTS)
    for one, other in zip(found, wanted):
        alike(one, other)


def test_all_entities_of_a_pipeline(demo):
    model = tiny(BertForTokenClassification, **ENTITIES)
    pipe = pipeline("token-classification", model=model, tokenizer=demo[1], aggregation_strategy="simple")
    answers = [answer for text in TEXTS for answer in pipe(text)]
    found = explain(pipe, TEXTS, targets="all")
    assert [one.probability for one in found] == pytest.approx([float(a["score"]) for a in answers], abs=1e-6)
    assert [one.target_name.split(" of ")[0] for one in found] == [a["entity_group"] for a in answers]


def test_a_text_without_entities_has_no_explanation(demo):
    model = tiny(BertForTokenClassification, **ENTITIES)
    with torch.no_grad():
        model.classifier.bias[0] = 1000
    assert len(explain(model, TEXTS[0], tokenizer=demo[1], targets="all")) == 0


def test_all_labels_of_zero_shot_are_rows_of_one_batch(demo):
    model = tiny(BertForSequenceClassification, **NLI)
    pipe = pipeline("zero-shot-classification", model=model, tokenizer=demo[1])
    labels = ["film", "sports", "long news"]
    answer = pipe(TEXTS[0], candidate_labels=labels)
    found = explain(pipe, TEXTS[:2], candidate_labels=labels, targets="all")
    assert [one.target_name for one in found] == labels * 2
    scores = dict(zip(answer["labels"], answer["scores"]))
    assert [one.probability for one in found[:3]] == pytest.approx([scores[label] for label in labels], abs=1e-6)
    some = explain(pipe, TEXTS[:2], candidate_labels=labels, targets=["sports", "film"])
    alike(some[0], found[1])
    alike(some[3], found[3])


def test_all_choices(demo):
    model = tiny(BertForMultipleChoice)
    question = ("The film was", ["good and long.", "bad.", "very dull."])
    found = explain(model, question, tokenizer=demo[1], targets="all")
    assert [one.target for one in found] == [0, 1, 2]
    assert sum(one.probability for one in found) == pytest.approx(1, abs=1e-6)
    for k, one in enumerate(found):
        alike(one, explain(model, question, tokenizer=demo[1], target=k))


def test_functions_and_inputs_that_fail(demo):
    model, tokenizer = demo
    found = explain(model, TEXTS[:2], targets=[0, lambda outputs: outputs.logits[:, 0]])
    assert [one.target for one in found] == [0, None] * 2
    ner = tiny(BertForTokenClassification, **ENTITIES)
    texts = ["A film.", "A joy.", "The film."]
    settings = {"tokenizer": tokenizer, "targets": [targets.token(word="film", label=k) for k in (0, 1)]}
    results = explain(ner, texts, errors="skip", **settings)
    assert [one.texts for one in results] == [("A film.",)] * 2 + [("A joy.",)] + [("The film.",)] * 2
    assert "'film' is not in the text" in results[2].reason
    with pytest.raises(InvalidInputError, match="'film' is not in the text"):
        explain(ner, texts, **settings)


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
def test_wrong_targets_are_refused(demo, arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        explain(demo[0], TEXTS[:2], **arguments)
    with pytest.raises(InvalidInputError, match=r"labels, choices or entities; BertModel has none|no class logits"):
        explain(tiny(BertModel), TEXTS[0], tokenizer=demo[1], targets="all")


def test_a_table_of_several_targets_has_the_input_and_the_target():
    model, tokenizer = load_demo()
    results = explain(model, TEXTS[:2], tokenizer=tokenizer, targets=["negative", "positive"], layers="none")
    table = results.to_pandas()
    rows = table.groupby(["input", "target"]).size()
    wanted = {(k // 2, one.target_name): len(one.tokens) for k, one in enumerate(results)}
    assert len(wanted) == 4
    assert rows.to_dict() == wanted
    assert list(table.columns[:2]) == ["input", "target"]
    assert results[2:].to_pandas()["input"].unique().tolist() == [1]
    alone = explain(model, TEXTS[0], tokenizer=tokenizer, targets=["positive", "positive"], layers="none").to_pandas()
    assert alone["target"].unique().tolist() == ["positive"]
    skipped = explain(model, ["", TEXTS[0]], tokenizer=tokenizer, targets=[0, 1], errors="skip", layers="none")
    assert skipped.to_pandas()["input"].tolist() == [0] + [1] * 2 * len(skipped[1].tokens)


CHECKED = [
    (minimal_tokens, ["p_all", "p_set", "indices"]),
    (minimal_attention, ["p_all", "p_set"]),
    (certify, ["change"]),
]


@pytest.mark.parametrize(("task", "fields"), CHECKED, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("chosen", [["negative", "positive"], "all"], ids=["list", "all"])
def test_sets_and_certificates_take_several_targets(demo, task, fields, chosen):
    model, tokenizer = demo
    options = {"unit": "head"} if task is minimal_attention else {}
    found = task(model, TEXTS[:2], targets=chosen, tokenizer=tokenizer, **options)
    assert [one.info["input"] for one in found] == [0, 0, 1, 1]
    names = list(model.config.id2label.values()) if chosen == "all" else chosen
    for place, one in enumerate(found):
        alone = task(model, TEXTS[place // 2], target=names[place % 2], tokenizer=tokenizer, **options)
        assert one.target_name == alone.target_name == names[place % 2]
        assert [getattr(one, name) for name in fields] == [getattr(alone, name) for name in fields]
    if task is minimal_tokens:
        assert all(recheck(model, one, tokenizer=tokenizer).holds for one in found if one.outcome == "holds")


@pytest.mark.parametrize("task", [minimal_tokens, minimal_attention, certify])
def test_targets_of_sets_are_refused_by_name(demo, task):
    model, tokenizer = demo
    for options, message in (
        ({"targets": [0], "target": 1}, "target and targets: pass one"),
        ({"targets": []}, "targets must be a list"),
        ({"targets": 0}, "targets must be a list"),
        ({"targets": [[0, 1]]}, "targets holds a list"),
        ({"targets": [7]}, "out of range"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            task(model, TEXTS[0], tokenizer=tokenizer, **options)
    if task is not certify:
        with pytest.raises(InvalidInputError, match="is a function"):
            task(model, TEXTS[0], tokenizer=tokenizer, targets=[lambda outputs: outputs.logits[:, 0]])


def test_the_set_of_every_entity(demo):
    model = tiny(BertForTokenClassification, **ENTITIES)
    found = minimal_tokens(model, TEXTS[::2], targets="all", tokenizer=demo[1])
    wanted = explain(model, TEXTS[::2], targets="all", tokenizer=demo[1], layers="none")
    assert [one.info["target"] for one in found] == [one.info["target"] for one in wanted]


def test_labels_of_the_same_name_are_told_apart_in_a_table(demo):
    model = tiny(
        BertForSequenceClassification, id2label={0: "good", 1: "bad", 2: "good"}, label2id={"good": 0, "bad": 1}
    )
    results = explain(model, TEXTS[0], tokenizer=demo[1], targets="all", layers="none")
    assert results.to_pandas()["target"].unique().tolist() == ["label(0)", "bad", "label(2)"]
