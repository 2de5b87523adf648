"""Models of images and texts: patches of an image explain its similarity to a text, as the pipeline answers."""

import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    DPRConfig,
    DPRQuestionEncoder,
    SiglipConfig,
    SiglipModel,
    pipeline,
)

from hf_attn_mi import InvalidInputError, UnsupportedModelError, certify, explain, report, targets
from tests.media_models import PATCHES, VISION, image_processor, picture
from tests.sample_models import state_of
from tests.zoo.building import rescale

TEXT = {**VISION, "vocab_size": 8000, "max_position_embeddings": 64, "eos_token_id": 3, "pad_token_id": 0}
LABELS = ["a cat", "a dog", "a very large bird"]


def dual(kind):
    torch.manual_seed(0)
    if kind == "clip":
        model = CLIPModel(CLIPConfig(text_config=TEXT, vision_config=PATCHES, projection_dim=24))
    else:
        model = SiglipModel(SiglipConfig(text_config={**TEXT, "projection_size": 32}, vision_config=PATCHES))
    rescale(model)
    with torch.no_grad():
        model.logit_scale.fill_(1.5)
    return model.eval()


def own_logits(model, tokenizer, labels):
    siglip = isinstance(model, SiglipModel)
    padding = {"padding": "max_length", "max_length": 64} if siglip else {"padding": True}
    texts = tokenizer([f"This is a photo of {label}." for label in labels], return_tensors="pt", **padding)
    texts.pop("token_type_ids", None)
    if siglip:
        texts.pop("attention_mask")
    pixels = image_processor()(images=picture(), return_tensors="pt")
    with torch.no_grad():
        return model(**texts, **pixels).logits_per_image[0].double()


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_explained_value_is_the_similarity_of_the_models_own_forward(kind, demo):
    model, tokenizer = dual(kind), demo[1]
    options = {"tokenizer": tokenizer, "processor": image_processor(), "candidate_labels": LABELS}
    before = state_of(model)
    one = explain(model, picture(), method="relevance", **options)
    assert state_of(model) == before
    logits = explain(model, picture(), method="integrated_gradients", options={"steps": 5}, **options)
    assert logits.target == one.target
    own = own_logits(model, tokenizer, LABELS) if kind == "clip" else None
    assert one.target_name == LABELS[one.target]
    assert one.grid == (4, 4)
    assert one.completeness_gap < 1e-4
    if own is not None:
        assert one.target == int(own.argmax())
        assert one.probability == pytest.approx(float(own.softmax(0)[one.target]), abs=1e-5)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_zero_shot_pipeline_is_explained_as_it_answers(kind, demo):
    pipe = pipeline(
        "zero-shot-image-classification", model=dual(kind), tokenizer=demo[1], image_processor=image_processor()
    )
    pipe.tokenizer.model_input_names = ["input_ids", "attention_mask"] if kind == "clip" else ["input_ids"]
    try:
        answer = pipe(picture(), candidate_labels=LABELS)[0]
        one = explain(pipe, picture(), candidate_labels=LABELS)
    finally:
        pipe.tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    assert one.target_name == answer["label"]
    assert one.probability == pytest.approx(answer["score"], abs=1e-5)


def test_one_label_explains_the_similarity_itself(demo):
    model, tokenizer = dual("clip"), demo[1]
    options = {"tokenizer": tokenizer, "processor": image_processor()}
    one = explain(model, picture(), candidate_labels=["a cat"], **options)
    assert one.probability is None
    assert one.target_name == "a cat"
    value = float(own_logits(model, tokenizer, ["a cat"])[0])
    blank = explain(model, {"pixel_values": torch.zeros(1, 3, 32, 32)}, candidate_labels=["a cat"], **options)
    exact = {"method": "integrated_gradients", "options": {"steps": 300, "baseline": "zero"}}
    assert blank.completeness_gap < 1e-4
    assert explain(model, picture(), candidate_labels=["a cat"], **options, **exact).completeness_gap < 0.01
    assert abs(value) > 0.01


def test_labels_are_named_and_chosen(demo):
    options = {"tokenizer": demo[1], "processor": image_processor()}
    one = explain(dual("clip"), [picture(), picture(1)], candidate_labels="cat, dog", target="dog", **options)
    assert [item.target_name for item in one] == ["dog", "dog"]
    for labels in ([], ["a", "a"], [1], 3):
        with pytest.raises(InvalidInputError, match="candidate_labels must be"):
            explain(dual("clip"), picture(), candidate_labels=labels, **options)
    with pytest.raises(InvalidInputError, match="pass candidate_labels"):
        explain(dual("clip"), picture(), **options)


def test_a_model_that_compares_in_another_way_is_refused(demo):
    model = dual("clip")
    model.visual_projection.register_forward_hook(lambda module, args, output: output + 1)
    model.forward = lambda **arguments: type("Output", (), {"logits_per_image": torch.zeros(1, 3)})()
    with pytest.raises(UnsupportedModelError, match="in another way"):
        explain(model, picture(), candidate_labels=LABELS, tokenizer=demo[1], processor=image_processor())


def test_the_words_of_a_text_explain_its_similarity_to_an_image(demo):
    model, tokenizer = dual("clip"), demo[1]
    inputs = dict(tokenizer("This is a photo of a cat.", return_tensors="pt"))
    del inputs["token_type_ids"]
    inputs |= image_processor()(images=picture(), return_tensors="pt")
    one = explain(model, inputs, tokenizer=tokenizer, target=lambda out: out.logits_per_text[:, 0])
    assert "cat" in one.tokens
    assert one.completeness_gap < 1e-4
    assert [layer.name for layer in one.layers] == [f"text_model.encoder.layers.{i}.self_attn" for i in range(2)]


def test_each_tower_is_explained_on_its_own(demo):
    torch.manual_seed(0)
    texts = CLIPTextModelWithProjection(CLIPTextConfig(**TEXT, projection_dim=24)).eval()
    images = CLIPVisionModelWithProjection(CLIPVisionConfig(**PATCHES, projection_dim=24)).eval()
    one = explain(texts, "a photo of a cat", tokenizer=demo[1], target=lambda out: out.text_embeds[:, 3])
    assert one.completeness_gap < 1e-4
    assert len(one.layers) == 2
    other = explain(images, picture(), processor=image_processor(), target=lambda out: out.image_embeds[:, 3])
    assert other.completeness_gap < 1e-4
    assert other.grid == (4, 4)


def features(model, tokenizer, item):
    """The embedding that the model itself makes of a text or an image."""
    with torch.no_grad():
        if isinstance(item, str):
            return model.get_text_features(input_ids=tokenizer(item, return_tensors="pt").input_ids).pooler_output[0]
        return model.get_image_features(**image_processor()(images=item, return_tensors="pt")).pooler_output[0]


@pytest.mark.parametrize("other", ["a photo of a dog", picture(1)], ids=["text", "image"])
@pytest.mark.parametrize("one", ["a photo of a cat", picture()], ids=["text", "image"])
def test_texts_and_images_are_compared_with_either(demo, one, other):
    model, tokenizer = dual("clip"), demo[1]
    options = {"tokenizer": tokenizer, "processor": image_processor(), "target": targets.similarity(other)}
    wanted = torch.cosine_similarity(features(model, tokenizer, one), features(model, tokenizer, other), dim=0)
    before = state_of(model)
    found = explain(model, one, **options)
    assert state_of(model) == before
    assert found.value == pytest.approx(float(wanted), abs=1e-5)
    assert found.completeness_gap < 1e-5
    assert len(found.layers) == 2
    assert found.target_name == ("similarity to 'a photo of a dog'" if isinstance(other, str) else found.target_name)
    certificate = certify(model, one, checked_rows=2, **options)
    assert certificate.target_name == found.target_name
    quick = {"methods": (), "attention": "none", "subgraph": False, "token_set": False, "certificate": False}
    page = report(model, one, **quick, **options)
    assert torch.equal(page.items[0].explanations[0].scores, found.scores)


def test_a_text_alone_is_a_similarity_or_refused(demo):
    with pytest.raises(InvalidInputError, match=r'similarity\("another text"\)'):
        explain(dual("clip"), "a photo of a cat", tokenizer=demo[1])
    with pytest.raises(InvalidInputError, match="padded to one length"):
        explain(dual("siglip"), "a cat", tokenizer=demo[1], target=targets.similarity("a dog"))
    pair = explain(dual("clip"), ["a cat", "a dog"], tokenizer=demo[1], target="similarity('a dog')", layers="none")
    assert pair[1].value == pytest.approx(1.0, abs=1e-6)


def test_the_projected_embedding_of_a_tower_is_its_own(demo):
    torch.manual_seed(0)
    texts = CLIPTextModelWithProjection(CLIPTextConfig(**TEXT, projection_dim=24)).eval()
    images = CLIPVisionModelWithProjection(CLIPVisionConfig(**PATCHES, projection_dim=24)).eval()
    found = explain(texts, "a photo of a cat", tokenizer=demo[1], target=targets.similarity("a dog"), layers="none")
    with torch.no_grad():
        rows = [
            texts(input_ids=demo[1](text, return_tensors="pt").input_ids).text_embeds
            for text in ("a photo of a cat", "a dog")
        ]
    assert found.value == pytest.approx(float(torch.cosine_similarity(*rows)), abs=1e-6)
    found = explain(
        images, picture(), processor=image_processor(), target=targets.similarity(picture(1)), layers="none"
    )
    with torch.no_grad():
        rows = [images(**image_processor()(images=picture(i), return_tensors="pt")).image_embeds for i in (0, 1)]
    assert found.value == pytest.approx(float(torch.cosine_similarity(*rows)), abs=1e-5)


def test_a_model_of_pooled_outputs_alone_has_an_embedding(demo):
    torch.manual_seed(0)
    model = DPRQuestionEncoder(DPRConfig(vocab_size=8000, **VISION)).eval()
    found = explain(model, "Who made it?", tokenizer=demo[1], target=targets.similarity("Tom."), layers="none")
    with torch.no_grad():
        rows = [model(**demo[1](text, return_tensors="pt")).pooler_output for text in ("Who made it?", "Tom.")]
    assert found.value == pytest.approx(float(torch.cosine_similarity(*rows)), abs=1e-6)


def test_tensors_of_text_and_image_name_the_way(demo):
    inputs = dict(demo[1]("a cat", return_tensors="pt")) | image_processor()(images=picture(), return_tensors="pt")
    inputs.pop("token_type_ids")
    with pytest.raises(InvalidInputError, match="Pass a text or an image instead of tensors of both"):
        explain(dual("clip"), inputs, tokenizer=demo[1], target=targets.similarity(torch.ones(24)))


def test_a_similarity_is_written_as_a_call_where_a_string_can_hold_it(demo):
    model, options = dual("clip"), {"tokenizer": demo[1], "layers": "none"}
    one = explain(model, "a cat", target=targets.similarity(("a dog", "a bird")), **options)
    again = explain(model, "a cat", target=one.info["target"], **options)
    assert again.value == one.value
    embedding = explain(model, "a cat", target=targets.similarity(torch.ones(24)), **options)
    assert "target" not in embedding.info
