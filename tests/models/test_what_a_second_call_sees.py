"""What was learned in one call holds in the next one only while it is true."""

import copy
import functools

import pytest
import torch
from torch import nn
from transformers import AttentionInterface, BertForMaskedLM, LlamaConfig, LlamaForSequenceClassification
from transformers.models.bert import modeling_bert

from hf_attn_mi import HfAttnMiError, UnsupportedModelError, explain, minimal_tokens
from hf_attn_mi.capture.model_cache import model_state, runs_own_code
from tests.sample_models import tiny_bert

INPUTS = {"input_ids": torch.tensor([[1, 5, 6, 7, 2]]), "attention_mask": torch.ones(1, 5, dtype=torch.long)}


def relu_attention(module, query, key, value, mask, scaling=None, **options):
    rows = torch.relu(query @ key.transpose(-1, -2) * scaling)
    return (rows @ value).transpose(1, 2), rows


def decoder_of_dynamic_positions(vocabulary):
    """A classifier whose positions turn by the length of the batch, beyond 12 tokens."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    rope = {"rope_type": "dynamic", "factor": 8.0, "rope_theta": 100.0}
    ids = {"vocab_size": vocabulary, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = LlamaConfig(**sizes, **ids, max_position_embeddings=12, rope_parameters=rope)
    model = LlamaForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
    return model


TEXTS = ["a film of joy and wit .", "a film of joy and wit , and then of more joy and more wit , and of no end to it ."]


def test_padding_is_tried_again_where_an_input_is_longer_than_any_before(demo):
    model, options = decoder_of_dynamic_positions(len(demo[1])), {"tokenizer": demo[1], "target": 0, "layers": "none"}
    batch = demo[1](TEXTS, return_tensors="pt", padding=True)
    batch.pop("token_type_ids", None)
    short = int(batch["attention_mask"][0].sum())
    with torch.no_grad():
        alone = float(model(input_ids=batch["input_ids"][:1, :short]).logits[0].softmax(0)[0])
        beside = float(model(**batch).logits[0].softmax(0)[0])
    assert abs(alone - beside) > 1e-3  # the premise: padding changes what the model says
    explain(model, ["a film", "a film of joy"], **options)
    first, _ = explain(model, TEXTS, **options)
    assert first.probability == pytest.approx(alone, abs=1e-6)
    # The same of rows that the caller has padded: they are explained as the model answers them.
    model = decoder_of_dynamic_positions(len(demo[1]))
    explain(model, {name: tensor[:, : short + 1] for name, tensor in batch.items()}, target=0, layers="none")
    first, _ = explain(model, dict(batch), target=0, layers="none")
    assert first.probability == pytest.approx(beside, abs=1e-6)


def test_a_wrong_target_is_forgotten(demo):
    torch.manual_seed(0)
    model, options = BertForMaskedLM(demo[0].config).eval(), {"tokenizer": demo[1]}
    text = "A [MASK] and quiet film."
    with pytest.raises(HfAttnMiError, match="has no class logits"):
        minimal_tokens(model, text, target=0, **options)
    expected = minimal_tokens(copy.deepcopy(model), text, **options)
    assert minimal_tokens(model, text, **options).indices == expected.indices


def test_another_function_under_a_known_name_is_seen(monkeypatch):
    model = tiny_bert()
    model.set_attn_implementation("sdpa")
    explain(model, INPUTS, layers="none")
    monkeypatch.setitem(AttentionInterface._global_mapping, "sdpa", relu_attention)
    with pytest.raises(UnsupportedModelError, match="no softmax over keys"):
        explain(model, INPUTS, layers="none")


def test_a_patched_library_class_is_seen_though_it_takes_the_name(monkeypatch):
    model, forward = tiny_bert(), modeling_bert.BertSelfAttention.forward
    assert explain(model, INPUTS, method="value_norms").scores.sum() > 0

    @functools.wraps(forward)
    def rescaled(self, *args, **options):
        first, *rest = forward(self, *args, **options)
        return (first * torch.linspace(0, 4, first.shape[-1]), *rest)

    state = model_state(model)
    monkeypatch.setattr(modeling_bert.BertSelfAttention, "forward", rescaled)
    assert model_state(model) != state
    assert runs_own_code(model)
    with pytest.raises(UnsupportedModelError, match="not followed to a linear W_O"):
        explain(model, INPUTS, method="value_norms")


def test_a_hook_of_all_modules_changes_the_state():
    model = tiny_bert()
    state = model_state(model)
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, output: None)
    try:
        assert model_state(model) != state
    finally:
        handle.remove()
    assert model_state(model) == state


def test_the_same_model_keeps_its_state():
    model = tiny_bert()
    state = model_state(model)
    explain(model, INPUTS)
    assert model_state(model) == state


def test_weights_of_inference_mode_are_named():
    with torch.inference_mode():
        model = tiny_bert()
    with pytest.raises(UnsupportedModelError, match="weights that were created in torch"):
        explain(model, INPUTS, method="saliency", layers="none")
