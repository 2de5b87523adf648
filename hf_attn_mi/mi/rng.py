"""Random numbers that are independent of the caller's own, and the same on every device."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown

MARKED_ROWS, MARKED_FEATURES = 64, 8  # that the mark of a site is computed from


def make_rng(seed: int, purpose: str) -> torch.Generator:
    """Return a generator for one seed and one purpose.

    `torch.manual_seed(seed)` alone would not do: a caller who generates data with seed 0 and asks for permutations or
    noise with seed 0 would get the same numbers twice, so that the permutations or the noise depend on the data.

    Raises:
        InvalidInputError: a seed that is no whole number from 0 to 2**32 - 1.

    Example:
        >>> a, b = (torch.rand(1, generator=make_rng(0, name)) for name in ("folds", "noise"))
        >>> bool(a == b)
        False
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise InvalidInputError(f"seed must be a whole number from 0 to 2**32 - 1, not {shown(seed)}.")
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


def mark_of(states: Tensor, labels: Tensor) -> int:
    """Return a number for states (n, d) as the caller passed them and labels (n,), which sites seldom share.

    It is made of comparisons, not of sums, so that neither the number of threads nor the unit of the states changes it.
    """
    d = states.shape[1]
    features = torch.linspace(0, d - 1, min(d, MARKED_FEATURES), device="cpu").long().to(states.device)
    some = states.detach()[:MARKED_ROWS, features]
    larger = (some[1:] > some[:-1]).cpu().contiguous().numpy().tobytes()
    return zlib.crc32(labels.cpu().contiguous().numpy().tobytes(), zlib.crc32(larger))
