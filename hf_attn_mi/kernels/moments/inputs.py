"""Checks the arguments that neighbor counts and class moments share."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError


def read_states(states: Tensor) -> Tensor:
    """Return states as (sites, n, d), checked.

    Raises:
        InvalidInputError: not a floating point tensor of two or more dimensions, empty, or with NaN or infinite entries.
    """
    if not isinstance(states, Tensor):
        raise InvalidInputError(f"states is a {type(states).__name__}: it must be a torch.Tensor (..., n, d)")
    if not states.is_floating_point():
        raise InvalidInputError(f"states has dtype {states.dtype}: it must be a real floating point tensor")
    if states.dim() < 2 or 0 in states.shape:
        raise InvalidInputError(f"states has shape {tuple(states.shape)}: it must be (n, d) or (..., n, d), not empty")
    flat = states.detach().reshape(-1, *states.shape[-2:])
    for site, part in enumerate(flat):
        # max and min carry a NaN along and need no copy of the states, unlike isfinite().all()
        low, high = part.aminmax()
        if not bool(torch.isfinite(low) & torch.isfinite(high)):
            raise InvalidInputError(f"states has NaN or infinite entries (site {site}): leave these examples out")
    return flat


def read_labels(labels: Tensor, n: int, device: torch.device) -> Tensor:
    """Return (n,) labels as codes 0 ... K - 1 in the order of their values.

    Raises:
        InvalidInputError: not integers, or not one for each example.
    """
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.is_complex():
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise InvalidInputError(f"labels is {kind}: it must be a tensor of integers or bool, a class for each example")
    if tuple(labels.shape) != (n,):
        raise InvalidInputError(
            f"labels has shape {tuple(labels.shape)}, states has n = {n} examples: it must be ({n},)"
        )
    codes: Tensor = torch.unique(labels.to(device), return_inverse=True)[1]
    return codes


def read_permutations(permutations: Tensor | None, n: int, device: torch.device) -> Tensor | None:
    """Return (B, n) permutations of 0 ... n - 1 as long.

    Raises:
        InvalidInputError: not integers, not (B, n), or a row that is no permutation.
    """
    if permutations is None:
        return None
    if not isinstance(permutations, Tensor) or permutations.dtype not in (torch.int64, torch.int32):
        kind = permutations.dtype if isinstance(permutations, Tensor) else type(permutations).__name__
        raise InvalidInputError(f"permutations is {kind}: it must be a tensor of int64 or int32 indices (B, {n})")
    if permutations.dim() != 2 or permutations.shape[0] < 1 or permutations.shape[1] != n:
        raise InvalidInputError(
            f"permutations has shape {tuple(permutations.shape)}: it must be (B, {n}), B at least 1"
        )
    rows = permutations.to(device).long()
    wrong = (rows.sort(1).values != torch.arange(n, device=device)).any(1)
    if bool(wrong.any()):
        first = int(wrong.nonzero()[0, 0])
        raise InvalidInputError(
            f"row {first} of permutations is no permutation of 0 ... {n - 1}: use torch.randperm({n})"
        )
    return rows


def positive(name: str, value: int) -> int:
    """Return the value if it is a positive int.

    Raises:
        InvalidInputError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidInputError(f"{name} is {value!r}: it must be an int of at least 1")
    return value
