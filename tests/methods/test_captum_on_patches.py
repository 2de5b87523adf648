"""Captum's methods on patches of images and frames of recordings, against the model run by hand."""

import pytest
import torch

from hf_attn_mi import InvalidInputError, explain
from hf_attn_mi.methods import list_methods
from tests.media_models import feature_extractor, image_processor, media_model, picture, tone


def pixels_of(image):
    return image_processor()(images=image, return_tensors="pt")["pixel_values"]


def embedded(model, pixels):
    with torch.no_grad():
        return model.vit.embeddings(pixels)


def logits_of(model, states):
    """The logits of states that enter the first layer of a ViT, layer by layer."""
    with torch.no_grad():
        for layer in model.vit.layers if hasattr(model.vit, "layers") else model.vit.encoder.layer:
            states = layer(states)
            states = states[0] if isinstance(states, tuple) else states
        return model.classifier(model.vit.layernorm(states)[:, 0])[0].double()


def margin(logits, label):
    return float(logits[label] - (logits.sum() - logits[label]) / (len(logits) - 1))


def blanked(model, pixels, gone):
    """The states of an image with these patches (numbers without the class token) taken from a blank image."""
    states, blank = embedded(model, pixels).clone(), embedded(model, torch.zeros_like(pixels))
    places = [1 + place for place in gone]
    states[:, places] = blank[:, places]
    return states


def test_integrated_gradients_add_up_to_the_difference_from_a_blank_image():
    model, pixels = media_model("vit"), pixels_of(picture())
    own, empty = logits_of(model, embedded(model, pixels)), logits_of(model, blanked(model, pixels, range(16)))
    one = explain(
        model,
        picture(),
        processor=image_processor(),
        target="dog",
        method="integrated_gradients",
        options={"steps": 200},
    )
    assert one.completeness_gap < 1e-3
    assert one.scores[0] == 0
    assert float(one.scores.sum()) == pytest.approx(margin(own, 1) - margin(empty, 1), abs=1e-3)


def test_feature_ablation_is_the_drop_of_the_probability_without_a_patch():
    model, pixels = media_model("vit"), pixels_of(picture())
    one = explain(model, picture(), processor=image_processor(), target=2, method="feature_ablation")
    full = float(logits_of(model, embedded(model, pixels)).softmax(0)[2])
    for patch in (0, 5, 15):
        without = float(logits_of(model, blanked(model, pixels, [patch])).softmax(0)[2])
        assert float(one.scores[1 + patch]) == pytest.approx(full - without, abs=1e-6)


def test_occlusion_slides_a_square_over_the_patches():
    model, pixels = media_model("vit"), pixels_of(picture())
    one = explain(model, picture(), processor=image_processor(), target=1, method="occlusion", options={"window": 2})
    full = float(logits_of(model, embedded(model, pixels)).softmax(0)[1])

    def drop(row, column):
        gone = [(row + i) * 4 + column + j for i in (0, 1) for j in (0, 1)]
        return full - float(logits_of(model, blanked(model, pixels, gone)).softmax(0)[1])

    assert float(one.scores[1]) == pytest.approx(drop(0, 0), abs=1e-6)  # the corner lies in one window
    middle = [drop(row, column) for row in (0, 1) for column in (0, 1)]
    assert float(one.scores[1 + 5]) == pytest.approx(sum(middle) / 4, abs=1e-6)


@pytest.mark.parametrize(
    "method", [name for name, scorer in list_methods().items() if "internal_batch" in scorer.options]
)
def test_every_perturbation_and_gradient_method_takes_images_and_audio(method):
    options = {"samples": 20} if "samples" in list_methods()[method].options else {}
    options |= {"steps": 5} if "steps" in list_methods()[method].options else {}
    images = explain(
        media_model("vit"), [picture(), picture(1)], processor=image_processor(), method=method, options=options
    )
    alone = explain(media_model("vit"), picture(1), processor=image_processor(), method=method, options=options)
    assert torch.allclose(images[1].scores, alone.scores, atol=1e-4 * float(alone.scores.abs().max()) + 1e-7)
    sound = explain(
        media_model("wav2vec2"),
        tone(0.2),
        sampling_rate=16000,
        processor=feature_extractor("wav2vec2"),
        method=method,
        options=options,
    )
    assert sound.scores.shape == (9,)


@pytest.mark.parametrize("name", ["swin", "dinov2 with registers", "siglip", "clip"])
def test_other_models_of_images_are_ablated_too(name):
    one = explain(media_model(name), picture(), processor=image_processor(), method="feature_ablation")
    assert one.grid is not None
    assert all(score == 0 for score, special in zip(one.scores, one.special) if special)


def test_zero_states_are_a_baseline_and_tokens_are_none():
    model = media_model("vit")
    zero = explain(model, picture(), processor=image_processor(), method="occlusion", options={"baseline": "zero"})
    assert zero.info["baseline"] == "zero state"
    with pytest.raises(InvalidInputError, match="'blank'"):
        explain(model, picture(), processor=image_processor(), method="occlusion", options={"baseline": "pad"})


def test_blank_is_no_baseline_of_texts(demo):
    with pytest.raises(InvalidInputError, match="'blank'"):
        explain(demo[0], "a film", tokenizer=demo[1], method="occlusion", options={"baseline": "blank"})


def test_random_scores_depend_on_the_image():
    model, processor = media_model("vit"), image_processor()
    both = explain(model, [picture(), picture(1)], processor=processor, method="random")
    again = explain(model, picture(), processor=processor, method="random")
    assert torch.equal(both[0].scores, again.scores)
    assert not torch.equal(both[0].scores, both[1].scores)
