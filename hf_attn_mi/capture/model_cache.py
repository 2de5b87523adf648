"""Values that were computed for a model, kept with one rule of invalidation for the whole package."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from types import FunctionType
from typing import NamedTuple, TypeVar
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
# Packages that the modules of libraries import, and whose decorators are around the forward of their classes.
IMPORTED = ("torch", "transformers", "safetensors", "huggingface_hub", "typing_extensions")
REGISTRIES = (  # of functions that models of transformers look up by name: (module, object)
    ("transformers.modeling_utils", "ALL_ATTENTION_FUNCTIONS"),
    ("transformers.masking_utils", "ALL_MASK_ATTENTION_FUNCTIONS"),
)
FUNCTIONAL = F.__name__


class _Reading(NamedTuple):
    """The state of a model, and its modules and the functions that it runs, whose addresses the state holds."""

    state: ModelState
    modules: list[nn.Module]
    functions: list[object]


@dataclass(frozen=True, eq=False)
class _Entry:
    """Values of one model, the state that they belong to, and the objects whose addresses the state holds.

    Functions of libraries are kept; modules and functions of the caller, which may hold the model, are not.
    """

    state: ModelState
    parts: tuple[Callable[[], object], ...]
    kept: tuple[object, ...]
    values: dict[Hashable, object]

    @classmethod
    def of(cls, model: nn.Module, reading: _Reading) -> _Entry:
        """An entry without values."""
        kept, others = list[object](), list[object](module for module in reading.modules if module is not model)
        for function in reading.functions:
            (kept if _is_of_libraries(function) else others).append(function)
        return cls(reading.state, tuple(map(_weakly, others)), tuple(kept), {})

    def holds(self, state: ModelState) -> bool:
        """Whether the model is as it was; the address of an object that was freed may be that of another one."""
        return self.state == state and all(part() is not None for part in self.parts)


_entries: WeakKeyDictionary[nn.Module, _Entry] = WeakKeyDictionary()


def runs_own_code(model: nn.Module) -> bool:
    """Whether a part of the model is code of the caller: a class of its own, a replaced forward, or a hook.

    The same for what all models run: hooks of all modules, `torch.nn.functional`, and the attention functions of
    transformers. What such code does may depend on the content of a call, so that one call says nothing about the next
    one.
    """
    return read_once(model, "own code", _runs_own_code)


def _runs_own_code(model: nn.Module) -> bool:
    modules = modules_of(model)
    if _shared_hooks() or any(map(_is_own_class, {type(module) for module in modules})):
        return True
    if any(_has_own_forward(module) or _hooks(module) for module in modules):
        return True
    attention = (function for (_, name), function in _registered() if name in ("sdpa", "eager"))
    return not all(map(_is_of_libraries, chain(attention, _functions_in(FUNCTIONAL))))


def model_state(model: nn.Module) -> ModelState:
    """What decides how a model computes, as far as it can be read without running it.

    These are the address and the version counter of every parameter and buffer, the modules themselves with their
    classes and names, their hooks, and the attributes of modules whose class is the caller's; and the functions that
    may be replaced for all models: the methods of each class, the functions in the Python module of each class and in
    `torch.nn.functional`, the attention and mask functions that transformers looks up by name, and the hooks of all
    modules. Tensors that were created in inference mode keep no version counter: of these the address alone counts.
    """
    return read_once(model, "state", _read_state).state


def _read_state(model: nn.Module) -> _Reading:
    state: list[Hashable] = [*_shared_hooks()]
    functions, homes = list[object](), {FUNCTIONAL: None}
    for place, function in _registered():
        state.append(place)
        functions.append(function)
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
                functions += [getattr(kind, name, None) for name in _method_names(kind)]  # type: ignore[arg-type]
                homes[kind.__module__] = None
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
    for home in homes:
        functions += _functions_in(home)
    state += map(id, functions)
    return _Reading(tuple(state), visited, functions)


def _shared_hooks() -> tuple[int, ...]:
    """The numbers of the hooks of all modules, none of which are of this package."""
    shared = nn.modules.module
    return (*shared._global_forward_pre_hooks, *shared._global_forward_hooks)


def _registered() -> Iterable[tuple[tuple[str, str], object]]:
    """The functions of the caller and of transformers that its models look up by name: (registry, name), function."""
    for home, name in REGISTRIES:
        registry = getattr(sys.modules.get(home), name, None)
        for table in ("_global_mapping", "_local_mapping"):
            for key, function in getattr(registry, table, {}).items():
                if not _of_package(function):  # it may be there for a pass
                    yield (table, key), function


def _functions_in(home: str) -> tuple[object, ...]:
    """The functions of a Python module, under the names that it had when it was first asked for."""
    space = vars(sys.modules[home]) if home in sys.modules else {}
    try:
        return tuple([space[name] for name in _function_names(home)])
    except KeyError:  # one was deleted
        return tuple(space.get(name) for name in _function_names(home))


@lru_cache(maxsize=4096)
def _function_names(home: str) -> tuple[str, ...]:
    space = vars(sys.modules[home]) if _of_library(home) and home in sys.modules else {}
    return tuple(name for name, value in space.items() if callable(value) and not isinstance(value, type))


@lru_cache(maxsize=4096)
def _method_names(kind: type[nn.Module]) -> tuple[str, ...]:
    """The forward of a class, and what the class itself defines."""
    return ("forward", *(name for name, value in vars(kind).items() if isinstance(value, FunctionType)))


def _weakly(part: object) -> Callable[[], object]:
    try:
        return ref(part)
    except TypeError:  # an object that cannot be referenced weakly
        return lambda: part


def _has_own_forward(module: nn.Module) -> bool:
    """Whether the forward of this module alone was replaced by code of the caller."""
    forward = module.__dict__.get("forward")
    return forward is not None and not hasattr(module, "_hf_hook") and not _of_package(forward)


def _is_own_class(kind: type[nn.Module]) -> bool:
    """Whether the class is the caller's, or its forward was replaced by code of the caller."""
    forward = getattr(kind, "forward", None)  # of classes of TorchScript only instances have one
    if not (_of_library(kind.__module__) and _of_library(getattr(forward, "__module__", ""))):
        return True
    return not _is_of_libraries(forward)


def _is_of_libraries(function: object) -> bool:
    """Whether a function and those that it wraps were written in a library, whatever name `functools.wraps` copied."""
    while function is not None:
        home = getattr(function, "__globals__", {}).get("__name__") or getattr(function, "__module__", None)
        home = home or type(function).__module__
        if not of_known_package(str(home)):
            return False
        function = getattr(function, "__wrapped__", None)
    return True


@lru_cache(maxsize=4096)
def _of_library(name: str) -> bool:
    return name.startswith(LIBRARIES)


@lru_cache(maxsize=4096)
def of_known_package(name: str) -> bool:
    """Whether a Python module is one of a library, of a package that libraries import, or of Python itself."""
    package = name.partition(".")[0]
    return name.startswith(LIBRARIES) or package in IMPORTED or package in sys.stdlib_module_names


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
    same version counter, and modules, hooks, the functions that the modules run and the attributes of the caller's own
    modules are the same.
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
    reading = read_once(model, "state", _read_state)
    known = _entries.get(model)
    if known is None or not known.holds(reading.state):
        known = _entries[model] = _Entry.of(model, reading)
    return known.values
