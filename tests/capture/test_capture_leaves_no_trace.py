"""What a model notices of `capture_attention`: nothing, however it is wrapped, compiled, trained or shared."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from accelerate import Accelerator, cpu_offload
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from hf_attn_mi import attention_maps, explain, minimal_tokens
from hf_attn_mi.capture import AttentionCall, capture_attention, repeat_heads
from hf_attn_mi.capture.function_mode import FunctionMode
from scripts.reliability.common import locks_free
from tests.sample_models import captured, load_demo, logits, parts, state_of, tiny_bert
from tests.zoo import Built, Job, build


def tiny() -> Built:
    """Two layers, a batch of two, the second input padded."""
    return build(Job("seqcls", "bert", "encoder"))


# --- what the model notices --------------------------------------------------------------------------------


def condition(model: nn.Module) -> dict[str, object]:
    """Everything about a model, and about torch, that a capture touches."""
    modules = dict(model.named_modules())
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")
    configs = {name: module.config for name, module in modules.items() if hasattr(module, "config")}
    return {
        "hooks": {(name, kind): list(getattr(module, kind)) for name, module in modules.items() for kind in hooks},
        "attributes": {name: sorted(vars(module)) for name, module in modules.items()},
        "training": [module.training for module in modules.values()],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "grads": [parameter.grad for parameter in model.parameters()],
        "configs": {name: (id(config), config.to_dict()) for name, config in configs.items()},
        "implementations": {name: config._attn_implementation_internal for name, config in configs.items()},
        "forward": {name: module.forward.__qualname__ for name, module in modules.items()},
        "modes": list(_get_current_function_mode_stack()),
        "grad": torch.is_grad_enabled(),
    }


class Stop(Exception):
    pass


def stop(call: AttentionCall) -> None:
    raise Stop


@pytest.mark.parametrize("where", ["nowhere", "forward", "consumer", "replace", "states", "body"])
@pytest.mark.parametrize("implementation", ["sdpa", "flex_attention"])
def test_everything_is_restored(where: str, implementation: str) -> None:
    built = tiny()
    model = built.model.train()
    model(**built.inputs, output_hidden_states=True)  # transformers adds hooks of its own on first use, for good
    model.bert.encoder.layer[1].eval()
    model.bert.embeddings.word_embeddings.weight.requires_grad_(False)
    model.config._attn_implementation_internal = implementation
    before = condition(model)

    def fail(module: nn.Module, args: object) -> None:
        if where == "forward":
            raise Stop

    handle = model.bert.encoder.layer[1].register_forward_pre_hook(fail)
    options = {
        "consumer": stop if where == "consumer" else None,
        "replace": stop if where == "replace" else None,
        "states": stop if where == "states" else True,
    }
    try:
        with capture_attention(model, **options) as capture:
            model(**built.inputs)
            if where == "body":
                raise Stop
        assert where == "nowhere"
        assert len(capture.calls) == 2
    except Stop:
        assert where != "nowhere"
    handle.remove()
    assert condition(model) == before


def test_hidden_kernels_are_switched_to_visible_ones_and_back() -> None:
    built = tiny()
    expected = logits(built.model, built.inputs)
    built.model.config._attn_implementation_internal = "flex_attention"
    with capture_attention(built.model) as capture:
        assert built.model.config._attn_implementation == "sdpa"
        assert torch.equal(logits(built.model, built.inputs), expected)
    assert built.model.config._attn_implementation == "flex_attention"
    assert len(capture.calls) == 2


# --- the ways a model is run -------------------------------------------------------------------------------


def offloaded(model: PreTrainedModel) -> nn.Module:
    cpu_offload(model, execution_device="cpu")
    return model


def compiled_in_place(model: PreTrainedModel) -> nn.Module:
    model.compile(backend="eager")
    return model


@pytest.fixture
def _fresh_accelerator() -> Iterator[None]:
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


WRAPPERS: dict[str, Callable[[PreTrainedModel], nn.Module]] = {
    "torch.compile": lambda model: torch.compile(model, backend="eager"),
    "model.compile": compiled_in_place,
    "cpu_offload": offloaded,
    "Accelerator": lambda model: Accelerator(cpu=True).prepare(model),
    "Accelerator bf16": lambda model: Accelerator(cpu=True, mixed_precision="bf16").prepare(model),
    "DataParallel": nn.DataParallel,
    "compiled DataParallel": lambda model: torch.compile(nn.DataParallel(model), backend="eager"),
}


def test_compiled_graphs_rest_while_the_context_is_open() -> None:
    """A tracer sees nothing of a compiled graph: the graph must not run, whichever way the model was compiled."""
    runs: list[None] = []

    def backend(graph: torch.fx.GraphModule, example: object) -> Callable[..., object]:
        def run(*args: Tensor) -> object:
            runs.append(None)
            return graph(*args)

        return run

    def compile_forward(model: PreTrainedModel) -> PreTrainedModel:
        model.forward = torch.compile(model.forward, backend=backend)
        return model

    def compile_in_place(model: PreTrainedModel) -> PreTrainedModel:
        model.compile(backend=backend)
        return model

    for wrap in (lambda model: torch.compile(model, backend=backend), compile_in_place, compile_forward):
        built = tiny()
        model = wrap(built.model)
        logits(model, built.inputs)
        assert runs
        runs.clear()
        with capture_attention(model) as capture:
            logits(model, built.inputs)
        assert not runs
        assert len(capture.calls) == 2
        logits(model, built.inputs)
        assert runs


@pytest.mark.usefixtures("_fresh_accelerator")
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrapped_models(wrapper: str) -> None:
    built = tiny()
    names = [call.module_name for call in captured(*parts(built))]
    model = WRAPPERS[wrapper](built.model)
    before = logits(model, built.inputs)
    with capture_attention(model) as capture:
        during = logits(model, built.inputs)
    assert [call.module_name for call in capture.calls] == names
    assert all(call.projection is not None for call in capture.calls)
    assert torch.equal(during, before)
    assert torch.equal(logits(model, built.inputs), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    config = BertConfig(hidden_size=256, num_attention_heads=4, num_hidden_layers=2, vocab_size=99)
    model = BertForSequenceClassification(config).eval()  # wide enough that half precision shows in the sums
    inputs = {"input_ids": torch.randint(99, (2, 32))}
    with torch.autocast("cpu", dtype):
        before = logits(model, inputs)
        with capture_attention(model) as capture:
            during = logits(model, inputs)
    assert torch.equal(during, before)
    assert [call.value.dtype for call in capture.calls] == [dtype] * 2
    assert [call.projection.weight.dtype for call in capture.calls] == [torch.float32] * 2
    assert min(check.error for check in capture.checks.values()) > 1e-4


@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputation_in_a_backward_pass_is_no_new_call(reentrant: bool) -> None:
    built = tiny()
    model = built.model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})

    def gradient() -> Tensor:
        model.zero_grad()
        embeddings = model.get_input_embeddings()(built.inputs["input_ids"])
        model(inputs_embeds=embeddings, attention_mask=built.inputs["attention_mask"]).logits.sum().backward()
        return model.get_input_embeddings().weight.grad.clone()

    expected = gradient()
    assert expected.abs().max() > 0
    with capture_attention(model, states=True) as capture:
        assert torch.equal(gradient(), expected)
    assert [call.layer for call in capture.calls] == [0, 1]
    assert [record.index for record in capture.states] == [0, 1, 2]


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_layer_that_is_called_again_in_a_backward_pass_is_no_new_call(reentrant: bool) -> None:
    built = tiny()
    model = built.model  # in evaluation mode: what is recomputed is the whole call of a layer, hooks included

    def call_again(layer: nn.Module, *args: Tensor, **kwargs: object) -> object:
        function = functools.partial(nn.Module.__call__, layer, **kwargs)
        return checkpoint(function, *args, use_reentrant=reentrant)

    for layer in model.bert.encoder.layer:
        layer.__class__ = type("Recomputed", (type(layer),), {"__call__": call_again})
    embeddings = model.get_input_embeddings()(built.inputs["input_ids"])
    with capture_attention(model, states=True) as capture:
        model(inputs_embeds=embeddings, attention_mask=built.inputs["attention_mask"]).logits.sum().backward()
    assert [call.layer for call in capture.calls] == [0, 1]
    assert [record.index for record in capture.states] == [0, 1, 2]


# --- threads and nesting -----------------------------------------------------------------------------------


def test_threads_take_turns() -> None:
    built = tiny()
    inputs = [{name: tensor[i : i + 1] for name, tensor in built.inputs.items()} for i in (0, 1)]
    expected = [[call.attention() for call in captured(built.model, one)] for one in inputs]
    found: dict[int, list[list[AttentionCall]]] = {0: [], 1: []}

    def work(i: int) -> None:
        for _ in range(10):
            found[i].append(captured(built.model, inputs[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for i in (0, 1):
        assert len(found[i]) == 10
        for calls in found[i]:
            assert [torch.equal(c.attention(), rows) for c, rows in zip(calls, expected[i], strict=True)] == [True] * 2


def test_a_second_thread_waits_until_the_context_closes() -> None:
    """Else one would set back the attention implementation under which the other is still running."""
    built, entered = tiny(), threading.Event()

    def work() -> None:
        with capture_attention(built.model):
            entered.set()

    other = threading.Thread(target=work)
    with capture_attention(built.model):
        other.start()
        assert not entered.wait(0.3)
    assert entered.wait(60)
    other.join(60)


def test_a_plain_forward_in_another_thread_is_not_recorded() -> None:
    built = tiny()
    with capture_attention(built.model, states=True) as capture:
        other = threading.Thread(target=logits, args=parts(built))
        other.start()
        other.join(60)
        assert not capture.calls
        assert not capture.states
        logits(built.model, built.inputs)
    assert len(capture.calls) == 2


def test_contexts_nest() -> None:
    built = tiny()
    with capture_attention(built.model) as outer:
        with capture_attention(built.model) as inner:
            logits(built.model, built.inputs)
        logits(built.model, built.inputs)
    assert [call.layer for call in inner.calls] == [0, 1]
    assert [call.layer for call in outer.calls] == [0, 1, 0, 1]
    for call in (*inner.calls, *outer.calls):
        assert call.projection is not None
        values = repeat_heads(call.value, call.heads)
        torch.testing.assert_close(call.attention() @ values, call.output, rtol=1e-4, atol=1e-5)


def test_an_outer_context_does_not_see_what_an_inner_consumer_computes() -> None:
    built, count = tiny(), []

    def consume(call: AttentionCall) -> None:
        count.append(torch.softmax(call.query @ call.key.transpose(-1, -2), -1) @ call.value)

    with torch.no_grad(), capture_attention(built.model) as outer, capture_attention(built.model, consume):
        built.model(**built.inputs)
    assert len(count) == len(outer.calls) == 2


@pytest.mark.parametrize("lost", ["own", "around"])
def test_an_interruption_inside_pytorch_leaves_the_stack_of_modes_as_it_was(lost):
    """Ctrl-C after PyTorch has taken a mode off its stack, and before it puts the mode back."""

    class Around(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    class Own(FunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    def interrupted():
        for _ in range(2 if lost == "around" else 1):
            torch.overrides._pop_mode()
        raise KeyboardInterrupt

    around, own = Around(), Own()
    with around:
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt), own:
                interrupted()
            assert _get_current_function_mode_stack() == [around]
        with own, own:
            assert len(_get_current_function_mode_stack()) == 3
        assert _get_current_function_mode_stack() == [around]
    assert _get_current_function_mode_stack() == []


def test_trying_padding_leaves_no_hook_of_transformers():
    """`output_hidden_states=True` makes transformers install hooks for good; they are taken away again."""
    model, tokenizer = tiny_bert(), load_demo()[1]
    before = state_of(model)
    for task in (minimal_tokens, attention_maps, explain):
        task(model, ["A quietly moving film.", "dull"], tokenizer=tokenizer)
        assert state_of(model) == before


def test_an_interruption_while_a_capture_begins_leaves_the_lock_free():
    """At every line of contextlib until the capture is open, such as between the two steps of `enter_context`."""
    model = tiny_bert()
    lines = 0

    def trace(frame, event, argument):
        nonlocal lines
        if frame.f_code.co_filename != contextlib.__file__:
            return None
        if event == "line":
            lines += 1
            if lines == number:
                raise KeyboardInterrupt
        return trace

    for number in range(1, 1000):
        lines = 0
        try:
            sys.settrace(trace)
            with capture_attention(model):
                sys.settrace(None)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        assert locks_free({"model": model}), number
        if lines < number:
            break
    assert 10 < number < 1000
