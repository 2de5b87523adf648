"""The tensors in the outputs of a model, whatever their form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor


def map_tensors(outputs: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Outputs of the same form with `change` applied to every tensor; objects of unknown form stay as they are."""
    if isinstance(outputs, Tensor):
        return change(outputs)
    if isinstance(outputs, Mapping) and is_dataclass(outputs):  # ModelOutput
        return type(outputs)(**{key: map_tensors(value, change) for key, value in outputs.items()})
    if isinstance(outputs, Mapping):
        return {key: map_tensors(value, change) for key, value in outputs.items()}
    if isinstance(outputs, tuple) and hasattr(outputs, "_fields"):
        return type(outputs)(*(map_tensors(value, change) for value in outputs))
    if isinstance(outputs, tuple | list):
        return type(outputs)(map_tensors(value, change) for value in outputs)
    if is_dataclass(outputs) and not isinstance(outputs, type):
        changed = {f.name: map_tensors(getattr(outputs, f.name), change) for f in fields(outputs) if f.init}
        return replace(outputs, **changed)
    return outputs
