"""The state of a model during a capture: unwrapped, locked, run eagerly, with attention that can be traced."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from hf_attn_mi.capture.model_reading import read_once
from hf_attn_mi.capture.module_walk import modules_of, plain_attribute
from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError

TRACEABLE = {"eager", "sdpa"}
_COMPILED = "_torchdynamo_orig_callable"  # what a compiled function has
WRAPPERS = {"DataParallel", "DistributedDataParallel", "FullyShardedDataParallel"}
_locks: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
_locks_guard = threading.Lock()
# Held while configurations name another attention: models of several threads can share one. Taken before model_lock.
_switch_lock = threading.RLock()
_switched: dict[int, str] = {}  # what these configurations name otherwise, by their addresses


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside torch.compile, DataParallel, DistributedDataParallel and accelerate's wrappers.

    Raises:
        InvalidInputError: not a `torch.nn.Module`.
    """
    if not isinstance(model, nn.Module):
        raise InvalidInputError(f"model must be a torch.nn.Module (a PreTrainedModel), not {type(model).__name__}.")
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and type(model).__name__ in WRAPPERS:
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def model_lock(model: nn.Module) -> Any:
    """Return the re-entrant lock of this model: threads take turns, one thread may nest."""
    with _locks_guard:
        return _locks.setdefault(model, threading.RLock())


@contextmanager
def eager_stance(model: nn.Module) -> Iterator[None]:
    """Run compiled code eagerly inside the context: the operations of a compiled graph cannot be traced."""
    with torch.compiler.set_stance("force_eager") if read_once(model, "compiled", _any_compiled) else nullcontext():
        yield


def _any_compiled(model: nn.Module) -> bool:
    """Whether a part of it is."""
    compiled_classes: dict[type[nn.Module], bool] = {}
    for module in modules_of(model):  # the rule of `is_compiled`, which asks the same of each class once
        kind = type(module)
        if kind not in compiled_classes:
            compiled_classes[kind] = hasattr(kind, "_orig_mod") or hasattr(getattr(kind, "forward", None), _COMPILED)
        own = module.__dict__
        if compiled_classes[kind] or module._compiled_call_impl is not None or "forward" in own or "_orig_mod" in own:
            if is_compiled(module):
                return True
        elif "_orig_mod" in module._modules:
            return True
    return False


def is_compiled(module: nn.Module) -> bool:
    """Whether by torch.compile(module), module.compile() or module.forward = torch.compile(module.forward).

    Modules inside of it are not looked at.
    """
    if module._compiled_call_impl is not None or "_orig_mod" in module._modules:
        return True
    forward = module.__dict__.get("forward") or getattr(type(module), "forward", None)
    return hasattr(forward, _COMPILED) or hasattr(type(module), "_orig_mod") or "_orig_mod" in module.__dict__


@contextmanager
def visible_attention(model: nn.Module) -> Iterator[None]:
    """Use an attention implementation that can be traced (sdpa or eager) instead of flash and flex kernels.

    Raises:
        UnsupportedModelError: the model cannot be switched to it.
    """
    known = read_once(model, "configs", _configs)
    if not _needs_turn(known):
        yield
        return
    with _switch_lock:
        configs = [(one, one._attn_implementation_internal) for one in known]
        hidden = _hidden(value for _, value in configs)
        with _switched_to(model, configs, hidden[0]) if hidden else nullcontext():
            yield


@contextmanager
def own_attention(model: nn.Module) -> Iterator[tuple[str, ...]]:
    """Inside, no thread switches the attention of a model; yields its implementations that cannot be traced.

    None are yielded where this thread has switched the model.
    """
    known = read_once(model, "configs", _configs)
    with _switch_lock if _needs_turn(known) else nullcontext():
        yield tuple(_hidden(one._attn_implementation_internal for one in known))


def _needs_turn(configs: Iterable[Any]) -> bool:
    """Whether one of these names a hidden attention, or would if it were not switched now."""
    return bool(_hidden(map(_named, configs)))


def _named(config: Any) -> Any:
    """The attention implementation of a configuration, also while it is switched."""
    return _switched.get(id(config), config._attn_implementation_internal)


@contextmanager
def _switched_to(model: nn.Module, configs: list[tuple[Any, Any]], name: str) -> Iterator[None]:
    """Inside, the model runs attention that can be traced."""
    choice = _visible_choice(model)
    try:
        _switched.update({id(config): value for config, value in configs})
        try:
            model.set_attn_implementation(choice)  # type: ignore[operator]
        except Exception as error:
            raise UnsupportedModelError(
                f"{type(model).__name__} runs attention implementation {name!r}, whose kernel cannot be traced, "
                f"and cannot be switched to {choice!r}: {error}. Load it with attn_implementation='sdpa' or 'eager'."
            ) from error
        yield
    finally:
        for config, value in configs:
            config._attn_implementation_internal = value
            _switched.pop(id(config), None)


def attention_facts(model: nn.Module) -> dict[str, str]:
    """What a result says about how attention is computed.

    "attention_implementation" is that of the model's configuration, "attention_switched_to" the one that replaces it
    while the model is explained; only where it is replaced.
    """
    config = getattr(model, "config", None)
    named = _switched.get(id(config), getattr(config, "_attn_implementation", ""))
    facts = {"attention_implementation": str(named)}
    if _needs_turn(read_once(model, "configs", _configs)):
        facts["attention_switched_to"] = _visible_choice(model)
    return facts


def attention_settings(model: nn.Module) -> tuple[object, ...]:
    """The attention implementations that the configurations of a model name now, and whether rows are returned."""
    configs = read_once(model, "configs", _configs)
    return tuple((one._attn_implementation_internal, one.output_attentions) for one in configs)


def _hidden(implementations: Iterable[object]) -> list[str]:
    """Those of these attention implementations whose kernels cannot be traced."""
    return sorted({str(value) for value in implementations if value is not None and value not in TRACEABLE})


def _visible_choice(model: nn.Module) -> str:
    return "sdpa" if getattr(model, "_supports_sdpa", False) else "eager"


def _of_class(module: nn.Module, name: str) -> Any:
    """An attribute that the class of a module gives it, such as a property; None if there is none."""
    known = _class_has(type(module), name)  # type: ignore[arg-type]
    return plain_attribute(module, name) if known else None


@lru_cache(maxsize=4096)
def _class_has(kind: type[nn.Module], name: str) -> bool:
    return hasattr(kind, name)


def _configs(model: nn.Module) -> list[Any]:
    """Every configuration in the model that names an attention implementation."""
    configs: dict[int, Any] = {}
    for module in modules_of(model):
        config = module.__dict__.get("config") or _of_class(module, "config")
        if config is not None and id(config) not in configs and hasattr(config, "_attn_implementation_internal"):
            configs[id(config)] = config
    return list(configs.values())
