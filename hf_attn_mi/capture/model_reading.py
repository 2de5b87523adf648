"""What is read of a model without running it, read once for a call instead of once for each part of the package."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch import nn

Value = TypeVar("Value")


class _Scope(threading.local):
    """The scopes that are open in this thread, and what was read in them: (model, what) -> the model, the value."""

    def __init__(self) -> None:
        self.depth = 0
        self.known: dict[tuple[int, str], tuple[nn.Module, object]] = {}


_scope = _Scope()


@contextmanager
def reading_once() -> Iterator[None]:
    """Inside, in this thread, the modules and the state of a model are read once.

    They are read again after code that may change the model: after each forward pass and after the functions of the
    caller (`forget_readings`). So a change between two calls is noticed, and one that is made by the model's own code
    or by a target function as well.
    """
    forget_readings()
    _scope.depth += 1
    try:
        yield
    finally:
        _scope.depth -= 1
        forget_readings()


def forget_readings() -> None:
    """Read models again from now on: code that may change them has run."""
    _scope.known.clear()


def read_once(model: nn.Module, what: str, read: Callable[[nn.Module], Value]) -> Value:
    """The value of `read(model)`; inside `reading_once` that of the first reading.

    Args:
        model: the model.
        what: name of the value; the same name must always stand for the same function.
        read: reads the model and does not run it. Its value is shared: it must not be changed.

    Example:
        >>> from torch import nn
        >>> layer, calls = nn.Linear(2, 2), []
        >>> with reading_once():
        ...     for _ in range(3):
        ...         read_once(layer, "calls", calls.append)
        >>> len(calls)
        1
    """
    if not _scope.depth:
        return read(model)
    key = (id(model), what)
    if key not in _scope.known:
        _scope.known[key] = model, read(model)
    return _scope.known[key][1]  # type: ignore[return-value]
