"""The stacks of layers in a model: what its class records as hidden states, else lists of attention layers."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from hf_attn_mi.capture.naming import ModuleNames


def layer_stacks(names: ModuleNames) -> dict[str, list[str]]:
    """Owner module -> the names of its layers, in order."""
    stacks: dict[str, list[str]] = {}
    for name, module in names.modules.items():
        kind = _recorded_class(module)
        if kind is None:
            continue
        inner = [n for n, m in names.modules.items() if n != name and _below(n, name) and _recorded_class(m)]
        layers = [
            n
            for n, m in names.modules.items()
            if isinstance(m, kind) and _below(n, name) and not any(_below(n, i) for i in inner)
        ]
        if layers:
            stacks[name] = layers
    covered = [layer for layers in stacks.values() for layer in layers]
    for name, module in names.modules.items():
        if not isinstance(module, nn.ModuleList) or len(module) == 0 or not holds_attention(module):
            continue
        layers = [f"{name}.{i}" for i in range(len(module))]
        if any(isinstance(layer, nn.ModuleList) for layer in module):
            layers = [f"{name}.{i}.{j}" for i, block in enumerate(module) for j in range(len(block))]  # type: ignore[arg-type]
        if any(_below(c, layers[0]) or _below(layers[0], c) for c in covered):
            continue
        stacks[name.rpartition(".")[0]] = layers
        covered += layers
    return stacks


def holds_attention(module: nn.Module) -> bool:
    """Whether a class name inside says attention."""
    return any("attention" in type(m).__name__.lower() or "attn" in type(m).__name__.lower() for m in module.modules())


def ties_last_state(module: nn.Module) -> bool:
    """Whether the model's own last hidden state is its `last_hidden_state` (after a final normalization)."""
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


def _recorded_class(module: nn.Module) -> type | None:
    record = (getattr(type(module), "_can_record_outputs", None) or {}).get("hidden_states")
    kind = getattr(record, "target_class", record)
    return kind if isinstance(kind, type) else None


def _below(name: str, root: str) -> bool:
    return root == "" or name == root or name.startswith(root + ".")
