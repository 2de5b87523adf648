"""`explanation.value` and `explanation.bias`: whoever holds a result can check the sum."""

import pytest
import torch

from hf_attn_mi import Explanation, InvalidInputError, explain
from tests.media_models import image_processor, media_model, picture
from tests.results.result_samples import explanation
from tests.sample_models import TEXTS, load_demo

METHODS = {  # method -> options that keep it short
    "relevance": {},
    "attnlrp": {},
    "integrated_gradients": {"steps": 32},
    "deeplift": {},
    "gradient_shap": {"samples": 4},
    "kernel_shap": {"samples": 64},
    "shapley_sampling": {"samples": 1},
}


def adds_up(found):
    """The distance of the sum from the value, relative as the completeness gap is."""
    whole = found.value - found.bias if found.info["adds_up_to"] else found.value
    scale = max(abs(whole), float(found.scores.abs().sum()))
    return abs(float(found.scores.double().sum()) + found.bias - found.value) / scale


@pytest.mark.parametrize("method", METHODS)
def test_scores_and_bias_add_up_to_the_value(method):
    model, tokenizer = load_demo()
    for found in explain(
        model, TEXTS[:2], tokenizer=tokenizer, method=method, options=METHODS[method], layers="none", target=1
    ):
        if method in ("relevance", "attnlrp", "shapley_sampling"):  # the others sample or approximate, and say so
            assert adds_up(found) < 1e-5
        assert adds_up(found) == pytest.approx(found.completeness_gap, rel=1e-3, abs=1e-6)
        assert f"Value {found.value:.4g} = sum of scores" in str(found)


def test_the_value_is_that_of_the_model():
    model, tokenizer = load_demo()
    with torch.no_grad():
        logits = model(**tokenizer(TEXTS[0], return_tensors="pt")).logits[0].double()
    found = explain(model, TEXTS[0], tokenizer=tokenizer, layers="none", target=1)
    assert found.value == pytest.approx(float(logits[1] - logits[0]), abs=1e-5)
    shares = explain(
        model, TEXTS[0], tokenizer=tokenizer, layers="none", target=1, method="kernel_shap", options={"samples": 64}
    )
    assert shares.value == pytest.approx(float(logits.softmax(0)[1]), abs=1e-6)
    assert shares.bias < shares.value


@pytest.mark.parametrize("method", ["attention", "attnlrp_iterative", "occlusion", "input_x_gradient"])
def test_methods_that_do_not_add_up_state_no_value(method):
    model, tokenizer = load_demo()
    found = explain(model, TEXTS[0], tokenizer=tokenizer, layers="none", method=method)
    assert (found.value, found.bias) == (None, None)
    assert "value" not in found.to_pandas()


def test_images_and_windows_add_up():
    image = explain(media_model("vit"), picture(), processor=image_processor(), layers="none")
    assert adds_up(image) < 1e-5
    model, tokenizer = load_demo()
    for aggregation in ("mean", "max"):
        text = "A joy to watch, and dull at times. " * 60
        found = explain(model, text, tokenizer=tokenizer, stride=32, aggregation=aggregation)
        assert found.info["windows"]["count"] > 1
        assert found.value == pytest.approx(found.info["windows"]["value"])
        assert adds_up(found) < 1e-5


def test_both_are_saved_shown_and_checked(tmp_path):
    one = explanation(value=2.5, bias=0.375)
    one.save(tmp_path / "one.json")
    assert Explanation.load(tmp_path / "one.json") == one
    assert Explanation.from_dict(one.to_dict()).bias == 0.375
    assert one.to_pandas()["value"].tolist() == [2.5] * 5
    assert one != explanation(value=2.5, bias=0.25)
    for wrong in ({"value": 1.0}, {"bias": 1.0}, {"value": float("inf"), "bias": 0.0}):
        with pytest.raises(InvalidInputError, match="value"):
            explanation(**wrong)


def test_files_from_before_these_fields_are_read():
    data = explanation(value=2.5, bias=0.375).to_dict()
    del data["value"], data["bias"]
    assert Explanation.from_dict(data) == explanation()
