"""Count the sequences that go through a model, forward and backward, whoever runs it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Passes:
    """Seconds and sequences so far.

    Attributes:
        seconds: wall-clock time inside `counted`.
        forwards: rows of all batches that the model was called with; a mean over targets may be no whole number.
        backwards: rows of all batches whose outputs received a gradient.
    """

    seconds: float = 0.0
    forwards: float = 0
    backwards: float = 0

    def plus(self, other: Passes) -> Passes:
        """The sum of both."""
        return Passes(self.seconds + other.seconds, self.forwards + other.forwards, self.backwards + other.backwards)

    def minus(self, other: Passes) -> Passes:
        """The difference of both."""
        return Passes(self.seconds - other.seconds, self.forwards - other.forwards, self.backwards - other.backwards)

    def divided(self, count: int) -> Passes:
        """The mean of `count` equal parts."""
        return self if count == 1 else Passes(self.seconds / count, self.forwards / count, self.backwards / count)


@contextmanager
def counted(model: nn.Module) -> Iterator[Passes]:
    """Count inside; the hooks are removed at the end, also after an error.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> with counted(layer) as passes:
        ...     _ = layer(torch.ones(3, 2)), layer(torch.ones(4, 2)).sum().backward()
        >>> passes.forwards, passes.backwards
        (7, 4)
    """
    passes, device = Passes(), next((p.device for p in model.parameters()), torch.device("cpu"))

    def count_forward(module: nn.Module, args: Any, kwargs: Any, outputs: Any) -> None:
        rows = next((x.shape[0] for x in (*kwargs.values(), *args) if isinstance(x, Tensor) and x.dim()), 0)
        passes.forwards += rows
        tensors = [x for x in _tensors(outputs) if x.requires_grad]

        def back(gradient: Tensor) -> None:
            passes.backwards += rows

        if tensors:  # "any": once for each backward pass, whichever output it comes through
            torch.autograd.graph.register_multi_grad_hook(tensors, back, mode="any")

    handle = model.register_forward_hook(count_forward, with_kwargs=True)
    try:
        started = _now(device)
        yield passes
        passes.seconds += _now(device) - started
    finally:
        handle.remove()


def _tensors(outputs: Any) -> list[Tensor]:
    parts = outputs.values() if isinstance(outputs, Mapping) else outputs
    return [part for part in (parts if isinstance(outputs, Mapping | tuple) else [outputs]) if isinstance(part, Tensor)]


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
