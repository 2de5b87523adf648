"""Which values a gradient can be taken of, and parameters as constants."""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor, nn

PLAIN = {int, float, bool, str, type(None)}


def any_tracked(result: Any) -> bool:
    """Whether a gradient can be taken with respect to a result, or to one of several."""
    return any(map(is_tracked, result if isinstance(result, tuple | list) else (result,)))


def is_tracked(value: Any) -> bool:
    """Whether a gradient can be taken with respect to this value."""
    return isinstance(value, Tensor) and value.requires_grad


def is_negative(value: Any) -> bool:
    """Whether this is a negative number."""
    return isinstance(value, (int, float)) and value < 0


def without_gradient(value: Any) -> Any:
    """The value; a parameter of the model as a constant, also in a list of tensors."""
    kind = type(value)
    # The general test for a parameter is a Python function, and this runs for each argument.
    if kind is Tensor or kind in PLAIN:
        return value
    if kind is nn.Parameter:
        return value.detach()
    if kind in (list, tuple) and any(isinstance(part, nn.Parameter) for part in value):
        return kind(without_gradient(part) for part in value)
    return value.detach() if isinstance(value, nn.Parameter) else value


def inside_activation() -> bool:
    """Whether the caller is a composite activation such as 0.5 x (1 + tanh(...)): then tanh is its gate."""
    frame = sys._getframe(3)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if not name.startswith(("torch", "hf_attn_mi")):
            inside: bool = name == "transformers.activations" or any(
                word in frame.f_code.co_name.lower() for word in ("gelu", "mish")
            )
            return inside
        frame = frame.f_back  # type: ignore[assignment]
    return False
