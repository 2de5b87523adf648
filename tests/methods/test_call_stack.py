"""Layers of few tokens are summarized together: the same results, in the same order, and fewer operations."""

import pytest
import torch

from hf_attn_mi import explain
from hf_attn_mi.capture import AttentionCall, capture_attention
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.methods import call_stack, layer_statistics
from hf_attn_mi.methods.layer_statistics import LayerStatistics
from tests.sample_models import TEXTS, tiny_bert, zoo_model


def counted(monkeypatch):
    """The batch sizes of the calls whose statistics are computed."""
    batches, original = [], layer_statistics.attention_statistics

    def count(query, key, value, *rest, **options):
        batches.append(value.shape[0])
        return original(query, key, value, *rest, **options)

    monkeypatch.setattr(layer_statistics, "attention_statistics", count)
    return batches


def fields(layer):
    names = ("rank", "null_space_fraction", "entropy", "received", "received_effective", "support_size")
    return {name: value for name in names if (value := getattr(layer, name)) is not None}


@pytest.mark.parametrize("level", ["full", "summary"])
@pytest.mark.parametrize("name", ["demo", "seqcls-roberta", "seqcls-modernbert", "seqcls-gpt2", "seqcls-llama"])
def test_layers_together_are_layers_one_by_one(name, level, demo, monkeypatch):
    options = {"layers": level}
    if name == "demo":
        (model, tokenizer), inputs = demo, TEXTS  # of different lengths, so that some are padded
        options |= {"tokenizer": tokenizer, "batch_size": 3}
    else:
        model, inputs = zoo_model(name)
    together = list(explain(model, inputs, **options))
    monkeypatch.setattr(call_stack, "FEW", 0)
    apart = list(explain(model, inputs, **options))
    for one, other in zip(together, apart, strict=True):
        assert [(x.layer, x.name, x.n) for x in one.layers] == [(x.layer, x.name, x.n) for x in other.layers]
        assert len(one.layers) > 1
        for layer, alone in zip(one.layers, other.layers):
            torch.testing.assert_close(fields(layer), fields(alone), rtol=1e-5, atol=1e-6)


def test_one_step_serves_all_layers(demo, monkeypatch):
    model, tokenizer = demo
    batches = counted(monkeypatch)
    layers = explain(model, TEXTS[0], tokenizer=tokenizer).layers
    assert batches == [len(layers)]
    batches.clear()
    monkeypatch.setattr(call_stack, "HELD", 0)
    explain(model, TEXTS[0], tokenizer=tokenizer)
    assert batches == [1] * len(layers)


def test_layers_beyond_the_limit_do_not_wait(demo, monkeypatch):
    model, tokenizer = demo
    wanted = explain(model, TEXTS[0], tokenizer=tokenizer)
    with torch.no_grad(), capture_attention(model) as capture:
        model(**tokenizer(TEXTS[0], return_tensors="pt"))
    monkeypatch.setattr(call_stack, "HELD", 2 * call_stack._entries(capture.calls[0]))
    batches = counted(monkeypatch)
    found = explain(model, TEXTS[0], tokenizer=tokenizer)
    assert batches == [2, 1]  # of the three layers
    for layer, alone in zip(found.layers, wanted.layers, strict=True):
        torch.testing.assert_close(fields(layer), fields(alone), rtol=1e-5, atol=1e-6)


def test_what_a_model_changes_in_place_afterwards_does_not_matter():
    x = torch.randn(1, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    rows = torch.softmax(x @ x.mT * 0.5, -1)
    call = AttentionCall(0, 0, "attention", x, x, x, None, 0.5, False, rows @ x, None, None, None)
    statistics = LayerStatistics(lengths=[5], real=torch.ones(1, 5, dtype=torch.bool))
    statistics(call)
    call.value.zero_()
    call.output.zero_()
    torch.testing.assert_close(statistics.layers[0][0].received, rows[0].mean(1))


@pytest.mark.parametrize("change", ["in place", "of its data", "of its memory", "to a mask like it"])
@pytest.mark.parametrize("n", [3, 9])  # fewer and more tokens than a head has dimensions
def test_each_layer_has_the_mask_it_was_called_with(change, n):
    x = torch.randn(1, 2, n, 4, generator=torch.Generator().manual_seed(0))
    distance = -(torch.arange(n)[:, None] - torch.arange(n)).abs().float()
    mask, wanted = torch.zeros(1, 1, n, n), []
    statistics = LayerStatistics(lengths=[n], real=torch.ones(1, n, dtype=torch.bool))
    for layer in range(3):
        if change == "in place":
            mask.add_(distance)
        elif change == "of its data":  # neither this nor the next one raises the version counter
            mask.data.add_(distance)
        elif change == "of its memory":
            mask.numpy()[...] += distance.numpy()
        else:
            mask = mask.clone()
        rows = torch.softmax(x @ x.mT * 0.5 + mask, -1)
        wanted.append(rows[0].mean(1))
        statistics(
            AttentionCall(layer, layer, f"layers.{layer}", x, x, x, mask, 0.5, False, rows @ x, None, None, None)
        )
    assert len(statistics.waiting.groups) == (1 if change == "to a mask like it" else 3)
    for layer, received in zip(statistics.layers[0], wanted, strict=True):
        torch.testing.assert_close(layer.received, received)


def test_an_error_names_the_module_of_its_layer(demo):
    model = tiny_bert(num_hidden_layers=3, pad_token_id=0)
    with torch.no_grad():
        model.bert.encoder.layer[1].attention.self.value.bias.fill_(3e38)
        model.bert.encoder.layer[1].attention.self.value.weight.fill_(3e38)
    with pytest.raises(InvalidInputError, match=r"layer\.1\.attention\.self computed NaN"):
        explain(model, TEXTS[0], tokenizer=demo[1], method="attention", target=0)
