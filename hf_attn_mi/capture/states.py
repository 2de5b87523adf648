"""Hidden states, streamed: the embeddings and the output of each layer, as `output_hidden_states` defines them.

Hooks on the layers hand the states over one at a time. On first use they are compared with what the model itself
returns for `output_hidden_states=True`; where its definition is another one (feature maps, states between layers
that are no modules), the model's own list is streamed when the forward pass ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.capture.layer_stacks import layer_stacks, ties_last_state
from hf_attn_mi.capture.naming import ModuleNames
from hf_attn_mi.capture.records import LayerStates

Consumer = Callable[[LayerStates], None]
Finish = Callable[[nn.Module, Any, Any, Any], None]
OWN_LISTS = ("hidden_states", "encoder_hidden_states", "decoder_hidden_states")


@contextmanager
def stream_states(names: ModuleNames, consumer: Consumer, settled: dict[str, bool]) -> Iterator[None]:
    """Hand the states of every stack of layers to `consumer` while the context is open.

    Args:
        names: the model and its module names.
        consumer: called with one `LayerStates` after the other.
        settled: what is known of this model, kept between calls: "streams" is True where the hooks give exactly
            the model's own hidden states.
    """
    thread = threading.get_ident()
    with _hooks_restored(names.model), ExitStack() as hooks:
        hooked: list[bool] = []
        asked: list[bool] = []  # whether the caller wants hidden states in the output, too

        def begin(module: nn.Module, args: Any, kwargs: Any) -> Any:
            if threading.get_ident() != thread:
                return None
            if "streams" not in settled:
                settled["streams"] = _streams_agree(names, module, args, kwargs)
            if not settled["streams"]:
                own = kwargs.get("output_hidden_states")
                asked[:] = [bool(getattr(module.config, "output_hidden_states", False) if own is None else own)]
                return args, {**kwargs, "output_hidden_states": True}
            if not hooked:
                hooked.append(True)
                hooks.enter_context(_hooks(names, consumer))
            return None

        def finish(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            if threading.get_ident() != thread or settled.get("streams", True):
                return None
            for field, states in _own_states(output).items():
                for index, state in enumerate(states):
                    consumer(LayerStates(index, field.removesuffix("hidden_states").rstrip("_"), state))
            if asked == [False] and hasattr(output, "items"):
                return type(output)(**{k: v for k, v in output.items() if k not in OWN_LISTS})
            return None

        handles = [
            names.model.register_forward_pre_hook(begin, with_kwargs=True),
            names.model.register_forward_hook(finish, with_kwargs=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def _hooks_restored(model: nn.Module) -> Iterator[None]:
    """Take away the permanent hooks that transformers installs when hidden states are first asked for."""
    flag = "_output_capturing_hooks_installed"
    before = [(module, set(module._forward_hooks), module.__dict__.get(flag)) for module in model.modules()]
    try:
        yield
    finally:
        for module, hooks, installed in before:
            for key in set(module._forward_hooks) - hooks:
                del module._forward_hooks[key]
            if installed is None:
                module.__dict__.pop(flag, None)


def _streams_agree(names: ModuleNames, model: nn.Module, args: Any, kwargs: Any) -> bool:
    """Whether the hooks give the model's own hidden states on this input (True where it offers none)."""
    streamed: dict[str, list[Tensor]] = {}
    training = [module for module in model.modules() if module.training]

    def keep(record: LayerStates) -> None:
        streamed.setdefault(record.stack, []).append(record.states)

    try:
        for module in training:
            module.training = False
        with torch.no_grad(), torch.random.fork_rng(), torch._C.DisableTorchFunction(), _hooks(names, keep) as finish:
            output = model.forward(*args, **{**kwargs, "output_hidden_states": True})
            if "" in finish:  # `forward` runs no hooks of the model itself
                finish[""](model, args, kwargs, output)
            own = _own_states(output)
    except (TypeError, ValueError):  # the model knows no such argument
        return True
    finally:
        for module in training:
            module.training = True
    return all(any(_equal(states, found) for found in streamed.values()) for states in own.values())


def _own_states(output: Any) -> dict[str, list[Tensor]]:
    found = {}
    for name in OWN_LISTS:
        states = getattr(output, name, None)
        if isinstance(states, (tuple, list)) and states and all(isinstance(s, Tensor) for s in states):
            found[name] = list(states)
    return found


def _equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(first, second))


@contextmanager
def _hooks(names: ModuleNames, consumer: Consumer) -> Iterator[dict[str, Finish]]:
    """Yields, for each owner of a stack, the hook that ends its stream."""
    with ExitStack() as stack:
        yield {
            owner: stack.enter_context(_stream_stack(names, owner, layers, consumer))
            for owner, layers in layer_stacks(names).items()
        }


@contextmanager
def _stream_stack(names: ModuleNames, owner: str, layers: list[str], consumer: Consumer) -> Iterator[Finish]:
    thread = threading.get_ident()
    held: list[Tensor] = []  # the newest state waits: the last one may still pass a final normalization
    count = [0]
    tie = ties_last_state(names.modules[owner])

    def emit(states: Tensor) -> None:
        if held:
            consumer(LayerStates(count[0], owner, held.pop()))
            count[0] += 1
        held.append(states)

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        if threading.get_ident() == thread and not held:
            count[0] = 0
            first = args[0] if args else next(iter(kwargs.values()), None)
            if isinstance(first, Tensor):
                emit(first)

    def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if threading.get_ident() == thread:
            states = output[0] if isinstance(output, (tuple, list)) else getattr(output, "last_hidden_state", output)
            if isinstance(states, Tensor):
                emit(states)

    def finish(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if threading.get_ident() == thread and held:
            last = getattr(output, "last_hidden_state", None)
            if last is None and isinstance(output, tuple) and output:
                last = output[0]
            states = held.pop()
            if tie and isinstance(last, Tensor) and last.shape == states.shape:
                states = last
            consumer(LayerStates(count[0], owner, states))

    handles = []
    try:
        for name in layers:
            module = names.modules[name]
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after, with_kwargs=True))
        handles.append(names.modules[owner].register_forward_hook(finish, with_kwargs=True))
        yield finish
    finally:
        for handle in handles:
            handle.remove()
