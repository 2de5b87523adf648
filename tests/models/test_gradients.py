"""Where autograd cannot give a gradient, every method that needs one says why; nothing else is concerned."""

import pytest
import torch

from hf_attn_mi import explain, minimal_attention
from hf_attn_mi.errors import UnsupportedModelError
from hf_attn_mi.models.inspect_layers import inspect_layers
from hf_attn_mi.models.runner import EncoderRunner
from tests.sample_models import tiny_bert

IDS = {"input_ids": torch.tensor([[2, 5, 6, 7, 3]])}


def spoil(module, arguments, output):
    """Change in place what the gradient of a product needs, after the product."""
    scale = torch.full((1,), 2.0)
    product = output * scale
    scale.add_(1.0)
    return product


@pytest.fixture
def model():
    """A model whose last layer and pooler change in place what a gradient needs."""
    model = tiny_bert(num_hidden_layers=2, pad_token_id=0)
    for module in (model.bert.encoder.layer[1].output, model.bert.pooler):
        module.register_forward_hook(spoil)
    return model


@pytest.mark.parametrize("method", ["saliency", "integrated_gradients", "relevance", "attnlrp"])
def test_a_value_that_is_changed_in_place_is_named(model, method):
    with pytest.raises(UnsupportedModelError, match=r"no gradient .* or the model changed values in place"):
        explain(model, IDS, method=method, target=0)


def test_the_search_for_attention_weights_says_so_too(model):
    with pytest.raises(UnsupportedModelError, match=r"no gradient .* or the model changed values in place"):
        minimal_attention(model, IDS, target=0)


def test_what_needs_no_gradient_is_computed(model):
    found = explain(model, IDS, method="attention", target=0)
    assert found.probability == pytest.approx(model(**IDS).logits.softmax(-1)[0, 0].item(), abs=1e-6)
    runner = EncoderRunner.of(model)
    one = runner.encode(IDS)[0][0]
    assert inspect_layers(runner, one).reads is None
