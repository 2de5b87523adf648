"""What is read of a model is read once for a call, and again once it may have changed."""

import torch
from torch import nn

from hf_attn_mi import explain
from hf_attn_mi.capture import model_cache, reading_once
from hf_attn_mi.capture.model_reading import read_once
from hf_attn_mi.capture.module_walk import modules_of
from tests.sample_models import tiny_bert

INPUTS = {"input_ids": torch.tensor([[1, 5, 6, 2]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}


def test_explain_reads_the_state_once_and_again_after_the_pass(monkeypatch):
    model, reads = tiny_bert(), []
    explain(model, INPUTS)
    original = model_cache._read_state
    monkeypatch.setattr(model_cache, "_read_state", lambda model: reads.append(1) or original(model))
    explain(model, INPUTS)
    assert len(reads) == 1


def test_a_model_that_a_target_function_may_have_changed_is_read_again(monkeypatch):
    model, events = tiny_bert(), []
    original = model_cache._read_state
    monkeypatch.setattr(model_cache, "_read_state", lambda model: events.append("read") or original(model))

    def target(outputs):
        model_cache.model_state(model)
        events.append("target")  # from here on the model may be another one
        return outputs.logits[:, 1]

    explain(model, {key: value.repeat(2, 1) for key, value in INPUTS.items()}, target=target, layers="none")
    first = events.index("target")
    assert events[first + 1 :].index("read") < events[first + 1 :].index("target") - 1  # before the pass, and after it


def test_readings_end_with_their_scope():
    model = nn.Sequential(nn.Linear(2, 2))
    with reading_once():
        assert len(modules_of(model)) == 2
        model.append(nn.ReLU())
        assert len(modules_of(model)) == 2  # the premise: inside nothing is read again
        with reading_once():
            assert len(modules_of(model)) == 3
        assert len(modules_of(model)) == 3
    assert read_once(model, "modules", lambda model: []) == []
