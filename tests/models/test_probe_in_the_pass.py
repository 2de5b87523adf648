"""A model of a library is probed in the pass that the first call runs anyway; what that pass leaves open is tested."""

import random
from functools import wraps

import numpy as np
import pytest
import torch
from transformers.models.bert import modeling_bert

from hf_attn_mi import explain
from hf_attn_mi.models import input_pass, model_probe
from hf_attn_mi.models.runner import EncoderRunner
from tests.models.test_random_models import notes
from tests.models.test_two_passes import Siamese, pair
from tests.sample_models import TEXTS, distance

PRIVATE = torch.Generator()
NOISE = {
    "torch": lambda x: x + 0.1 * torch.rand_like(x),
    "a generator of its own": lambda x: x + 0.1 * torch.rand(x.shape, generator=PRIVATE),
    "numpy": lambda x: x + 0.1 * float(np.random.rand()),
    "Python": lambda x: x + 0.1 * random.random(),
}


@pytest.fixture
def passes(monkeypatch):
    """The arguments of every pass; a hook that counted them would be code of the caller."""
    calls, forward = [], EncoderRunner.forward

    def counted(self, arguments):
        calls.append(arguments)
        return forward(self, arguments)

    monkeypatch.setattr(EncoderRunner, "forward", counted)
    return calls


@pytest.mark.parametrize("layers", ["full", "none"])
def test_the_first_call_runs_one_pass_and_gives_what_a_probe_of_its_own_gives(fresh, passes, monkeypatch, layers):
    model, tokenizer = fresh
    first = explain(model, TEXTS[0], tokenizer=tokenizer, layers=layers)
    assert len(passes) == 1
    inside = dict(model_probe.probe(EncoderRunner.of(model), passes[0]).__dict__)
    assert len(passes) == 1
    explain(model, TEXTS[1], tokenizer=tokenizer, layers=layers)
    assert len(passes) == 2
    with torch.no_grad():
        model.classifier.bias.add_(0.0)  # the model counts as changed
    monkeypatch.setattr(input_pass, "can_probe_during", lambda *_: False)
    monkeypatch.setattr(model_probe, "can_probe_during", lambda *_: False)
    again = explain(model, TEXTS[0], tokenizer=tokenizer, layers=layers)
    assert len(passes) == 4  # the probe, and the pass
    assert inside == model_probe.probe(EncoderRunner.of(model), passes[0]).__dict__
    assert inside["looks_up"]
    assert inside["table"] == "bert.embeddings.word_embeddings"
    assert torch.equal(first.scores, again.scores)
    for one, other in zip(first.layers, again.layers, strict=True):
        assert torch.equal(one.received, other.received)


@pytest.mark.parametrize("source", NOISE)
@pytest.mark.parametrize("layers", ["full", "none"])
def test_noise_in_a_function_of_the_library_is_found_by_a_second_pass(fresh, passes, monkeypatch, source, layers):
    model, tokenizer = fresh
    original = modeling_bert.apply_chunking_to_forward
    monkeypatch.setattr(modeling_bert, "apply_chunking_to_forward", lambda *args: NOISE[source](original(*args)))
    assert not model_probe.runs_own_code(model)
    assert len(notes(explain(model, TEXTS[0], tokenizer=tokenizer, layers=layers))) == 1
    assert len(passes) == 3


def test_a_function_of_the_caller_in_a_module_is_tried_twice(fresh, passes):
    """Its numbers may come from anywhere."""
    model, tokenizer = fresh
    generator, layer = np.random.default_rng(0), model.bert.encoder.layer[0]
    original = layer.feed_forward_chunk
    layer.feed_forward_chunk = lambda x: original(x) * (1 + 0.1 * generator.random())
    assert len(notes(explain(model, TEXTS[0], tokenizer=tokenizer))) == 1
    assert len(passes) == 3


class Growing:
    """Scales what a function returns, more in each call: no generator of random numbers shows it."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        return self.function(*args, **kwargs) * (1 + 0.01 * self.calls)


@pytest.mark.parametrize("place", ["module", "class", "wrapped", "torch", "all modules"])
def test_a_function_of_the_caller_in_the_place_of_one_of_a_library_is_tried_twice(fresh, passes, monkeypatch, place):
    """Its numbers may come from anywhere, though no class and no forward of the model is the caller's."""
    model, tokenizer = fresh
    holder, name = {
        "class": (modeling_bert.BertLayer, "feed_forward_chunk"),
        "torch": (torch.nn.functional, "layer_norm"),
    }.get(place, (modeling_bert, "apply_chunking_to_forward"))
    growing = Growing(getattr(holder, name))

    def function(*args, **kwargs):
        return growing(*args, **kwargs)

    if place == "all modules":
        growing = Growing(lambda module, args, output: output)
        layer = model.bert.encoder.layer[0].output.dense
        hook = torch.nn.modules.module.register_module_forward_hook(
            lambda module, args, output: growing(module, args, output) if module is layer else None
        )
    else:
        method = lambda self, states: growing(self, states)  # noqa: E731 - transformers counts its arguments
        wrapped = wraps(growing.function)(function)
        monkeypatch.setattr(holder, name, {"class": method, "wrapped": wrapped}.get(place, function))
    try:
        assert model_probe.runs_own_code(model) == (place in ("torch", "all modules"))
        assert len(notes(explain(model, TEXTS[0], tokenizer=tokenizer))) == 1
    finally:
        if place == "all modules":
            hook.remove()
    assert len(passes) == 3


class NamesItsTable(Siamese):
    """Its table need not be found by a pass."""

    def get_input_embeddings(self):
        return self.bert.get_input_embeddings()


@pytest.mark.parametrize("order", ["AB", "BA"])
def test_a_stack_that_is_called_again_is_found_in_the_pass_and_the_pass_is_run_anew(demo, monkeypatch, passes, order):
    _, tokenizer = demo
    inputs = pair(tokenizer, TEXTS[0], "A quickly losing team.")
    wanted = explain(NamesItsTable([0.5, 0.5], order).eval(), inputs, target=1, tokenizer=tokenizer)
    monkeypatch.setattr(input_pass, "can_probe_during", lambda runner, given: not model_probe.is_probed(runner, given))
    monkeypatch.setattr(model_probe, "can_probe_during", input_pass.can_probe_during)
    passes.clear()
    found = explain(NamesItsTable([0.5, 0.5], order).eval(), inputs, target=1, tokenizer=tokenizer)
    assert len(passes) == 4  # the one that was stopped, two of the probe, the one that is read
    assert distance(found.scores, wanted.scores) < 1e-6
    assert [layer.name for layer in found.layers] == [layer.name for layer in wanted.layers]
    for one, other in zip(found.layers, wanted.layers, strict=True):
        torch.testing.assert_close(one.received, other.received)
