"""Captum draws from the global generators of torch and numpy; here they are seeded, and then restored."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_turns = threading.RLock()  # the generators belong to the process: two threads must not interleave their draws


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draws inside depend on the seed alone; outside, the sequences of draws do not change.

    Args:
        seed: the seed of torch's and numpy's global generators.
        device: an accelerator whose generator is drawn from, besides the CPU's.

    Example:
        >>> with seeded(0, torch.device("cpu")):
        ...     first = torch.rand(2)
        >>> with seeded(0, torch.device("cpu")):
        ...     print(bool(torch.equal(first, torch.rand(2))))
        True
    """
    devices = [device] if device.type == "cuda" else []
    with _turns, torch.random.fork_rng(devices=devices):
        state = np.random.get_state()  # the state of the generator that captum uses
        try:
            torch.manual_seed(seed)
            np.random.seed(seed)
            yield
        finally:
            np.random.set_state(state)
