"""Values that were computed for a model, kept with one rule of invalidation for the whole package."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import chain
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

Value = TypeVar("Value")
WeightState = tuple[tuple[int, int], ...]
_entries: WeakKeyDictionary[nn.Module, tuple[WeightState, dict[Hashable, object]]] = WeakKeyDictionary()


def weight_state(model: nn.Module) -> WeightState:
    """Address and version counter of every parameter and buffer.

    Tensors that were created in inference mode keep no version counter: of these the address alone counts.
    """
    state: list[tuple[int, int]] = []
    modules, seen = [model], {id(model)}
    with torch._C.DisableTorchFunction():  # an active mode, such as a tracer, must not see these reads
        while modules:  # one walk without generators: this runs several times for each explanation
            module = modules.pop()
            for tensor in chain(module._parameters.values(), module._buffers.values()):
                if tensor is not None:
                    address = 0 if tensor.is_meta else tensor.data_ptr()
                    state.append((address, -1 if tensor.is_inference() else tensor._version))
            for child in module._modules.values():
                if child is not None and id(child) not in seen:
                    seen.add(id(child))
                    modules.append(child)
    return tuple(state)


def cached(model: nn.Module, key: Hashable, compute: Callable[[], Value]) -> Value:
    """The value of `compute()` for this model, computed again once a weight of the model has changed.

    The rule: a value is valid while every parameter and buffer is the same tensor with the same version counter.
    Writing through `.data` does not advance the counter; values that must notice it compare a checksum instead (see
    `hf_attn_mi.models.weights.fingerprint`).

    Args:
        model: the unwrapped module; it is referenced weakly.
        key: what the value is; the same key must always stand for the same computation.
        compute: called without arguments.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> calls = []
        >>> for _ in range(3):
        ...     _ = cached(layer, "count", lambda: calls.append(1))
        >>> len(calls)
        1
    """
    state = weight_state(model)
    known = _entries.get(model)
    if known is None or known[0] != state:
        known = _entries[model] = (state, {})
    values = known[1]
    if key not in values:
        values[key] = compute()
    return values[key]  # type: ignore[return-value]
