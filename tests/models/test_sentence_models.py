"""Models of sentence-transformers and SetFit as they are: values and probabilities are those of their own calls."""

import gc
import weakref

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel

from hf_attn_mi import (
    HfAttnMiError,
    InvalidInputError,
    UnsupportedModelError,
    certify,
    compare,
    explain,
    minimal_tokens,
    targets,
)
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import read_target
from tests.sample_models import SIZES, TEXTS, distance, load_demo
from tests.zoo.building import rescale

OTHER = "A dull film."


def saved(model, tokenizer, path):
    """The folder of a model with rescaled random weights and a tokenizer."""
    rescale(model)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    tokenizer, root = load_demo()[1], tmp_path_factory.mktemp("sentence")
    torch.manual_seed(0)
    sizes = {**SIZES, "intermediate_size": 64}
    return {
        "encoder": saved(BertModel(BertConfig(**sizes)), tokenizer, root / "encoder"),
        "score": saved(BertForSequenceClassification(BertConfig(**sizes, num_labels=1)), tokenizer, root / "score"),
        "classes": saved(BertForSequenceClassification(BertConfig(**sizes, num_labels=3)), tokenizer, root / "classes"),
    }


def sentence_transformer(folder, mode="mean", *, further=True):
    from sentence_transformers import SentenceTransformer, models

    torch.manual_seed(0)
    chain = [models.Transformer(folder), models.Pooling(32, pooling_mode=mode)]
    if further:
        chain += [models.Dense(32, 16), models.Normalize()]
    return SentenceTransformer(modules=chain, device="cpu")


@pytest.mark.parametrize("mode", ["mean", "cls"])
def test_the_similarity_of_a_sentence_transformer_is_its_own(folders, mode):
    model = sentence_transformer(folders["encoder"], mode)
    text, other = (model.encode(one, convert_to_tensor=True) for one in (TEXTS[2], OTHER))
    certificate = certify(model, TEXTS[2], target=targets.similarity(OTHER), checked_rows=1)
    assert certificate.output == "sentence_embedding"
    found = explain(model, TEXTS, target=targets.similarity(OTHER))
    assert found[2].target_name == f"similarity to {OTHER!r}"
    by_vector = explain(model, TEXTS[2], target=targets.similarity(other))
    assert distance(found[2].scores, by_vector.scores) < 1e-5
    occluded = explain(
        model, TEXTS[2], target=targets.similarity(OTHER), method="occlusion", options={"baseline": "zero"}
    )
    assert occluded.scores.any()
    value = float(torch.nn.functional.cosine_similarity(text, other, dim=0))
    (compared,) = compare(
        model, [TEXTS[2]], methods=["random"], metrics=["sufficiency"], target=targets.similarity(OTHER)
    ).values["random"]["sufficiency"]
    assert np.isfinite(compared)
    runner = EncoderRunner.of(model)
    encoded, _ = runner.encode(TEXTS[2])
    target, encoded = read_target(targets.similarity(OTHER), runner, encoded)
    with runner.session(), torch.no_grad():
        assert float(target(runner.forward(runner.collate(encoded)))[0]) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("whole", [True, False])
def test_an_encoder_that_takes_the_place_of_another_is_the_one_that_is_explained(folders, whole):
    model, other = (sentence_transformer(folders["encoder"]) for _ in range(2))
    with torch.no_grad():
        for parameter in other[0].parameters():
            parameter.mul_(0.5)
    other[0].auto_model.config._name_or_path = "another"
    options = {"target": targets.similarity(OTHER), "layers": "none"}
    before, expected = (explain(one, TEXTS[0], **options) for one in (model, other))
    if whole:
        model[0] = other[0]
    else:
        ((name, encoder),) = other[0].named_children()
        setattr(model[0], name, encoder)
    model.train()
    found = explain(model, TEXTS[0], **options)
    assert model[0].training  # dropout was off, and is as it was
    assert found.value == pytest.approx(expected.value, abs=1e-6)
    assert found.value != pytest.approx(before.value, abs=1e-3)
    assert found.info["model"] == expected.info["model"] != before.info["model"]
    with torch.no_grad():
        for parameter in model[0].parameters():
            parameter.mul_(2.0)
    again = explain(model, TEXTS[0], **options)  # its weights are part of the state
    assert again.value == pytest.approx(before.value, abs=1e-6)


def test_an_embedding_model_alone_says_what_it_can_explain(folders):
    model = sentence_transformer(folders["encoder"])
    with pytest.raises(
        InvalidInputError, match=r"no class logits.*similarity\(\"another text\"\) for embedding models"
    ):
        explain(model, TEXTS[0])
    for other, message in ((["a", "b"], "must be one text, not 2"), (torch.zeros(3), "has 3 numbers"), ("", "empty")):
        with pytest.raises(InvalidInputError, match=message):
            explain(model, TEXTS[0], target=targets.similarity(other))
    with pytest.raises(InvalidInputError, match="pooling must be one of 'mean'"):
        targets.similarity("a", pooling="sum")


def test_a_model_is_kept_no_longer_than_its_owner_keeps_it(folders):
    model = sentence_transformer(folders["encoder"])
    explain(model, TEXTS[0], target=targets.similarity(OTHER))
    watched = weakref.ref(model)
    del model
    gc.collect()
    assert watched() is None


def test_long_texts_are_cut_as_the_model_cuts_them(folders):
    model = sentence_transformer(folders["encoder"])
    model.max_seq_length = 8
    found = explain(model, TEXTS[2], target=targets.similarity(OTHER))
    assert len(found.tokens) == 8
    assert any(
        "cut from" in note and "by the settings of the pipeline or model" in note for note in found.info["warnings"]
    )


@pytest.mark.parametrize("kind", ["score", "classes"])
def test_a_cross_encoder_explains_its_score(folders, kind):
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(folders[kind], device="cpu")
    pairs = [(TEXTS[0], TEXTS[2]), (TEXTS[3], TEXTS[4])]
    scores = np.asarray(model.predict(pairs, apply_softmax=True)).reshape(2, -1)
    for row, found in zip(scores, explain(model, pairs)):
        assert found.probability == pytest.approx(float(row.max()), abs=1e-6)
        assert found.target == int(row.argmax())
        assert found.completeness_gap < 1e-5
    assert minimal_tokens(model, pairs[0], second_ranking=None).p_all == pytest.approx(float(scores[0].max()), abs=1e-6)


def test_a_cross_encoder_without_an_activation_has_no_probability(folders):
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(folders["score"], device="cpu", activation_fn=torch.nn.Identity())
    assert explain(model, (TEXTS[0], TEXTS[2])).probability is None


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("labels", [["neg", "pos"], ["neg", "pos", "mid"]], ids=len)
def test_a_setfit_model_explains_its_class(folders, labels, normalize):
    from setfit import SetFitModel
    from sklearn.linear_model import LogisticRegression

    body = sentence_transformer(folders["encoder"], further=False)
    classes = [i % len(labels) for i in range(len(TEXTS))]
    head = LogisticRegression().fit(body.encode(TEXTS, normalize_embeddings=normalize), classes)
    model = SetFitModel(model_body=body, model_head=head, labels=labels, normalize_embeddings=normalize)
    probabilities = np.asarray(model.predict_proba(TEXTS))
    for row, found in zip(probabilities, explain(model, TEXTS)):
        assert found.target_name == labels[int(row.argmax())]
        assert found.probability == pytest.approx(float(row.max()), abs=1e-5)
        assert found.completeness_gap < 1e-5
    assert explain(model, TEXTS[0], target=labels[0]).target == 0
    own = SetFitModel(model_body=body, model_head=torch.nn.Identity(), labels=labels)
    with pytest.raises(UnsupportedModelError, match="head of the class Identity"):
        explain(own, TEXTS[0])


def test_setfits_own_head(folders):
    from setfit import SetFitHead, SetFitModel

    torch.manual_seed(0)
    body = sentence_transformer(folders["encoder"], further=False)
    model = SetFitModel(model_body=body, model_head=SetFitHead(32, 3, device="cpu"), labels=["a", "b", "c"])
    row = model.predict_proba([TEXTS[0]])[0]
    found = explain(model, TEXTS[0])
    assert found.target_name == "abc"[int(row.argmax())]
    assert found.probability == pytest.approx(float(row.max()), abs=1e-5)


def test_a_prompt_in_front_of_every_text_is_refused(folders):
    model = sentence_transformer(folders["encoder"])
    model.prompts, model.default_prompt_name = {"query": "query: "}, "query"
    with pytest.raises(HfAttnMiError, match="puts its prompt 'query' in front"):
        explain(model, TEXTS[0], target=targets.similarity(OTHER))
