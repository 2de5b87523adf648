"""A pass of a call that was followed is not followed again, and gives the same records."""

import pytest
import torch

from hf_attn_mi import capture_attention, explain
from hf_attn_mi.capture import followed_pass
from hf_attn_mi.capture.model_cache import runs_own_code
from hf_attn_mi.capture.tracer import AttentionTracer
from tests.sample_models import tiny_bert

INPUTS = {"input_ids": torch.tensor([[1, 5, 6, 2]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
FIELDS = ("query", "key", "value", "output")


@pytest.fixture
def followed(monkeypatch):
    """The names of the modules whose product was followed to W_O, in order."""
    names = []
    original = followed_pass.PassFollower.keep

    def keep(follower, record, projection):
        names.append(record.module_name)
        original(follower, record, projection)

    monkeypatch.setattr(followed_pass.PassFollower, "keep", keep)
    return names


def calls_of(model, inputs=INPUTS):
    with torch.no_grad(), capture_attention(model) as capture:
        model(**inputs)
    return capture.calls


def same(first, second):
    assert [call.module_name for call in first] == [call.module_name for call in second]
    assert [(call.index, call.layer) for call in first] == [(call.index, call.layer) for call in second]
    for one, other in zip(first, second):
        assert all(torch.equal(getattr(one, field), getattr(other, field)) for field in FIELDS)
        assert torch.equal(one.projection.per_head(), other.projection.per_head())
        assert torch.equal(one.projection.bias, other.projection.bias)


def test_the_second_pass_is_not_followed_and_gives_the_same_records(followed):
    model = tiny_bert()
    first = calls_of(model)
    count = len(followed)
    assert count == len(first) == model.config.num_hidden_layers
    same(first, calls_of(model))
    assert len(followed) == count


def test_arguments_of_another_shape_are_followed(followed):
    model = tiny_bert()
    count = len(calls_of(model))
    calls_of(model, {key: value[:, :3] for key, value in INPUTS.items()})
    assert len(followed) == 2 * count


def test_a_new_weight_is_followed_and_seen_in_the_record(followed):
    model = tiny_bert()
    layer = model.bert.encoder.layer[0].attention.output.dense
    calls_of(model)
    count = len(followed)
    layer.weight = torch.nn.Parameter(2 * layer.weight.detach())
    calls = calls_of(model)
    assert len(followed) == 2 * count
    assert torch.equal(calls[0].projection.weight.t(), layer.weight)


def test_a_model_with_a_hook_of_the_caller_is_followed_every_time(followed):
    model = tiny_bert()
    with torch.no_grad():
        model.bert.encoder.layer[0].register_forward_hook(lambda module, args, output: None)
        count = len(calls_of(model))
        calls_of(model)
    assert len(followed) == 2 * count


def test_eager_attention_is_followed_every_time_also_after_sdpa(monkeypatch):
    model, softmaxes = tiny_bert(), []
    original = AttentionTracer._softmax
    monkeypatch.setattr(
        AttentionTracer, "_softmax", lambda *args: softmaxes.append(args[0].follower.repeated) or original(*args)
    )
    sdpa = calls_of(model)
    model.set_attn_implementation("eager")
    for _ in range(2):
        eager = calls_of(model)
        assert all(torch.allclose(a.output, b.output, atol=1e-6) for a, b in zip(sdpa, eager, strict=True))
    assert softmaxes == [None] * (2 * len(sdpa))


def test_a_pass_that_differs_after_all_is_followed_from_there_on():
    model = tiny_bert()
    sdpa = calls_of(model)
    known = followed_pass.FollowedPasses.of(model)
    (key,) = known.passes
    wrong = known.passes[key].calls[0]
    known.passes[key] = followed_pass.FollowedPass((wrong, wrong))  # names a module that makes no second call
    same(sdpa, calls_of(model))
    assert key not in known.passes


def test_without_statistics_a_second_explanation_traces_nothing(monkeypatch):
    model, passes = tiny_bert(), []
    original = AttentionTracer.start_pass
    monkeypatch.setattr(AttentionTracer, "start_pass", lambda *args: passes.append(1) or original(*args))
    first = explain(model, INPUTS, layers="none")
    assert passes
    passes.clear()
    second = explain(model, INPUTS, layers="none")
    assert not passes
    assert torch.equal(first.scores, second.scores)
    assert first.info["warnings"] == second.info["warnings"]


def test_hooks_by_which_transformers_records_outputs_are_no_code_of_the_caller():
    model = tiny_bert()
    model(**INPUTS, output_hidden_states=True)
    assert any(module._forward_hooks for module in model.modules())
    assert not runs_own_code(model)
