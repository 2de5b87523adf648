"""Attention over patches of images and frames of audio, against the attention that the model itself returns."""

import pytest
import torch

from hf_attn_mi import InvalidInputError, attention_maps, explain, rollout
from tests.media_models import (
    AUDIO_MODELS,
    IMAGE_MODELS,
    feature_extractor,
    image_processor,
    media_model,
    picture,
    tone,
)

METHODS = ("attention", "rollout", "effective", "efficient", "value_norms")
OWN_TOKENS = [name for name in (*IMAGE_MODELS, *AUDIO_MODELS) if name != "swin"]


def example(name):
    """The model, two inputs, and what `explain` needs beside them."""
    if name in IMAGE_MODELS:
        return media_model(name), [picture(), picture(1)], {"processor": image_processor()}
    extractor = feature_extractor(name)
    return media_model(name), [tone(0.5), tone(0.4)], {"processor": extractor, "sampling_rate": 16000}


def attentions(name):
    """(layers, heads, queries, keys) that the model returns for the first input with eager attention."""
    _, inputs, options = example(name)
    model = media_model(name, attn_implementation="eager")
    processor = options["processor"]
    if name in IMAGE_MODELS:
        tensors = processor(images=inputs[0], return_tensors="pt")
    else:
        tensors = processor(inputs[0], sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        return torch.cat(model(**tensors, output_attentions=True).attentions)


@pytest.mark.parametrize("name", ["vit", "deit", "dinov2 with registers", "wav2vec2", "ast"])
def test_attention_and_rollout_are_those_of_the_models_own_rows(name):
    model, inputs, options = example(name)
    rows = attentions(name)
    one = explain(model, inputs, method="attention", **options)[0]
    assert torch.allclose(one.scores, rows.mean((0, 1, 2)), atol=1e-6)
    assert [layer.received.shape for layer in one.layers] == [(4, len(one.tokens))] * 2
    assert torch.allclose(one.layers[1].received, rows[1].mean(1), atol=1e-6)
    rolled = explain(model, inputs, method="rollout", **options)[0]
    assert torch.allclose(rolled.scores, rollout(list(rows.mean(1))).mean(0).float(), atol=1e-6)
    maps = attention_maps(model, inputs[0], kind="raw", **options)
    assert maps.tokens == one.tokens
    assert all(torch.allclose(found, wanted, atol=1e-6) for found, wanted in zip(maps.matrices, rows))


@pytest.mark.parametrize("name", OWN_TOKENS)
def test_attention_methods_give_the_same_scores_in_a_batch(name):
    model, inputs, options = example(name)
    for method in METHODS:
        both = explain(model, inputs, method=method, **options)
        alone = explain(model, inputs[1], method=method, **options)
        assert torch.allclose(both[1].scores, alone.scores, atol=1e-5 * float(alone.scores.abs().max()))
    assert len(alone.layers) == 2


@pytest.mark.parametrize("kind", ["efficient", "effective"])
def test_other_maps_give_the_same_outputs(kind):
    model, inputs, options = example("vit")
    maps = attention_maps(model, inputs[0], kind=kind, **options)
    assert [matrix.shape for matrix in maps.matrices] == [(4, 17, 17)] * 2
    assert max(float(residual.max()) for residual in maps.residual) < 1e-5


def test_shifted_windows_have_relevance_and_no_attention_over_patches():
    model, inputs, options = example("swin")
    for method in ("attention", "rollout", "effective", "efficient"):
        with pytest.raises(InvalidInputError, match=r"4 attention modules, such as swin.*windows of patches"):
            explain(model, inputs, method=method, **options)
    one = explain(model, inputs[0], **options)
    assert one.completeness_gap < 1e-4
    assert any("over other tokens" in note for note in one.info["warnings"])


def test_pooling_by_attention_is_no_layer_over_other_patches():
    model, inputs, options = example("siglip")
    one = explain(model, inputs[0], method="attention", **options)
    assert len(one.layers) == 2
    assert float(one.scores.sum()) == pytest.approx(1.0, abs=1e-5)
