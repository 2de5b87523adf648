"""What one call has learned holds in the next one only while it is true."""

import functools

import pytest
import torch
from torch import nn
from transformers import AttentionInterface
from transformers.models.bert import modeling_bert

from hf_attn_mi import UnsupportedModelError, explain
from hf_attn_mi.capture.model_cache import cached, model_state, runs_own_code
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


def test_a_function_registered_again_is_checked_again_without_layers(monkeypatch):
    model = sdpa_bert()
    explain(model, INPUTS, layers="none")
    monkeypatch.setitem(AttentionInterface._global_mapping, "sdpa", relu_attention)
    with pytest.raises(UnsupportedModelError, match="no softmax over keys"):
        explain(model, INPUTS, layers="none")


def test_a_patched_kernel_is_checked_again_without_layers(monkeypatch):
    model = sdpa_bert()
    explain(model, INPUTS, layers="none")
    doubled = wrapped(nn.functional.scaled_dot_product_attention, lambda output: output * 2)
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", doubled)
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


def of_registry(monkeypatch):
    monkeypatch.setitem(AttentionInterface._global_mapping, "sdpa", relu_attention)


def of_one_file(monkeypatch):
    monkeypatch.setitem(modeling_bert.ALL_ATTENTION_FUNCTIONS._local_mapping, "eager", relu_attention)


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


def test_eager_attention_that_is_replaced_in_its_module_changes_the_state(monkeypatch):
    model = tiny_bert()
    state = model_state(model)
    monkeypatch.setattr(modeling_bert, "eager_attention_forward", relu_attention)
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
