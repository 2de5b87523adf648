"""Hidden states in a stream: the model's own, one after the other, and the model none the wiser."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor

from hf_attn_mi.capture import LayerStates, capture_attention
from tests.zoo import Built, Job, build

# Which list of the model's own outputs each stack has to equal.
FAMILIES = {
    "bert": ("seqcls", {"bert": "hidden_states"}),
    "albert": ("seqcls", {"albert": "hidden_states"}),  # one layer, called twice
    "modernbert": ("seqcls", {"model": "hidden_states"}),  # ends with a normalization
    "llama": ("seqcls", {"model": "hidden_states"}),
    "vit": ("imgcls", {"vit": "hidden_states"}),
    "swin": ("imgcls", {"swin.encoder": "hidden_states"}),  # one state for each stage
    "wav2vec2": ("audcls", {"wav2vec2.encoder": "hidden_states"}),
    "xlnet": ("seqcls", {"": "hidden_states"}),  # tokens first inside, batch first outside
    "segformer": ("imgcls", {"": "hidden_states"}),  # feature maps, which no layer returns
}
HALVES = {"t5", "bart", "whisper"}  # the encoder of an encoder-decoder: the stack is the model itself


def tiny(model_type: str, auto: str) -> Built:
    return build(Job(auto, model_type, "encoder"))


def streamed(built: Built) -> dict[str, list[Tensor]]:
    with torch.no_grad(), capture_attention(built.model, lambda call: None, states=True) as capture:
        built.model(**built.inputs)
    stacks: dict[str, list[Tensor]] = {}
    for record in capture.states:
        assert record.index == len(stacks.setdefault(record.stack, []))
        stacks[record.stack].append(record.states)
    return stacks


def assert_equal(found: list[Tensor], own: tuple[Tensor, ...]) -> None:
    assert [tuple(states.shape) for states in found] == [tuple(states.shape) for states in own]
    assert all(map(torch.equal, found, own))


@pytest.mark.parametrize("model_type", FAMILIES)
def test_states_are_the_models_own(model_type: str) -> None:
    auto, stacks = FAMILIES[model_type]
    built = tiny(model_type, auto)
    found = streamed(built)
    with torch.no_grad():
        own = built.model(**built.inputs, output_hidden_states=True)
    assert set(found) == set(stacks)
    for stack, name in stacks.items():
        assert_equal(found[stack], own[name])


@pytest.mark.parametrize("model_type", sorted(HALVES))
def test_states_of_an_encoder_alone(model_type: str) -> None:
    built = tiny(model_type, "enc")
    found = streamed(built)
    with torch.no_grad():
        own = built.model(**built.inputs, output_hidden_states=True).hidden_states
    assert_equal(found[""], own)


def test_encoder_and_decoder_are_two_stacks() -> None:
    built = tiny("t5", "seqcls")
    found = streamed(built)
    with torch.no_grad():
        own = built.model(**built.inputs, output_hidden_states=True)
    assert_equal(found["transformer.encoder"], own.encoder_hidden_states)
    assert_equal(found["transformer.decoder"], own.decoder_hidden_states)


@pytest.mark.parametrize(("model_type", "auto"), [("bert", "seqcls"), ("t5", "enc")])
def test_no_more_than_two_states_are_alive(model_type: str, auto: str) -> None:
    built, earlier, alive = tiny(model_type, auto), [], []

    def consume(record: LayerStates) -> None:
        gc.collect()
        alive.append(sum(reference() is not None for reference in earlier) + 1)
        earlier.append(weakref.ref(record.states))

    with torch.no_grad():
        with capture_attention(built.model, lambda call: None, states=consume):  # the first use compares whole lists
            built.model(**built.inputs)
        earlier.clear()
        alive.clear()
        with capture_attention(built.model, lambda call: None, states=consume):
            built.model(**built.inputs)
    assert len(alive) == 3
    assert max(alive) <= 2


def test_every_pass_starts_at_zero() -> None:
    built = tiny("bert", "seqcls")
    with torch.no_grad(), capture_attention(built.model, states=True) as capture:
        built.model(**built.inputs)
        built.model(**built.inputs)
    assert [record.index for record in capture.states] == [0, 1, 2] * 2
    assert_equal([r.states for r in capture.states[:3]], tuple(r.states for r in capture.states[3:]))


def test_a_failed_pass_leaves_nothing_behind() -> None:
    built = tiny("bert", "seqcls")
    expected = streamed(built)["bert"]

    def fail(record: LayerStates) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), torch.no_grad(), capture_attention(built.model, states=fail):
        built.model(**built.inputs)
    assert_equal(streamed(built)["bert"], tuple(expected))


def test_training_is_not_disturbed() -> None:
    """The comparison on first use runs the model once more: it must draw no numbers and update no statistics."""
    plain, watched = (tiny("levit", "imgcls") for _ in range(2))
    for model in (plain.model, watched.model):
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.momentum = 0.5
        model.train()
    torch.manual_seed(1)
    expected = plain.model(**plain.inputs).logits
    torch.manual_seed(1)
    with capture_attention(watched.model, lambda call: None, states=True):
        logits = watched.model(**watched.inputs).logits
    assert torch.equal(logits, expected)
    assert all(module.training for module in watched.model.modules())
    for name, buffer in plain.model.named_buffers():
        assert torch.equal(buffer, watched.model.get_buffer(name)), name


@pytest.mark.parametrize("training", [True, False])
def test_random_numbers_are_the_same(training: bool) -> None:
    built = tiny("bert", "seqcls")
    model = built.model.train(training)
    model.bert.embeddings.register_forward_pre_hook(lambda module, args: None if torch.rand(1) < 2 else ())

    def run() -> tuple[Tensor, Tensor]:
        torch.manual_seed(1)
        return model(**built.inputs).logits, torch.get_rng_state()

    logits, state = run()
    with capture_attention(model, lambda call: None, states=True):
        watched, after = run()
    assert torch.equal(watched, logits)
    assert torch.equal(after, state)


@pytest.mark.parametrize("model_type", ["bert", "xlnet"])  # streamed by hooks; taken from the model's own list
def test_no_hook_stays_and_the_output_is_the_one_asked_for(model_type: str) -> None:
    built = tiny(model_type, "seqcls")

    def hooks() -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in built.model.modules())

    before = hooks()
    with torch.no_grad():
        plain = built.model(**built.inputs)
        with capture_attention(built.model, lambda call: None, states=True):
            watched = built.model(**built.inputs)
            asked = built.model(**built.inputs, output_hidden_states=True)
    assert hooks() == before
    assert list(watched.keys()) == list(plain.keys())
    assert len(asked.hidden_states) == 3
