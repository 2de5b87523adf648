"""Activations that a model computes by an autograd function of its own, whose backward pass has no rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction

from hf_attn_mi.capture.model_cache import cached
from hf_attn_mi.capture.module_walk import modules_of
from hf_attn_mi.methods.relevance.rules import identity_rule

WITHOUT_FUNCTIONS = ("torch.nn.modules.activation", "transformers.activations")
ACTIVATIONS = ("gelu", "silu", "swish", "mish")  # parts of the names of modules with f(0) = 0


@contextmanager
def gated_activations(model: nn.Module) -> Iterator[None]:
    """Within the block activation modules without weights that use an autograd function of their own are gated.

    The operations inside such a function are not seen by a `TorchFunctionMode`, and its backward pass is that of the
    activation and not of the gate f(x)/x, as in the GELU of Bloom. Every other module is left alone.
    """
    handles = []
    modules = modules_of(model)
    try:
        for place in cached(model, "activations", lambda: _activations(modules)):
            handles.append(modules[place].register_forward_hook(_gated))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _activations(modules: Sequence[nn.Module]) -> list[int]:
    """The places of activation modules whose operations are not known to be those of PyTorch."""
    found = [i for i, one in enumerate(modules) if _is_activation(type(one).__name__) and _has_no_parts(one)]
    return [i for i in found if not _uses_torch(modules[i])]


def _uses_torch(module: nn.Module) -> bool:
    """Whether this is an activation of PyTorch or transformers, which has no autograd function of its own."""
    kind = type(module)
    return "forward" not in module.__dict__ and kind.__module__ == kind.forward.__module__ in WITHOUT_FUNCTIONS


@lru_cache(maxsize=4096)
def _is_activation(class_name: str) -> bool:
    return any(part in class_name.lower() for part in ACTIVATIONS)


def _has_no_parts(module: nn.Module) -> bool:
    """Whether the module has neither submodules nor weights."""
    return all(part is None for part in (*module._modules.values(), *module._parameters.values()))


def _gated(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    """The output by the identity rule, if it comes from an autograd function of the model's own code."""
    if len(args) != 1 or not isinstance(args[0], Tensor) or not isinstance(output, Tensor):
        return None
    if not isinstance(output.grad_fn, BackwardCFunction) or _is_ours(output.grad_fn):
        return None
    return identity_rule(module.forward, args[0])


def custom_functions(value: Tensor) -> list[str]:
    """Names of the autograd functions, written in Python outside of this package, that a value was computed by."""
    names: dict[str, None] = {}
    visited, stack = set[Any](), [value.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        if isinstance(node, BackwardCFunction) and not _is_ours(node):
            names[type(node).__name__.removesuffix("Backward")] = None
        stack += [inner for inner, _ in node.next_functions]
    return list(names)


def _is_ours(node: Any) -> bool:
    return str(getattr(type(node), "_forward_cls", type(node)).__module__).startswith("hf_attn_mi.")
