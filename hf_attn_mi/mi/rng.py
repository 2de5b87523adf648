"""Random number generators that are independent of the caller's own."""

from __future__ import annotations

import hashlib

import torch


def make_rng(seed: int, purpose: str) -> torch.Generator:
    """Return a generator for one seed and one purpose.

    `torch.manual_seed(seed)` alone would not do: a caller who generates data with seed 0 and asks for permutations or
    noise with seed 0 would get the same numbers twice, so that the permutations or the noise depend on the data.

    Example:
        >>> a, b = (torch.rand(1, generator=make_rng(0, name)) for name in ("folds", "noise"))
        >>> bool(a == b)
        False
    """
    digest = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
