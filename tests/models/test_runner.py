"""`EncoderRunner`: what it unwraps, restores and keeps."""

import pytest
import torch
from accelerate import Accelerator, cpu_offload
from transformers import pipeline

from hf_attn_mi import InvalidInputError, explain
from hf_attn_mi.capture.model_cache import cached
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.weights import fingerprint
from tests.sample_models import TEXTS, distance, load_demo, state_of


def test_wrappers_and_pipelines_come_to_the_same_model(demo):
    model, tokenizer = demo
    assert EncoderRunner.of(model).model is model
    assert EncoderRunner.of(torch.nn.DataParallel(model)).model is model
    assert EncoderRunner.of(torch.compile(model)).model is model
    piped = EncoderRunner.of(pipeline("text-classification", model=model, tokenizer=tokenizer))
    assert (piped.model, piped.tokenizer) == (model, tokenizer)
    with pytest.raises(InvalidInputError, match="loaded model, not the name"):
        EncoderRunner.of("bert-base-uncased")


def test_a_model_prepared_by_accelerate_is_explained_alike(fresh):
    model, tokenizer = fresh
    wanted = explain(model, TEXTS[0], tokenizer=tokenizer)
    prepared = Accelerator(cpu=True).prepare(model)
    assert distance(explain(prepared, TEXTS[0], tokenizer=tokenizer).scores, wanted.scores) <= 1e-6


def test_an_offloaded_model_runs_on_the_device_of_its_hooks(fresh):
    model, tokenizer = fresh
    wanted = model(**tokenizer(TEXTS[0], return_tensors="pt")).logits.detach()
    cpu_offload(model, execution_device=torch.device("cpu"))
    runner = EncoderRunner.of(model, tokenizer)
    assert runner.device == torch.device("cpu")
    inputs, _ = runner.encode([TEXTS[0]])
    with runner.session(), torch.no_grad():
        outputs = runner.forward(runner.collate(inputs))
    assert distance(outputs.logits, wanted) <= 1e-6


def test_a_session_restores_the_model_also_after_an_error(fresh):
    model, _ = fresh
    model.train()
    model.bert.eval()
    before = state_of(model)
    session, inside = EncoderRunner(model).session(), []

    def fail():
        with session:
            inside.append(any(module.training for module in model.modules()))
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert inside == [False]
    assert state_of(model) == before


def test_a_session_leaves_the_mode_of_gradients_alone(demo):
    runner = EncoderRunner(demo[0])
    with torch.no_grad(), runner.session():
        assert not torch.is_grad_enabled()
    with torch.inference_mode(), runner.session():
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()


def test_cached_values_are_computed_again_once_a_weight_has_changed(fresh):
    model, _ = fresh
    calls = []

    def compute():
        calls.append(0)
        return len(calls)

    assert [cached(model, "calls", compute) for _ in range(2)] == [1, 1]
    with torch.no_grad():
        model.classifier.weight.add_(1)
    assert cached(model, "calls", compute) == 2
    model.classifier.bias = torch.nn.Parameter(model.classifier.bias.detach().clone())
    assert cached(model, "calls", compute) == 3


@pytest.mark.parametrize("change", [lambda w: w.mul_(-1), lambda w: w.add_(0.25), lambda w: w.copy_(w.flip(0))])
def test_a_fingerprint_notices_what_is_written_through_data(change):
    model, _ = load_demo()
    before = fingerprint(model)
    assert fingerprint(model) == before
    change(model.classifier.weight.data)
    assert fingerprint(model)["weights"] != before["weights"]
    assert fingerprint(model)["config"] == before["config"]
