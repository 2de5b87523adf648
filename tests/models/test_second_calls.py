"""What one call has learned holds in the next one only while it is true."""

import copy
import functools

import pytest
import torch
from torch import nn
from transformers import AttentionInterface, BertConfig, BertForMaskedLM, LlamaConfig, LlamaForSequenceClassification
from transformers.models.bert import modeling_bert

from hf_attn_mi import HfAttnMiError, UnsupportedModelError, explain, minimal_tokens
from hf_attn_mi.capture.model_cache import cached, model_state, runs_own_code
from hf_attn_mi.models.padding import TriedLengths
from tests.sample_models import tiny_bert

INPUTS = {"input_ids": torch.tensor([[1, 5, 6, 7, 2]]), "attention_mask": torch.ones(1, 5, dtype=torch.long)}


def relu_attention(module, query, key, value, mask, scaling=None, **options):
    """Attention without a softmax."""
    rows = torch.relu(query @ key.transpose(-1, -2) * scaling)
    return (rows @ value).transpose(1, 2), rows


def sdpa_bert():
    model = tiny_bert()
    model.set_attn_implementation("sdpa")
    return model


def wrapped(function, change):
    """A function that changes what another one returns, and takes its names."""

    @functools.wraps(function)
    def changed(*args, **options):
        return change(function(*args, **options))

    return changed


def rescaled(output):
    first, *rest = output
    return (first * torch.linspace(0, 4, first.shape[-1]), *rest)


def of_registry(monkeypatch):
    monkeypatch.setitem(AttentionInterface._global_mapping, "sdpa", relu_attention)


def of_kernel(monkeypatch):
    doubled = wrapped(nn.functional.scaled_dot_product_attention, lambda output: output * 2)
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", doubled)


@pytest.mark.parametrize("replace", [of_registry, of_kernel])
def test_replaced_attention_is_checked_again_without_layers(replace, monkeypatch):
    model = sdpa_bert()
    explain(model, INPUTS, layers="none")
    replace(monkeypatch)
    with pytest.raises(UnsupportedModelError, match="no softmax over keys"):
        explain(model, INPUTS, layers="none")


def test_a_patched_library_class_is_followed_again(monkeypatch):
    model = sdpa_bert()
    explain(model, INPUTS, method="value_norms")
    changed = wrapped(modeling_bert.BertSelfAttention.forward, rescaled)
    monkeypatch.setattr(modeling_bert.BertSelfAttention, "forward", changed)
    with pytest.raises(UnsupportedModelError, match="not followed to a linear W_O"):
        explain(model, INPUTS, method="value_norms")


def of_class(monkeypatch):
    changed = wrapped(modeling_bert.BertSelfAttention.forward, rescaled)
    monkeypatch.setattr(modeling_bert.BertSelfAttention, "forward", changed)


def of_method(monkeypatch):
    changed = wrapped(modeling_bert.BertLayer.feed_forward_chunk, torch.sin)
    monkeypatch.setattr(modeling_bert.BertLayer, "feed_forward_chunk", changed)


def of_one_file(monkeypatch):
    monkeypatch.setitem(modeling_bert.ALL_ATTENTION_FUNCTIONS._local_mapping, "eager", relu_attention)


def of_module(monkeypatch):
    monkeypatch.setattr(modeling_bert, "eager_attention_forward", relu_attention)


def of_functional(monkeypatch):
    monkeypatch.setattr(nn.functional, "gelu", wrapped(nn.functional.gelu, torch.sin))


@pytest.mark.parametrize("replace", [of_class, of_registry, of_one_file, of_functional])
def test_a_replaced_function_changes_the_state_and_is_code_of_the_caller(replace, monkeypatch):
    model = sdpa_bert()
    state = model_state(model)
    assert not runs_own_code(model)
    with monkeypatch.context() as patch:
        replace(patch)
        assert model_state(model) != state
        assert runs_own_code(model)
    assert model_state(model) == state
    assert not runs_own_code(model)


@pytest.mark.parametrize("replace", [of_module, of_method])
def test_a_function_that_is_replaced_in_a_module_or_a_class_changes_the_state(replace, monkeypatch):
    model = tiny_bert()
    state = model_state(model)
    replace(monkeypatch)
    assert model_state(model) != state


def test_a_hook_of_all_modules_changes_the_state_and_is_code_of_the_caller():
    model = sdpa_bert()
    state = model_state(model)
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, output: None)
    try:
        assert model_state(model) != state
        assert runs_own_code(model)
    finally:
        handle.remove()
    assert model_state(model) == state


def test_a_function_at_the_address_of_one_that_was_freed_is_another_one(monkeypatch):
    model, original = sdpa_bert(), nn.functional.gelu
    for number in range(20):  # each is freed before the next one is made, often at the same address
        monkeypatch.setattr(nn.functional, "gelu", lambda value, number=number: original(value) * number)
        assert cached(model, "number", lambda number=number: number) == number
        monkeypatch.setattr(nn.functional, "gelu", original)
        cached(model, "further", int)


def test_a_call_leaves_the_state_as_it_was():
    model = sdpa_bert()
    explain(model, INPUTS)
    state = model_state(model)
    seen = []
    explain(model, INPUTS, target=lambda outputs: seen.append(model_state(model)) or outputs["logits"][:, 0])
    assert seen
    assert set(seen) == {state} == {model_state(model)}


SHORT, MIDDLE, LONG = (
    "a film",
    "a quiet and moving film",
    "a film that is quiet and moving and not too long for a child to see",
)


def rotary_classifier(vocabulary, rope_type):
    """A classifier whose positions depend on the length of the batch, beyond 12 tokens."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    rope = {"rope_type": rope_type, "factor": 2.0, "rope_theta": 10000.0}
    limits = {"max_position_embeddings": 12}
    if rope_type == "longrope":
        rope |= {"short_factor": [1.0] * 4, "long_factor": [3.0] * 4, "original_max_position_embeddings": 12}
        limits = {"max_position_embeddings": 24}
    ids = {"vocab_size": vocabulary, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    model = LlamaForSequenceClassification(LlamaConfig(**sizes, **ids, **limits, rope_parameters=rope)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
    return model


def says(model, tokenizer, text):
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return float(copy.deepcopy(model)(input_ids=ids).logits[0].softmax(0)[0])


@pytest.mark.parametrize("rope_type", ["dynamic", "longrope"])
def test_positions_that_depend_on_the_length_of_a_batch_are_those_of_a_text_alone(demo, rope_type):
    tokenizer = demo[1]
    model = rotary_classifier(len(tokenizer), rope_type)
    batch = tokenizer([SHORT, LONG], return_tensors="pt", padding=True)
    assert batch["input_ids"].shape[1] > 12
    options = {"tokenizer": tokenizer, "target": 0, "layers": "none"}
    explain(model, [SHORT, MIDDLE], **options)
    for text, result in zip([SHORT, LONG], explain(model, [SHORT, LONG], **options)):
        assert result.probability == pytest.approx(says(model, tokenizer, text), abs=1e-6)


def test_a_padded_row_is_cut_only_where_that_changes_nothing_at_its_length(demo):
    tokenizer = demo[1]
    model = rotary_classifier(len(tokenizer), "dynamic")
    short, long = (tokenizer(texts, return_tensors="pt", padding=True) for texts in ([SHORT, MIDDLE], [SHORT, LONG]))
    inputs = [{key: batch[key] for key in ("input_ids", "attention_mask")} for batch in (short, long)]
    explain(model, inputs[0], target=0, layers="none", batch_size=1)
    with torch.no_grad():
        expected = float(copy.deepcopy(model)(**inputs[1]).logits[0].softmax(0)[0])
    assert abs(expected - says(model, tokenizer, SHORT)) > 1e-3  # the premise: padding changes the answer
    first, _ = explain(model, inputs[1], target=0, layers="none", batch_size=1)
    assert first.probability == pytest.approx(expected, abs=1e-6)


def test_an_answer_holds_for_the_lengths_between_those_that_were_tried():
    tried, asked = TriedLengths(), []

    def found(shortest, longest, limit=24):  # equal on each side of a length, as with "longrope"
        return tried.answer(
            shortest, longest, lambda: asked.append((shortest, longest)) or (not shortest <= limit < longest) or None
        )

    assert (found(5, 7), found(6, 7), found(5, 6)) == (True, True, True)
    assert asked == [(5, 7)]
    assert (found(6, 20), found(5, 20)) == (True, True)
    assert asked == [(5, 7), (6, 20)]
    assert (found(20, 30), found(5, 40), found(30, 40), found(20, 24)) == (None, None, True, True)
    assert asked[2:] == [(20, 30), (30, 40), (20, 24)]
    assert found(23, 30) is None
    assert len(asked) == 6


def test_a_target_that_a_model_does_not_have_is_forgotten(demo):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    model = BertForMaskedLM(BertConfig(vocab_size=len(demo[1]), pad_token_id=0, **sizes)).eval()
    text, options = f"A {demo[1].mask_token} and quiet film.", {"tokenizer": demo[1]}
    with pytest.raises(HfAttnMiError, match="has no class logits"):
        minimal_tokens(model, text, target=0, **options)
    expected = minimal_tokens(copy.deepcopy(model), text, **options)
    assert minimal_tokens(model, text, **options).indices == expected.indices


def test_weights_of_inference_mode_are_named():
    with torch.inference_mode():
        model = tiny_bert()
    with pytest.raises(UnsupportedModelError, match="weights that were created in torch"):
        explain(model, INPUTS, method="saliency", layers="none")
