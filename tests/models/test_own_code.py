"""Models that run code of the caller: what one call shows about them is not taken for true of the next call."""

import pytest
import torch
from torch import nn

from hf_attn_mi import UnsupportedModelError, compare, explain, minimal_tokens
from hf_attn_mi.capture.model_cache import cached, runs_own_code
from tests.sample_models import load_demo, tiny_bert

FIRST, LATER = ["a warm film", "a good film", "a good cast"], ["a warm film", "a dull film", "a good cast"]


class Around(nn.Module):
    """A BERT classifier whose logits a function of the logits, the ids and the mask changes."""

    def __init__(self, change=lambda logits, ids, mask: logits):
        super().__init__()
        self.inner = tiny_bert()
        self.config, self.change = self.inner.config, change

    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        outputs = self.inner(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        outputs.logits = self.change(outputs.logits, input_ids, attention_mask)
        return outputs


@pytest.fixture(scope="module")
def tokenizer():
    return load_demo()[1]


def mixes_some(tokenizer):
    dull = tokenizer("dull", add_special_tokens=False)["input_ids"][0]
    return lambda logits, ids, mask: logits - logits.mean(0) if (ids == dull).any() else logits


def long_padding(logits, ids, mask):
    """The logits, changed by every token of padding after the third."""
    padding = torch.zeros(1, 1) if mask is None else (1 - mask).sum(1, keepdim=True)
    return logits + (padding - 3).clamp(min=0) * torch.tensor([[0.5, 0.0]])


def check_texts(model, tokenizer, texts):
    """Every text is explained as the model answers it alone, whatever the batch size."""
    for size in (1, 16):
        for text, found in zip(texts, explain(model, texts, tokenizer=tokenizer, batch_size=size, layers="none")):
            own = model(**tokenizer(text, return_tensors="pt")).logits.detach().softmax(1)[0]
            assert found.target == int(own.argmax())
            assert found.probability == pytest.approx(float(own.max()), abs=1e-5)


def test_rows_that_are_mixed_for_some_contents_are_run_one_at_a_time(tokenizer):
    model = Around(mixes_some(tokenizer))
    check_texts(model, tokenizer, FIRST)
    check_texts(model, tokenizer, LATER)


@pytest.mark.parametrize("size", [1, 16])
def test_tensors_whose_rows_are_mixed_in_a_later_call_are_refused(tokenizer, size):
    model = Around(mixes_some(tokenizer))
    explain(model, tokenizer(FIRST, return_tensors="pt"), tokenizer=tokenizer, layers="none")
    with pytest.raises(UnsupportedModelError, match="from the other rows"):
        explain(model, tokenizer(LATER, return_tensors="pt"), tokenizer=tokenizer, layers="none", batch_size=size)


def test_padding_that_matters_only_where_there_is_much_of_it(tokenizer):
    model = Around(long_padding)
    check_texts(model, tokenizer, ["a warm film", "a warm"])
    check_texts(model, tokenizer, ["dull", "one of the worst movies of the whole year"])
    for length in (7, 20):
        row = tokenizer("a warm film", padding="max_length", max_length=length, return_tensors="pt")
        own = model(**row).logits.softmax(1)[0]
        found = explain(model, row, tokenizer=tokenizer, layers="none")
        assert found.probability == pytest.approx(float(own[found.target]), abs=1e-5)


def mix_by_hook(model):
    model.inner.classifier.register_forward_hook(lambda module, args, output: output - output.mean(0))


def mix_by_attribute(model):
    model.change = lambda logits, ids, mask: logits - logits.mean(0)


def mix_by_forward(model):
    forward = model.inner.classifier.forward
    model.inner.classifier.forward = lambda x: forward(x) - forward(x).mean(0)


@pytest.mark.parametrize("change", [mix_by_hook, mix_by_attribute, mix_by_forward])
def test_what_is_added_between_two_calls_is_noticed(change, tokenizer):
    model = Around()
    check_texts(model, tokenizer, FIRST)
    change(model)
    check_texts(model, tokenizer, FIRST)


class Noise(nn.Module):
    def forward(self, states):
        return states + torch.randn_like(states)


@pytest.mark.parametrize("by_hook", [True, False])
def test_noise_that_is_switched_on_between_two_calls_is_named(by_hook, tokenizer):
    model = tiny_bert()
    assert not explain(model, FIRST[0], tokenizer=tokenizer, layers="none").info["warnings"]
    if by_hook:
        model.classifier.register_forward_hook(lambda module, args, output: output + torch.randn_like(output))
    else:
        model.dropout = Noise()
    assert "random" in " ".join(explain(model, FIRST[0], tokenizer=tokenizer, layers="none").info["warnings"])


def test_code_of_the_caller_is_told_from_that_of_libraries():
    model = tiny_bert()
    assert not runs_own_code(model)
    assert not runs_own_code(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    assert runs_own_code(Around())
    handle = model.classifier.register_forward_hook(lambda module, args, output: None)
    assert runs_own_code(model)
    handle.remove()
    assert not runs_own_code(model)
    model.classifier.forward = model.classifier.forward
    assert runs_own_code(model)


def test_a_cached_value_lives_as_long_as_the_modules_and_their_attributes():
    model, calls = Around(), []

    def compute():
        calls.append(1)
        return len(calls)

    assert [cached(model, "count", compute) for _ in range(3)] == [1, 1, 1]
    model.flag = True
    assert [cached(model, "count", compute) for _ in range(2)] == [2, 2]
    model.inner.dropout = nn.Identity()
    assert [cached(model, "count", compute) for _ in range(2)] == [3, 3]
    model.eval()
    assert cached(model, "count", compute) == 3


def test_variants_of_inputs_are_not_mixed(tokenizer):
    model = Around(mixes_some(tokenizer))
    explain(model, FIRST, tokenizer=tokenizer, layers="none")
    for text, found in zip(LATER, minimal_tokens(model, LATER, tokenizer=tokenizer, batch_size=16)):
        with torch.no_grad():
            own = model(**tokenizer(text, return_tensors="pt")).logits.softmax(1)[0]
        assert found.p_all == pytest.approx(float(own.max()), abs=1e-5)
    together, alone = (
        compare(model, LATER, tokenizer=tokenizer, methods=["relevance"], batch_size=size).values for size in (16, 1)
    )
    for metric, values in alone["relevance"].items():
        assert together["relevance"][metric] == pytest.approx(values, abs=1e-4)
