"""Random numbers that are independent of the caller's own, and the same on every device."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


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


def draw_normal(
    shape: Sequence[int], generator: torch.Generator, like: Tensor, *, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Return standard normal numbers of this shape and type on the device of `like`, drawn on the CPU."""
    return torch.randn(*shape, generator=generator, dtype=dtype, device="cpu").to(like.device)


def draw_classes(probabilities: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return (n, count) classes drawn from each row of (n, K) probabilities, on their device, drawn on the CPU."""
    drawn = torch.multinomial(probabilities.cpu(), count, replacement=True, generator=generator)
    return drawn.to(probabilities.device)
