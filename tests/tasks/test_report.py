"""`report`: what it computes for each input, what it leaves out, and what it refuses."""

import json
import warnings
from dataclasses import replace

import pytest
import torch
from transformers import BertConfig, BertForQuestionAnswering, BertForTokenClassification

from hf_attn_mi import (
    Report,
    attention_interval,
    attention_maps,
    certify,
    compare,
    explain,
    minimal_attention,
    minimal_tokens,
    report,
)
from hf_attn_mi.capture import capture_attention
from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError
from hf_attn_mi.results import AttentionModule, AttentionUnit, UnitRemoval
from hf_attn_mi.results.report_parts import KINDS
from hf_attn_mi.tasks.report_attention import default_level
from tests.media_models import feature_extractor, image_processor, media_model, picture, tone
from tests.results.result_samples import subgraph
from tests.sample_models import SIZES, TEXTS, load_small, logits, state_of, tiny_bert, zoo_model

TEXT = TEXTS[2]
QUICK = {"token_set": False, "certificate": False, "subgraph": False}
QUICK_SETS = {"token_set": False, "subgraph": False}


@pytest.fixture(scope="module")
def small():
    return load_small()


@pytest.fixture(scope="module")
def page(small):
    """The report on one text, with everything."""
    model, tokenizer = small
    return report(model, TEXT, tokenizer=tokenizer, labels="positive")


def test_every_part_is_what_its_own_task_returns(small, page):
    model, tokenizer = small
    item = page.items[0]
    assert torch.equal(item.explanation.scores, explain(model, TEXT, tokenizer=tokenizer).scores)
    other = explain(model, TEXT, tokenizer=tokenizer, target=1 - item.explanation.target)
    assert torch.equal(item.explanations[1].scores, other.scores)
    assert [one.info["method"] for one in item.methods] == ["attnlrp", "attention", "effective"]
    assert item.token_set.indices == minimal_tokens(model, TEXT, tokenizer=tokenizer).indices
    assert item.certificate.change == certify(model, TEXT, tokenizer=tokenizer).change
    assert item.label == "positive"
    subgraph = minimal_attention(model, TEXT, tokenizer=tokenizer)
    assert item.subgraph.places == subgraph.places
    assert item.subgraph.family_members


def test_classes_have_the_logits_and_probabilities_of_the_model(small, page):
    model, tokenizer = small
    row = logits(model, dict(tokenizer(TEXT, return_tensors="pt")))[0].double()
    classes = page.items[0].classes
    assert [one.probability for one in classes] == pytest.approx(row.softmax(0).tolist(), abs=1e-6)
    assert classes[0].value == pytest.approx(float(row[0] - row[1]), abs=1e-5)
    assert [one.name for one in classes] == [model.config.id2label[i] for i in range(2)]


def test_matrices_are_those_of_attention_maps(small, page):
    model, tokenizer = small
    detail = page.items[0].attention
    assert detail.left_out == ""
    for kind in KINDS:
        maps = attention_maps(model, TEXT, kind=kind, tokenizer=tokenizer)
        for head in detail.heads[::5]:
            exact = maps.matrices[head.layer][head.head]
            assert float((head.matrix(kind) - exact).abs().max()) <= head.scale / 254 * (1 + 1e-4)
            if kind == "efficient":
                assert head.support == tuple((exact != 0).sum(-1).tolist())


def test_intervals_are_those_of_the_row_that_contributes_most(small, page):
    model, tokenizer = small
    calls = []
    with torch.no_grad(), capture_attention(model, calls.append):
        model(**tokenizer(TEXT, return_tensors="pt"))
    measured = [head for head in page.items[0].attention.heads if head.intervals]
    assert len(measured) == 8
    head = measured[-1]
    row, values = calls[head.layer].attention()[0, head.head, head.query], calls[head.layer].value[0, head.head]
    keys = [one.key for one in head.intervals]
    assert keys == row.argsort(descending=True)[:5].tolist()
    expected = attention_interval(row, values, keys)
    assert torch.tensor([[x.low, x.high] for x in head.intervals]).sub(expected).abs().max() < 1e-6


def test_the_contribution_of_a_head_is_the_slope_of_the_output_where_the_model_is_linear():
    # Without normalization and with an identity activation, scaling a head of the last layer moves the value linearly.
    model = tiny_bert(hidden_act="linear")
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.LayerNorm | torch.nn.Tanh):
                setattr(module, name, torch.nn.Identity())
    inputs = {"input_ids": torch.arange(5, 17)[None]}
    target = 1
    heads = report(model, inputs, target=target, **QUICK, attention="none", methods=()).items[0].attention.heads

    def value(factor):
        def scaled(call):
            return (
                call.attention() * torch.where(torch.arange(4) == 2, factor, 1.0)[:, None, None]
                if call.layer == 1
                else None
            )

        with torch.no_grad(), capture_attention(model, replace=scaled):
            row = model(**inputs).logits[0].double()
        return float(row[1] - row[0])

    (head,) = (one for one in heads if (one.layer, one.head) == (1, 2))
    assert head.contribution == pytest.approx(value(1.0) - value(0.0), rel=1e-3, abs=1e-6)


def test_how_much_attention_is_kept_depends_on_the_size():
    assert default_level(128, 72) == "all"
    assert default_level(128, 144) == "top"
    assert default_level(512, 12) == "top"
    assert default_level(513, 12) == "rows"


@pytest.mark.parametrize(("level", "rows"), [("top", 8), ("rows", 1), ("none", 0)])
def test_what_is_left_out_is_said(level, rows):
    model = tiny_bert()
    ids = torch.arange(5, 45)[None]
    detail = report(model, {"input_ids": ids}, **QUICK, methods=(), attention=level).items[0].attention
    stored = [head for head in detail.heads if head.raw]
    assert len(stored) == (0 if level == "none" else 8)
    assert {len(head.rows) for head in stored} <= {40 if level == "top" else 1}
    assert "left out" in detail.left_out
    assert len(detail.heads) == 8


def test_the_page_of_six_layers_of_twelve_heads_stays_small():
    model = tiny_bert(hidden_size=48, num_hidden_layers=6, num_attention_heads=12)
    whole = report(model, {"input_ids": torch.arange(5, 133)[None]}, attention="all", **QUICK).to_html()
    assert whole.count('"efficient":"') == 72
    assert len(whole) < 4_000_000
    without = report(model, {"input_ids": torch.arange(5, 261)[None]}, attention="none", **QUICK).to_html()
    assert len(without) < 300_000


def test_a_page_with_every_part_and_a_large_set_of_weights_stays_small():
    names = {i: f"class {i}" for i in range(5)}
    options = {"hidden_size": 48, "num_hidden_layers": 6, "num_attention_heads": 12, "id2label": names}
    model, tokenizer = tiny_bert(**options), load_small()[1]
    text = " ".join([TEXT] * 12)
    page = report(model, text, tokenizer=tokenizer, attention="none", subgraph=False, token_set=True)
    item = page.items[0]
    count = len(item.explanation.tokens)
    assert 240 <= count <= 256
    assert (len(item.explanations), len(item.methods)) == (5, 3)
    small = subgraph()
    edges = [(i % 6, i % 12, i % count, i // count) for i in range(5000)]
    units = [AttentionUnit(f"{edge}", edge[0], *edge, 0.123456, 1.23456 - i / 1e4) for i, edge in enumerate(edges)]
    found = replace(
        small,
        tokens=item.explanation.tokens,
        texts=item.explanation.texts,
        units=tuple(units),
        unit_count=9000,
        edge_count=9000,
        attention=tuple(AttentionModule(i, f"layer.{i}", 0, 12, count, count) for i in range(6)),
        singles=tuple(UnitRemoval(i, 0.512345, 0.412345, True, False, "set") for i in range(5000)),
        family_members=(),
    )
    html = replace(page, items=(replace(item, subgraph=found),)).to_html()
    assert len(html) < 300_000
    data = json.loads(html.split('id="data">')[1].split("</script>")[0])["items"][0]["subgraph"]
    assert data["size"] == 5000
    kept = {(edge["call"], edge["head"], edge["query"], edge["key"]) for edge in data["edges"]}
    largest = sorted(units, key=lambda unit: -abs(unit.contribution))[: len(kept)]
    assert kept == {(unit.call, unit.head, unit.query, unit.key) for unit in largest}
    assert len(kept) == len(data["edges"]) == 400


def test_what_cannot_be_computed_is_noted_or_refused_when_asked_for(small):
    regression, tokenizer = tiny_bert(num_labels=1), small[1]
    item = report(regression, TEXT, tokenizer=tokenizer, methods=("attention", "head"), attention="none").items[0]
    assert item.token_set is None
    assert "regression" in item.notes["token_set"]
    assert "head" in item.notes
    assert item.explanation.probability is None
    with pytest.raises(InvalidInputError, match="regression"):
        report(regression, TEXT, tokenizer=tokenizer, token_set=True, certificate=False)
    function = report(
        tiny_bert(), TEXT, tokenizer=tokenizer, target=lambda outputs: outputs.logits[:, 1], attention="none"
    )
    assert function.items[0].classes == ()
    assert "function" in function.items[0].notes["token_set"]
    json.dumps(function.to_dict(), allow_nan=False)
    function.to_html()


def test_many_inputs_have_the_costly_parts_only_on_request(small):
    model, tokenizer = small
    many = report(model, TEXTS[:3] * 7, tokenizer=tokenizer, methods=(), labels=[0, "positive", None] * 7)
    assert len(many.items) == 21
    assert {item.token_set for item in many.items} == {item.attention for item in many.items} == {None}
    assert "more than 20 inputs; token_set=True" in many.items[0].notes["token_set"]
    assert [item.label for item in many.items[:3]] == ["negative", "positive", None]
    assert many.to_pandas()["correct"].tolist()[2] is None
    assert len(many.to_html()) < 60_000 + 21 * 15_000


def test_a_long_text_is_cut_with_one_warning(small):
    model, tokenizer = small
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report(model, "joy " * 600, tokenizer=tokenizer, truncation=True, methods=(), **QUICK)
    assert sum("cut" in str(one.message) for one in caught) == 1


def test_inputs_may_come_from_an_iterator_or_as_lists_of_words(small):
    model, tokenizer = small
    quick = {"tokenizer": tokenizer, "methods": ("attention",), **QUICK}
    page = report(model, iter(TEXTS[:2]), **quick)
    assert [item.explanation.texts for item in page.items] == [(TEXTS[0],), (TEXTS[1],)]
    split = report(model, TEXTS[0].split(), is_split_into_words=True, **quick)
    assert [word.text for word in split.items[0].explanation.to_words()] == TEXTS[0].split()


def test_a_comparison_is_shown(small):
    model, tokenizer = small
    comparison = compare(model, TEXTS[:2], tokenizer=tokenizer, methods=["attention", "random"])
    page = report(model, TEXTS[0], tokenizer=tokenizer, comparison=comparison, **QUICK)
    assert comparison.recommendation in " ".join(str(page).split())


def test_the_model_is_left_as_it_was():
    model = tiny_bert()
    model.train()
    before = state_of(model)
    report(model, {"input_ids": torch.arange(5, 25)[None]}, methods=("attnlrp", "attention"))
    assert state_of(model) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "good"}, r"labels\[0\] is 'good'; allowed are the classes"),
        ({"labels": [0, 1]}, "labels has 2 entries for 1 inputs"),
        ({"labels": 3.5}, "labels has float entries for 1 inputs"),
        ({"methods": "attention"}, "methods must be a list of names"),
        ({"methods": ["atention"]}, "atention"),
        ({"classes": 0}, "classes must be a positive whole number"),
        ({"attention": "some"}, "attention must be one of 'all', 'top', 'rows', 'none'"),
        ({"token_set": 1}, "token_set must be True or False"),
        ({"comparison": "best"}, "comparison must be the result of compare, not str"),
        ({"seed": -1}, "seed must be"),
        ({"profile": 1}, "profile must be"),
    ],
)
def test_wrong_arguments_are_refused_by_name(small, options, message):
    model, tokenizer = small
    with pytest.raises(InvalidInputError, match=message):
        report(model, TEXT, tokenizer=tokenizer, **options)


def test_entities_and_answers_show_where_the_output_is_read(small):
    quick = {"tokenizer": small[1], "methods": ("attention",), **QUICK}
    model = BertForTokenClassification(BertConfig(**SIZES)).eval()
    entities = report(model, "A man from Paris sleeps.", **quick).items[0]
    assert len(entities.anchors) == 1
    assert len(entities.explanations) == 5
    assert entities.classes == ()
    row = logits(model, dict(small[1]("A man from Paris sleeps.", return_tensors="pt")))[0, entities.anchors[0]]
    assert entities.value == pytest.approx(float((row[0] - row[1]).abs()), abs=1e-5)
    answer = report(BertForQuestionAnswering(BertConfig(**SIZES)).eval(), ("Who sleeps?", "A man sleeps."), **quick)
    assert answer.items[0].anchors
    assert '"anchors":[' in answer.to_html()


@pytest.mark.parametrize("name", ["seqcls-bart", "seqcls-modernbert", "seqcls-gpt2"])
def test_decoders_and_windows_have_a_page_too(name):
    model, inputs = zoo_model(name)
    page = report(model, inputs, **QUICK, methods=("attention",), attention="all")
    detail = page.items[0].attention
    assert len(detail.heads) == sum(len(layer.rank) for layer in page.items[0].explanation.layers)
    assert all(head.raw and head.contribution is not None for head in detail.heads)
    for head in detail.heads[:2]:
        rows = head.matrix("efficient")
        assert float((rows.sum(-1) - head.matrix("raw").sum(-1)).abs().max()) < 0.1
    page.to_html()


def test_images_and_recordings_have_a_page_too():
    for name in ("imgcls-vit", "audcls-wavlm"):
        model, inputs = zoo_model(name)
        one = {key: value[:1] for key, value in inputs.items()}
        page = report(model, one, methods=("attention",))
        item = page.items[0]
        assert item.certificate is not None
        assert item.token_set is not None
        assert item.attention.heads[0].matrix("raw").shape == (len(item.explanation.tokens),) * 2
        assert ('"uri":"data:image' in page.to_html()) == (name == "imgcls-vit")


def test_an_image_and_a_recording_have_a_token_set(tmp_path):
    for name, item, options in (
        ("vit", picture(), {"processor": image_processor()}),
        ("wav2vec2", tone(0.1), {"processor": feature_extractor("wav2vec2"), "sampling_rate": 16000}),
    ):
        model = media_model(name)
        quick = {"methods": (), "attention": "none", "certificate": False, "subgraph": False}
        page = report(model, item, **options, **quick, token_set=True)
        found = minimal_tokens(model, item, **options)
        assert page.items[0].token_set.indices == found.indices
        assert '"tokenSet":{"outcome"' in page.to_html()


def test_candidate_labels_are_those_of_zero_shot_classification(small):
    tokenizer = small[1]
    names = {0: "contradiction", 1: "neutral", 2: "entailment"}
    model = tiny_bert(num_labels=3, id2label=names, label2id={name: i for i, name in names.items()})
    labels = ["film", "sport", "food"]
    quick = {"tokenizer": tokenizer, "methods": ("attention",), "certificate": False, "attention": "none"}
    page = report(model, TEXT, candidate_labels=labels, labels="sport", subgraph=False, **quick)
    item = page.items[0]
    expected = explain(model, TEXT, tokenizer=tokenizer, candidate_labels=labels)
    assert item.explanation.target_name == expected.target_name
    assert torch.equal(item.explanation.scores, expected.scores)
    every = explain(model, TEXT, tokenizer=tokenizer, candidate_labels=labels, targets="all")
    assert [one.name for one in item.classes] == labels
    assert [one.probability for one in item.classes] == pytest.approx([one.probability for one in every], abs=1e-6)
    assert [one.value for one in item.classes] == pytest.approx([one.value for one in every], abs=1e-5)
    assert item.correct == (expected.target_name == "sport")
    assert item.token_set.target_name == expected.target_name
    named = report(model, TEXT, candidate_labels=labels, target="food", **quick, **QUICK_SETS).items[0]
    assert named.explanation.target_name == "food"
    with pytest.raises(InvalidInputError, match="explained on other tokens"):
        report(model, TEXT, candidate_labels=labels, targets=["food", "film"], **quick)
    with pytest.raises(InvalidInputError, match="none of the candidate labels"):
        report(model, TEXT, candidate_labels=labels, target="music", **quick)
    with pytest.raises(InvalidInputError, match=r"labels\[0\] is 'neutral'; allowed are"):
        report(model, TEXT, candidate_labels=labels, labels="neutral", **quick)


def test_several_targets_stand_on_one_page(small):
    model, tokenizer = small
    quick = {"tokenizer": tokenizer, "methods": ("attention",), **QUICK, "attention": "none"}
    page = report(model, TEXTS[:2], targets=["positive", 0], **quick)
    for item, text in zip(page.items, TEXTS):
        assert [one.target_name for one in item.explanations] == ["positive", "negative"]
        alone = explain(model, text, tokenizer=tokenizer, target="positive")
        assert float((item.explanation.scores - alone.scores).abs().max()) < 1e-6
    ner = BertForTokenClassification(BertConfig(**SIZES)).eval()
    every = report(ner, TEXTS[:2], targets="all", **quick)
    for item, text in zip(every.items, TEXTS):
        calls = {one.info["target"] for one in item.explanations}
        assert calls == {one.info["target"] for one in explain(ner, text, tokenizer=tokenizer, targets="all")}
    for options, message in (
        ({"targets": [0], "target": 1}, "target and targets"),
        ({"targets": []}, "targets must be a list"),
        ({"targets": [[0, 1]]}, "targets holds a list"),
        ({"targets": 1}, "targets must be a list"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            report(model, TEXT, **quick, **options)


def test_inputs_that_cannot_be_used_are_left_out_with_the_reason(small):
    model, tokenizer = small
    options = {"tokenizer": tokenizer, "methods": ("attention",), "subgraph": False, "attention": "top"}
    page = report(
        model, ["", TEXTS[0], "joy " * 600, TEXTS[1]], errors="skip", labels=[None, 0, 1, "positive"], **options
    )
    assert [one.index for one in page.skipped] == [0, 2]
    assert [item.explanation.texts for item in page.items] == [(TEXTS[0],), (TEXTS[1],)]
    assert [item.label for item in page.items] == ["negative", "positive"]
    alone = report(model, TEXTS[1], **options).items[0]
    assert page.items[1].token_set.indices == alone.token_set.indices
    assert page.items[1].certificate.change.kept == alone.certificate.change.kept
    assert "Input 2 was skipped: inputs[2] has" in " ".join(str(page).split())
    assert "Input 0 was skipped" in page.to_html()
    assert Report.from_dict(json.loads(json.dumps(page.to_dict()))).skipped == page.skipped
    with pytest.raises(InvalidInputError):
        report(model, ["", TEXTS[0]], **options)
    with pytest.raises(InvalidInputError):
        report(model, ["", " "], errors="skip", **options)


def test_a_long_text_has_the_parts_that_windows_allow(small):
    model, tokenizer = tiny_bert(max_position_embeddings=32, num_labels=3), small[1]
    long = " ".join(TEXTS)
    options = {"tokenizer": tokenizer, "methods": ("attention",), "subgraph": False, "stride": 8}
    page = report(model, [long, TEXTS[0]], **options)
    first, second = page.items
    expected = explain(model, long, tokenizer=tokenizer, stride=8)
    assert torch.equal(first.explanation.scores, expected.scores)
    assert first.value == pytest.approx(expected.info["windows"]["value"])
    assert [one.probability for one in first.classes][expected.target] == pytest.approx(expected.probability)
    assert {one.target for one in first.explanations} == {0, 1, 2}
    for name in ("token_set", "certificate", "attention"):
        assert "whole text at once" in first.notes[name]
        assert name not in second.notes
    assert second.token_set is not None
    page.to_html()
    with pytest.raises(InvalidInputError, match="the model takes 32"):
        report(model, long, tokenizer=tokenizer)


def test_a_model_without_attention_is_refused():
    model, inputs = zoo_model("seqcls-fnet")
    with pytest.raises(UnsupportedModelError, match="cannot be captured exactly"):
        report(model, {"input_ids": inputs["input_ids"]})


def test_tokens_without_a_text_have_a_page(small):
    model, tokenizer = small
    page = report(model, tokenizer(TEXT, return_tensors="pt"), tokenizer=tokenizer, methods=(), attention="none")
    assert page.items[0].explanation.texts == ()
    assert "because of" in page.items[0].sentence
    page.to_html()
