"""`minimal_tokens` on images and recordings: patches and moments are made blank."""

import json

import pytest
import torch

from hf_attn_mi import InvalidInputError, TokenSet, compare, minimal_attention, minimal_tokens, recheck
from hf_attn_mi.capture import first_layer
from tests.media_models import feature_extractor, image_processor, media_model, picture, tone


def probability(model, arguments, kept, target):
    """p(target) with the states of every other position replaced by those of an input of zeros, by plain hooks."""
    states = []

    def note(module, args):
        states.append(args[0].detach())

    def put(module, args):
        mask = torch.zeros(args[0].shape[1], dtype=torch.bool)
        mask[list(kept)] = True
        return (torch.where(mask[None, :, None], states[0], states[1]), *args[1:])

    layer = first_layer(model)
    with torch.no_grad():
        handle = layer.register_forward_pre_hook(note)
        for values in (arguments, {key: torch.zeros_like(value) for key, value in arguments.items()}):
            model(**values)
        handle.remove()
        handle = layer.register_forward_pre_hook(put)
        logits = model(**arguments).logits[0].double()
        handle.remove()
    return float(logits.softmax(0)[target])


def inputs_of(name):
    if name == "vit":
        return picture(), {"processor": image_processor()}
    return tone(0.2), {"processor": feature_extractor(name), "sampling_rate": 16000}


@pytest.fixture(scope="module", params=["vit", "wav2vec2"])
def case(request):
    model = media_model(request.param)
    item, options = inputs_of(request.param)
    return model, item, options, minimal_tokens(model, item, **options, target="cat")


def arguments_of(item, options):
    processor = options["processor"]
    if "sampling_rate" in options:
        return {"input_values": processor(item, sampling_rate=16000, return_tensors="pt").input_values}
    return {"pixel_values": processor(images=item, return_tensors="pt").pixel_values}


def test_the_probabilities_are_those_of_the_model_with_blank_positions(case):
    model, item, options, found = case
    arguments = arguments_of(item, options)
    special = {i for i, one in enumerate(found.special) if one}
    everything = set(range(len(found.tokens)))
    assert found.info["removal"] == "states of an input of zeros"
    with torch.no_grad():
        whole = float(model(**arguments).logits[0].double().softmax(0)[found.target])
    assert found.p_all == pytest.approx(whole, abs=1e-6)
    assert found.p_special == pytest.approx(probability(model, arguments, special, found.target), abs=1e-6)
    assert found.outcome == "holds"
    assert 0 < len(found.indices) < len(everything - special)
    kept = special | set(found.indices)
    assert found.p_set == pytest.approx(probability(model, arguments, kept, found.target), abs=1e-6)
    rest = special | (everything - set(found.indices))
    assert found.p_rest == pytest.approx(probability(model, arguments, rest, found.target), abs=1e-6)


def test_the_set_can_be_rechecked_saved_and_shown(case, tmp_path):
    model, item, options, found = case
    check = recheck(model, found, item, **options)
    assert check.holds
    assert check.difference < 1e-5
    found.save(tmp_path / "set.json")
    assert TokenSet.load(tmp_path / "set.json") == found
    assert json.dumps(found.to_dict())
    assert found.target_name in str(found)
    with pytest.raises(InvalidInputError, match="inputs is None"):
        recheck(model, found, **options)


def test_a_list_of_images_gives_the_sets_of_each():
    images, options = [picture(seed) for seed in range(2)], {"processor": image_processor(), "target": "cat"}
    found = minimal_tokens(media_model("vit"), images, **options)
    for image, one in zip(images, found):
        alone = minimal_tokens(media_model("vit"), image, **options)
        assert alone.indices == one.indices
        assert alone.p_set == pytest.approx(one.p_set, abs=1e-6)
        assert all(one.tokens[i].startswith("patch") for i in one.indices)


def test_compare_says_why_it_takes_texts_only():
    with pytest.raises(InvalidInputError, match=r"remove tokens from texts.*minimal_tokens"):
        compare(media_model("vit"), {"pixel_values": torch.zeros(2, 3, 32, 32)}, methods=["relevance", "random"])


def test_the_attention_that_carries_an_image_and_a_recording(case):
    model, item, options, _ = case
    found = minimal_attention(model, item, **options, target="cat", unit="head")
    arguments = arguments_of(item, options)
    with torch.no_grad():
        row = model(**arguments).logits[0].double().softmax(0)
    assert found.p_all == pytest.approx(float(row[0]), abs=1e-6)
    assert found.units or found.outcome == "nothing to certify"
    again = minimal_attention(model, arguments, target="cat", unit="head")
    assert again.units == found.units
    with pytest.raises(InvalidInputError, match="unit"):
        minimal_attention(model, item, **options, unit="patch")
