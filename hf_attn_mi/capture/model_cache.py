"""Values that were computed for a model, kept with one rule of invalidation for the whole package."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import TypeVar
from weakref import WeakKeyDictionary, ref

import torch
import torch.nn.functional as F
from torch import nn

from hf_attn_mi.capture.model_reading import read_once
from hf_attn_mi.capture.module_walk import modules_of

Value = TypeVar("Value")
Other = TypeVar("Other")
ModelState = tuple[Hashable, ...]
PLAIN = (bool, int, float, complex, str, bytes, type(None))
RECORDING = "transformers.utils.output_capturing"
LIBRARIES = ("torch.nn.", "transformers.", "peft.", "accelerate.", "sentence_transformers.", "hf_attn_mi.")


@dataclass(frozen=True, eq=False)
class _Entry:
    """Values of one model, the state that they belong to, and its modules, whose addresses the state holds."""

    state: ModelState
    modules: tuple[ref[nn.Module], ...]
    values: dict[Hashable, object]

    def holds(self, state: ModelState) -> bool:
        """Whether the model is as it was; the address of a module that was freed may be that of another one."""
        return self.state == state and all(module() is not None for module in self.modules)


_entries: WeakKeyDictionary[nn.Module, _Entry] = WeakKeyDictionary()


def runs_own_code(model: nn.Module) -> bool:
    """Whether a part of the model is code of the caller: a class of its own, a replaced forward, or a hook.

    What such code does may depend on the content of a call, so that one call says nothing about the next one.
    """
    return read_once(model, "own code", _runs_own_code)


def _runs_own_code(model: nn.Module) -> bool:
    return any(_is_own(module) or _hooks(module) for module in modules_of(model))


def model_state(model: nn.Module) -> ModelState:
    """What decides how a model computes, as far as it can be read without running it.

    These are the address and the version counter of every parameter and buffer, the modules themselves with their
    classes and names, their hooks, and the attributes of modules whose class is the caller's; the functions that the
    classes run, those that are registered as attention implementations, and the hooks of all modules. Tensors that
    were created in inference mode keep no version counter: of these the address alone counts.
    """
    state, _ = read_once(model, "state", _read_state)
    return state


def _read_state(model: nn.Module) -> tuple[ModelState, list[nn.Module]]:
    state: list[Hashable] = [*_shared_code()]
    modules, seen, visited = [model], {id(model)}, list[nn.Module]()
    own_classes: dict[type[nn.Module], bool] = {}
    with torch._C.DisableTorchFunction():  # an active mode, such as a tracer, must not see these reads
        while modules:  # one walk without generators: this runs for each explanation
            module = modules.pop()
            visited.append(module)
            kind = type(module)
            state.append(id(kind))
            if (module._forward_hooks or module._forward_pre_hooks) and (hooks := _hooks(module)):
                state.append(hooks)
            own = own_classes.get(kind)
            if own is None:
                own = own_classes[kind] = _is_own_class(kind)
                state += (getattr(kind, "forward", None), _eager_attention(kind.__module__))
            if own or ("forward" in module.__dict__ and _has_own_forward(module)):
                state.append(_attributes(module))
            for tensors in (module._parameters, module._buffers):
                for tensor in tensors.values() if tensors else ():
                    if tensor is not None:
                        state.append(0 if tensor.is_meta else tensor.data_ptr())
                        state.append(-1 if tensor.is_inference() else tensor._version)
            for name, child in module._modules.items():
                if child is not None:
                    state += (name, id(child))
                    if id(child) not in seen:
                        seen.add(id(child))
                        modules.append(child)
    return tuple(state), visited


def _shared_code() -> tuple[Hashable, ...]:
    """What every model of the process runs: attention functions by name, and the hooks of all modules.

    The functions themselves, not their addresses: an address may be given again.
    """
    shared = nn.modules.module
    hooks = (shared._global_forward_pre_hooks, shared._global_forward_hooks)
    known = getattr(sys.modules.get("transformers.modeling_utils"), "ALL_ATTENTION_FUNCTIONS", None)
    tables = () if known is None else (known._global_mapping, known._local_mapping)
    registered = (function for table in tables for function in table.values())
    return (F.scaled_dot_product_attention, *registered, *(number for table in hooks for number in table))


def _eager_attention(module: str) -> Hashable:
    """The function that the attention of a library's module runs where it is eager; None for others."""
    function: Hashable = getattr(sys.modules.get(module), "eager_attention_forward", None)
    return function


def _is_own(module: nn.Module) -> bool:
    """Whether the module's code is neither that of a library nor of this package."""
    return _has_own_forward(module) or _is_own_class(type(module))


def _has_own_forward(module: nn.Module) -> bool:
    """Whether the forward of this module alone was replaced by code of the caller."""
    forward = module.__dict__.get("forward")
    return forward is not None and not hasattr(module, "_hf_hook") and not _of_package(forward)


def _is_own_class(kind: type[nn.Module]) -> bool:
    """Whether the class is the caller's, or its forward was replaced by code of the caller."""
    forward = getattr(kind, "forward", None)  # of classes of TorchScript only instances have one
    if not (_of_library(kind.__module__) and _of_library(getattr(forward, "__module__", ""))):
        return True
    # By where it was written: `functools.wraps` copies the other names.
    home = str(getattr(forward, "__globals__", {}).get("__name__", ""))
    return bool(home) and not (_of_library(home) or home.partition(".")[0] in ("torch", "contextlib", "functools"))


@lru_cache(maxsize=4096)
def _of_library(name: str) -> bool:
    return name.startswith(LIBRARIES)


def _of_package(code: object) -> bool:
    return str(getattr(code, "__module__", "")).startswith("hf_attn_mi.")


def _hooks(module: nn.Module) -> tuple[int, ...]:
    """The numbers of the hooks of a module that may be the caller's; a number is never given twice.

    Those of this package are not, nor those by which transformers records outputs: it adds them to a model that is
    called with output_hidden_states or output_attentions, and leaves them there.
    """
    hooks = chain(module._forward_pre_hooks.items(), module._forward_hooks.items())
    return tuple(number for number, hook in hooks if not _of_package(hook) and not _records_outputs(hook))


def _records_outputs(hook: object) -> bool:
    return getattr(hook, "__module__", None) == RECORDING


def _attributes(module: nn.Module) -> tuple[Hashable, ...]:
    """The attributes of a module: plain values, and of everything else which object it is."""
    return tuple(
        (name, value if isinstance(value, PLAIN) else id(value))
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "training" and not (name == "forward" and _of_package(value))
    )


def cached(model: nn.Module, key: Hashable, compute: Callable[[], Value]) -> Value:
    """The value of `compute()` for this model, computed again once the model has changed.

    The rule: a value is valid while `model_state` is the same: every parameter and buffer is the same tensor with the
    same version counter, and modules, hooks and the attributes of the caller's own modules are the same.
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
    values = _values_of(model)
    if key not in values:
        values[key] = compute()
    return values[key]  # type: ignore[return-value]


def is_known(model: nn.Module, key: Hashable) -> bool:
    """Whether `cached` has the value of this key for the model as it is."""
    return key in _values_of(model)


def cached_pair(
    model: nn.Module, first: tuple[Hashable, Callable[[], Value]], second: tuple[Hashable, Callable[[], Other]]
) -> tuple[Value, Other]:
    """Two values, each given as key and computation, for one reading of the model's state; see `cached`."""
    values = _values_of(model)
    for key, compute in (first, second):
        if key not in values:
            values[key] = compute()
    return values[first[0]], values[second[0]]  # type: ignore[return-value]


def _values_of(model: nn.Module) -> dict[Hashable, object]:
    """What is known about the model in its present state; looked up once for each reading of the state."""
    return read_once(model, "values", _find_values)


def _find_values(model: nn.Module) -> dict[Hashable, object]:
    state, modules = read_once(model, "state", _read_state)
    known = _entries.get(model)
    if known is None or not known.holds(state):
        parts = tuple(ref(module) for module in modules if module is not model)
        known = _entries[model] = _Entry(state, parts, {})
    return known.values
