"""Walks over the modules of a model: what they find, how often they run, and what is kept of them."""

import gc
import weakref

import pytest
import torch
from torch import nn

from hf_attn_mi import explain
from hf_attn_mi.capture.model_state import eager_stance
from hf_attn_mi.capture.module_names import ModuleNames
from hf_attn_mi.capture.module_walk import modules_of, plain_attribute
from hf_attn_mi.models.runner import EncoderRunner
from tests.sample_models import load_demo, tiny_bert


def test_every_module_is_found_once_in_the_order_of_pytorch():
    shared = nn.Linear(2, 2)
    model = nn.Sequential(nn.Sequential(shared, nn.ReLU()), shared, nn.ModuleDict({"a": nn.Sequential(shared)}))
    model.register_module("empty", None)
    for one in (model, tiny_bert(num_hidden_layers=3)):
        assert modules_of(one) == list(one.modules())


def test_plain_attributes_of_instance_class_and_property_are_found():
    class Part(nn.Module):
        of_class = 3

        @property
        def computed(self):
            return 4

    part = Part()
    part.config, part.weight = 5, nn.Parameter(torch.ones(1))
    found = [plain_attribute(part, name) for name in ("of_class", "computed", "config", "weight", "absent")]
    assert found == [3, 4, 5, None, None]


def test_the_modules_of_a_model_are_not_walked_for_each_input(demo, monkeypatch):
    model, tokenizer = demo
    texts = [f"word {i} of a text" for i in range(40)]  # one length: their batches do not depend on their number
    walks = []
    original = nn.Module.named_modules
    monkeypatch.setattr(nn.Module, "named_modules", lambda *args, **more: walks.append(1) or original(*args, **more))

    def walked(count):
        walks.clear()
        explain(model, texts[:count], tokenizer=tokenizer, layers="none", batch_size=count)
        return len(walks)

    walked(2)
    assert walked(4) == walked(40)


def test_names_follow_modules_that_change_places(fresh):
    model, _ = fresh
    layers = model.bert.encoder.layer
    first, second = layers[0], layers[1]
    assert ModuleNames(model).names[id(first)] == "bert.encoder.layer.0"
    layers._modules["0"], layers._modules["1"] = second, first
    assert ModuleNames(model).names[id(first)] == "bert.encoder.layer.1"
    model.bert._modules["tower"] = model.bert._modules.pop("encoder")  # the same modules, another name
    assert ModuleNames(model).names[id(first)] == "bert.tower.layer.1"


def test_a_model_whose_names_are_known_is_freed():
    model, _ = load_demo()
    ModuleNames(model)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("way", ["module", "call", "forward", "class"])
def test_compiled_code_is_recognized(way, monkeypatch):
    class Part(nn.Linear):
        pass

    model = nn.Sequential(Part(2, 2))
    if way == "module":
        model = nn.Sequential(torch.compile(model))
    elif way == "call":
        model[0].compile()
    elif way == "forward":
        model[0].forward = torch.compile(model[0].forward)
    else:
        Part.forward = torch.compile(Part.forward)
    stances = []
    monkeypatch.setattr(torch.compiler, "set_stance", lambda stance: stances.append(stance) or torch.no_grad())
    with eager_stance(model):
        pass
    assert stances == ["force_eager"]


def test_the_device_is_read_without_an_error_for_each_module(demo, monkeypatch):
    misses = []
    original = nn.Module.__getattr__
    monkeypatch.setattr(nn.Module, "__getattr__", lambda self, name: misses.append(name) or original(self, name))
    runner = EncoderRunner(demo[0])
    misses.clear()
    assert runner.device.type == "cpu"
    assert "_hf_hook" not in misses
