"""Streams hidden states: the embeddings and the output of each layer, as `output_hidden_states` defines them.

Hooks on the layers pass the states on one at a time. On first use they are compared with what the model itself returns
for `output_hidden_states=True`. Where its definition is different (feature maps, states between layers that are not
modules), the list that the model returns is streamed at the end of the forward pass.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.capture.module_names import ModuleNames, layer_stacks, ties_last_state
from hf_attn_mi.capture.records import LayerStates
from hf_attn_mi.capture.torch_ops import recomputing

Consumer = Callable[[LayerStates], None]
EndHook = Callable[[nn.Module, Any, Any, Any], None]
STATE_FIELDS = ("hidden_states", "encoder_hidden_states", "decoder_hidden_states")


@contextmanager
def stream_states(names: ModuleNames, consumer: Consumer, checked: dict[str, bool]) -> Iterator[None]:
    """Pass the states of every stack of layers to `consumer` while the context is open.

    Args:
        names: the model and its module names.
        consumer: called with each `LayerStates`.
        checked: kept between calls for this model; "hooks agree" is True where the hooks give exactly the hidden states
            that the model returns.
    """
    thread = threading.get_ident()
    with hooks_restored(names.model), ExitStack() as hooks:
        hooked: list[bool] = []
        requested: list[bool] = []  # whether the caller requested hidden states in the output, too

        def begin(module: nn.Module, args: Any, kwargs: Any) -> Any:
            if threading.get_ident() != thread:
                return None
            if "hooks agree" not in checked:
                checked["hooks agree"] = _hooks_agree(names, module, args, kwargs)
            if not checked["hooks agree"]:
                option = kwargs.get("output_hidden_states")
                option = getattr(module.config, "output_hidden_states", False) if option is None else option
                requested[:] = [bool(option)]
                return args, {**kwargs, "output_hidden_states": True}
            if not hooked:
                hooked.append(True)
                hooks.enter_context(_hooks(names, consumer))
            return None

        def finish(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            if threading.get_ident() != thread or checked.get("hooks agree", True):
                return None
            for field, states in _returned_states(output).items():
                for index, state in enumerate(states):
                    consumer(LayerStates(index, field.removesuffix("hidden_states").rstrip("_"), state))
            if requested == [False] and hasattr(output, "items"):
                return type(output)(**{k: v for k, v in output.items() if k not in STATE_FIELDS})
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
def hooks_restored(model: nn.Module) -> Iterator[None]:
    """Remove the permanent hooks that transformers installs when hidden states are first requested."""
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


def _hooks_agree(names: ModuleNames, model: nn.Module, args: Any, kwargs: Any) -> bool:
    """Whether the hooks give the hidden states that the model returns on this input; True where it returns none."""
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
            returned = _returned_states(output)
    except (TypeError, ValueError):  # the model has no such argument
        return True
    finally:
        for module in training:
            module.training = True
    return all(any(_equal(states, hooked) for hooked in streamed.values()) for states in returned.values())


def _returned_states(output: Any) -> dict[str, list[Tensor]]:
    result = {}
    for name in STATE_FIELDS:
        states = getattr(output, name, None)
        if isinstance(states, (tuple, list)) and states and all(isinstance(s, Tensor) for s in states):
            result[name] = list(states)
    return result


def _equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(first, second))


@contextmanager
def _hooks(names: ModuleNames, consumer: Consumer) -> Iterator[dict[str, EndHook]]:
    """Yield, for each owner of a stack, the hook that ends its stream."""
    with ExitStack() as stack:
        yield {
            owner: stack.enter_context(_stream_stack(names, owner, layers, consumer))
            for owner, layers in layer_stacks(names).items()
        }


@contextmanager
def _stream_stack(names: ModuleNames, owner: str, layers: list[str], consumer: Consumer) -> Iterator[EndHook]:
    thread = threading.get_ident()
    newest: list[Tensor] = []  # held back: the last state of a stack may still pass a final normalization
    count = [0]
    tie = ties_last_state(names.modules[owner])

    def active() -> bool:
        return threading.get_ident() == thread and not recomputing()

    def emit(states: Tensor) -> None:
        if newest:
            consumer(LayerStates(count[0], owner, newest.pop()))
            count[0] += 1
        newest.append(states)

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        if active() and not newest:
            count[0] = 0
            first = args[0] if args else next(iter(kwargs.values()), None)
            if isinstance(first, Tensor):
                emit(first)

    def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if active():
            states = output[0] if isinstance(output, (tuple, list)) else getattr(output, "last_hidden_state", output)
            if isinstance(states, Tensor):
                emit(states)

    def finish(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if active() and newest:
            last = getattr(output, "last_hidden_state", None)
            if last is None and isinstance(output, tuple) and output:
                last = output[0]
            states = newest.pop()
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
