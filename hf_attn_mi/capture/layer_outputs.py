"""The outputs of a model's layers: kept in one pass, and put in the place of layers in another."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from hf_attn_mi.capture.model_state import unwrap
from hf_attn_mi.capture.module_names import ModuleNames, layer_stacks


def stack_of_layers(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the layers of the model's only stack, in order; () if there is none, or several.

    Args:
        model: as for `capture_attention`.
    """
    stacks = list(layer_stacks(ModuleNames(unwrap(model))).values())
    return tuple(stacks[0]) if len(stacks) == 1 else ()


@contextmanager
def layer_outputs(model: nn.Module, layers: tuple[str, ...]) -> Iterator[dict[str, list[Any]]]:
    """Keep what these layers return while the context is open.

    Args:
        model: unwrapped.
        layers: names of modules.

    Yields:
        For each layer its outputs, one for each call.
    """
    thread = threading.get_ident()
    kept: dict[str, list[Any]] = {name: [] for name in layers}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if threading.get_ident() == thread:
                kept[name].append(output)

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def skipped_layers(model: nn.Module, outputs: Mapping[str, Any]) -> Iterator[None]:
    """Put known outputs in the place of layers: their code does not run while the context is open.

    Args:
        model: unwrapped.
        outputs: name of the layer -> what it returns.
    """
    saved: list[tuple[nn.Module, Any]] = []
    try:
        for name, output in outputs.items():
            module = model.get_submodule(name)
            saved.append((module, vars(module).get("forward")))
            module.forward = lambda *args, output=output, **kwargs: output
        yield
    finally:
        for module, before in reversed(saved):
            if before is None:
                del module.forward
            else:
                module.forward = before
