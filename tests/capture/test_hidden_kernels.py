"""Attention kernels that cannot be traced: explain switches to SDPA inside and back, and the result says so."""

import copy
import threading

import pytest
import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from hf_attn_mi import UnsupportedModelError, certify, explain, minimal_attention, minimal_tokens
from tests.sample_models import tiny_bert

INPUTS = {"input_ids": torch.tensor([[1, 5, 6, 7, 2]]), "attention_mask": torch.ones(1, 5, dtype=torch.long)}
NAMES = ["flash_attention_2", "flash_attention_3", "flex_attention", "kernels-community/stand-in"]


@pytest.fixture
def calls(monkeypatch):
    """The calls of a stand-in for each kernel, registered with transformers: SDPA that a tracer cannot see into."""
    seen = []

    def stand_in(*args, **kwargs):
        seen.append(1)
        with torch._C.DisableTorchFunction():
            return sdpa_attention_forward(*args, **kwargs)

    for name in NAMES:
        monkeypatch.setitem(AttentionInterface._global_mapping, name, stand_in)
        monkeypatch.setitem(AttentionMaskInterface._global_mapping, name, sdpa_mask)
    return seen


def with_kernel(name):
    model = tiny_bert()
    model.config._attn_implementation_internal = name
    return model


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_sdpa_and_the_result_names_the_switch(name, calls):
    plain, model = explain(tiny_bert(), INPUTS), with_kernel(name)
    found = explain(model, INPUTS)
    layers = model.config.num_hidden_layers
    assert len(calls) == layers  # one pass, which is compared with that of SDPA
    for method in ("relevance", "saliency", "feature_ablation"):
        explain(model, INPUTS, method=method)
    assert len(calls) == layers  # every pass of a result runs SDPA, whatever the method
    calls.clear()
    assert torch.equal(found.scores, plain.scores)
    assert found.info["attention_implementation"] == name
    assert found.info["attention_switched_to"] == "sdpa"
    assert "attention_switched_to" not in plain.info
    assert model.config._attn_implementation == name
    with torch.no_grad():
        model(**INPUTS)
    assert len(calls) == model.config.num_hidden_layers  # the premise: the model's own passes use it


def sharper(module, query, *args, **kwargs):
    return sdpa_attention_forward(module, 3 * query, *args, **kwargs)


@pytest.mark.parametrize("task", [explain, minimal_attention, minimal_tokens, certify])
def test_another_attention_than_the_one_in_its_place_is_refused(task, demo, monkeypatch):
    model, tokenizer = copy.deepcopy(demo[0]), demo[1]
    monkeypatch.setitem(AttentionInterface._global_mapping, "sharper", sharper)
    monkeypatch.setitem(AttentionMaskInterface._global_mapping, "sharper", sdpa_mask)
    model.set_attn_implementation("sharper")
    for _ in range(2):
        with pytest.raises(UnsupportedModelError, match=r"'sharper'.* says something else with SDPA"):
            task(model, "A warm and quiet film.", tokenizer=tokenizer)
    assert model.config._attn_implementation == "sharper"
    monkeypatch.setitem(AttentionInterface._global_mapping, "sharper", sdpa_attention_forward)
    task(model, "A warm and quiet film.", tokenizer=tokenizer)  # the function of that name is another one now


@pytest.mark.parametrize("shared", [False, True])
def test_threads_that_share_a_configuration_take_turns(shared, calls):
    models = [with_kernel(NAMES[0]) for _ in range(2)]
    if shared:
        for module in models[1].modules():
            if hasattr(module, "config"):
                module.config = models[0].config
    plain = {method: explain(tiny_bert(), INPUTS, method=method) for method in ("relevance", "feature_ablation")}
    found = []

    def work(model):
        for _ in range(8):
            for method, expected in plain.items():
                one = explain(model, INPUTS, method=method, layers="none")
                names = one.info["attention_implementation"], one.info.get("attention_switched_to")
                found.append((names, torch.allclose(one.scores, expected.scores, atol=1e-6)))

    threads = [threading.Thread(target=work, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [((NAMES[0], "sdpa"), True)] * 32
    assert models[0].config._attn_implementation == NAMES[0]


def test_the_kernel_is_back_after_an_error(calls):
    model = with_kernel(NAMES[0])

    def target(outputs):
        raise KeyError("of the caller")

    with pytest.raises(Exception, match="of the caller"):
        explain(model, INPUTS, target=target)
    assert model.config._attn_implementation == NAMES[0]
    assert len(calls) == model.config.num_hidden_layers  # the one pass that is compared with that of SDPA
