"""Attention kernels that cannot be traced: explain switches to SDPA inside and back, and the result says so."""

import pytest
import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from hf_attn_mi import explain
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
    assert calls == []
    assert torch.equal(found.scores, plain.scores)
    assert found.info["attention_implementation"] == name
    assert found.info["attention_switched_to"] == "sdpa"
    assert "attention_switched_to" not in plain.info
    assert model.config._attn_implementation == name
    with torch.no_grad():
        model(**INPUTS)
    assert len(calls) == model.config.num_hidden_layers  # the premise: the model's own passes use it


def test_the_kernel_is_back_after_an_error(calls):
    model = with_kernel(NAMES[0])

    def target(outputs):
        raise KeyError("of the caller")

    with pytest.raises(Exception, match="of the caller"):
        explain(model, INPUTS, target=target)
    assert model.config._attn_implementation == NAMES[0]
    assert calls == []
