"""Captures inside captures, modules that stand in several places, and heads that no rule follows."""

import copy

import pytest
import torch
from torch import nn

from hf_attn_mi import UnsupportedModelError, certify, explain
from hf_attn_mi.capture import capture_attention
from tests.sample_models import TEXTS, distance, tiny_bert


@pytest.fixture(scope="module")
def tiny(demo):
    return tiny_bert(num_hidden_layers=2, pad_token_id=0), demo[1]


def test_captures_may_be_nested_around_a_forward_pass(tiny):
    model, tokenizer = tiny
    wanted = explain(model, TEXTS[0], tokenizer=tokenizer)
    with capture_attention(model) as outer:
        found = explain(model, TEXTS[0], tokenizer=tokenizer)
        with torch.no_grad(), capture_attention(model) as inner:
            model(**tokenizer(TEXTS[0], return_tensors="pt"))
    assert torch.equal(found.scores, wanted.scores)
    assert [len(outer.calls) % 2, len(inner.calls)] == [0, 2]


@pytest.mark.parametrize("what", ["explain", "another model", "forward", "replace"])
def test_a_model_is_not_run_in_the_middle_of_a_pass_and_the_reason_is_true(tiny, what):
    model, tokenizer = tiny
    inputs = dict(tokenizer(TEXTS[0], return_tensors="pt"))
    other = copy.deepcopy(model) if what == "another model" else model

    def run(call):
        if what == "forward":
            model(**inputs)
        else:
            explain(other, TEXTS[1], tokenizer=tokenizer)

    hooks = {"replace": run} if what == "replace" else {"consumer": run}
    with (
        pytest.raises(UnsupportedModelError, match="in the middle of a forward pass"),
        torch.no_grad(),
        capture_attention(model, **hooks),
    ):
        model(**inputs)
    assert explain(model, TEXTS[0], tokenizer=tokenizer).completeness_gap < 1e-5
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def shared(kind):
    """A model of three layers: "layer" has its second layer twice, "attention" one attention in every layer."""
    model = tiny_bert(num_hidden_layers=3, pad_token_id=0)
    layers = model.bert.encoder.layer
    if kind == "layer":
        layers[2] = layers[1]
    else:
        layers[1].attention.self = layers[2].attention.self = layers[0].attention.self
    return model


@pytest.mark.parametrize("kind", ["layer", "attention"])
def test_a_module_that_stands_in_several_places_counts_in_each(demo, kind):
    model, tokenizer = shared(kind), demo[1]
    apart = copy.deepcopy(model)  # with a copy in each place
    for i in range(3):
        apart.bert.encoder.layer[i] = copy.deepcopy(model.bert.encoder.layer[i])
    for method in ("relevance", "attention", "rollout", "value_norms"):
        found = explain(model, TEXTS[0], tokenizer=tokenizer, method=method)
        wanted = explain(apart, TEXTS[0], tokenizer=tokenizer, method=method)
        assert distance(found.scores, wanted.scores) < 1e-5, method
        assert [layer.layer for layer in found.layers] == [0, 1, 2]
        for one, other in zip(found.layers, wanted.layers):
            torch.testing.assert_close(one.received, other.received)
    assert (
        certify(model, TEXTS[2], tokenizer=tokenizer).outcome == certify(apart, TEXTS[2], tokenizer=tokenizer).outcome
    )


@pytest.mark.parametrize(("kind", "name"), [(nn.LSTM, "lstm"), (nn.GRU, "gru"), (nn.RNN, "rnn_tanh")])
def test_the_operation_that_no_rule_follows_is_named(tiny, kind, name):
    model, tokenizer = tiny

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.bert, self.config = model.bert, model.config
            self.rnn, self.out = kind(32, 8, batch_first=True, bidirectional=True), nn.Linear(16, 2)

        def forward(self, input_ids, attention_mask=None):
            states = self.bert(input_ids, attention_mask=attention_mask).last_hidden_state
            return {"logits": self.out(self.rnn(states)[0].mean(1))}

    found = explain(Recurrent().eval(), TEXTS[0], tokenizer=tokenizer, layers="none")
    assert found.completeness_gap > 0.02
    assert any(f"part of this model ({name}) is not followed exactly" in note for note in found.info["warnings"])
