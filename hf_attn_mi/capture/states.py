"""Hidden states, streamed: the embeddings and the output of each layer, as `output_hidden_states` defines them."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from hf_attn_mi.capture.naming import ModuleNames
from hf_attn_mi.capture.records import LayerStates

Consumer = Callable[[LayerStates], None]


@contextmanager
def stream_states(names: ModuleNames, consumer: Consumer) -> Iterator[None]:
    """Hand the states of every stack of layers to `consumer`, one at a time, while the context is open."""
    with ExitStack() as stack:
        for owner, layers in layer_stacks(names).items():
            stack.enter_context(_stream_stack(names, owner, layers, consumer))
        yield


@contextmanager
def _stream_stack(names: ModuleNames, owner: str, layers: list[str], consumer: Consumer) -> Iterator[None]:
    thread = threading.get_ident()
    held: list[Tensor] = []  # the newest state waits: the last one may still pass a final normalisation
    count = [0]
    tie = _ties_last_state(names.modules[owner])

    def emit(states: Tensor) -> None:
        if held:
            consumer(LayerStates(count[0], owner, held.pop()))
            count[0] += 1
        held.append(states)

    def start(module: nn.Module, args: Any, kwargs: Any) -> None:
        if threading.get_ident() == thread:
            held.clear()
            count[0] = 0

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        if threading.get_ident() == thread and not held and count[0] == 0:
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
        parent = names.modules[owner]
        handles.append(parent.register_forward_pre_hook(start, with_kwargs=True))
        for name in layers:
            module = names.modules[name]
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after, with_kwargs=True))
        handles.append(parent.register_forward_hook(finish, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def layer_stacks(names: ModuleNames) -> dict[str, list[str]]:
    """Owner module -> its layers, in order: what the model's class records as hidden states, else module lists."""
    stacks: dict[str, list[str]] = {}
    for name, module in names.modules.items():
        record = (getattr(type(module), "_can_record_outputs", None) or {}).get("hidden_states")
        kind = getattr(record, "target_class", record)
        if isinstance(kind, type):
            layers = [n for n, m in names.modules.items() if isinstance(m, kind) and _below(n, name)]
            inner = [n for n, m in names.modules.items() if n != name and _below(n, name) and _records_states(m)]
            layers = [n for n in layers if not any(_below(n, i) for i in inner)]
            if layers:
                stacks[name] = layers
    covered = [layer for layers in stacks.values() for layer in layers]
    for name, module in names.modules.items():
        if not isinstance(module, nn.ModuleList) or len(module) == 0:
            continue
        layers = [f"{name}.{i}" for i in range(len(module))]
        owner = name.rpartition(".")[0]
        if any(_below(c, layers[0]) or _below(layers[0], c) for c in covered) or not _holds_attention(module):
            continue
        stacks[owner] = layers
        covered += layers
    return stacks


def _records_states(module: nn.Module) -> bool:
    return "hidden_states" in (getattr(type(module), "_can_record_outputs", None) or {})


def _below(name: str, root: str) -> bool:
    return root == "" or name == root or name.startswith(root + ".")


def _holds_attention(module: nn.Module) -> bool:
    return any("attention" in type(m).__name__.lower() or "attn" in type(m).__name__.lower() for m in module.modules())


def _ties_last_state(module: nn.Module) -> bool:
    """Whether the model's own last hidden state is its `last_hidden_state` (after a final normalisation)."""
    configured = getattr(getattr(module, "config", None), "tie_last_hidden_states", None)
    if configured is not None:
        return bool(configured)
    function: Any = type(module).forward
    while function is not None:
        closure = inspect.getclosurevars(function).nonlocals if inspect.isfunction(function) else {}
        if "tie_last_hidden_states" in closure:
            return bool(closure["tie_last_hidden_states"])
        function = getattr(function, "__wrapped__", None)
    return True
