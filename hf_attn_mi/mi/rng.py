"""Random numbers that are not the caller's own."""

from __future__ import annotations

import hashlib

import torch


def stream(seed: int, purpose: str) -> torch.Generator:
    """Return a generator for one purpose.

    Not `manual_seed(seed)`: who makes data with seed 0 and asks for permutations or noise with seed 0 would get the
    same numbers twice, and permutations or noise that depend on the data.

    Example:
        >>> a, b = (torch.rand(1, generator=stream(0, name)) for name in ("folds", "noise"))
        >>> bool(a == b)
        False
    """
    digest = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
