"""Checks of arguments that several operations share."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_tensor(name: str, value: object) -> None:
    """Check that the value is a tensor with entries that can be read: strided, on a device, not quantized.

    Raises:
        InvalidInputError: it is not.
    """
    if not isinstance(value, Tensor):
        raise InvalidInputError(
            f"{name} is {type(value).__name__}: it must be a tensor, such as torch.as_tensor({name})"
        )
    kinds = {
        "nested": value.is_nested,
        "on the meta device": value.is_meta,
        "quantized": value.is_quantized,
        "sparse": value.layout != torch.strided,
    }
    for kind, accepted in kinds.items():
        if accepted:
            raise InvalidInputError(f"{name} is {kind}: it must be a plain tensor with its entries")


def check_floats(name: str, tensor: Tensor, dimensions: int) -> None:
    """Raise InvalidInputError unless the tensor is floating point, has these dimensions and none is empty."""
    check_tensor(name, tensor)
    if tensor.dtype not in FLOATS:
        raise InvalidInputError(f"{name} has dtype {tensor.dtype}: float16, bfloat16, float32 and float64 are allowed")
    if tensor.dim() != dimensions or 0 in tensor.shape:
        raise InvalidInputError(f"{name} has shape {tuple(tensor.shape)}: it needs {dimensions} dimensions, none empty")


def check_real(name: str, value: Tensor) -> None:
    """Raise InvalidInputError unless the value is a tensor of real floating point numbers."""
    check_tensor(name, value)
    if not value.is_floating_point():
        raise InvalidInputError(f"{name} is {value.dtype}: it must be a real floating point tensor")


def check_attention_weights(name: str, lowest: Tensor, highest: Tensor) -> None:
    """Raise InvalidInputError unless the smallest and the largest weight are those of attention rows."""
    if not (bool(lowest >= 0) and bool(highest < torch.inf)):
        raise InvalidInputError(
            f"{name} has negative, NaN or infinite weights at real keys: pass rows after the softmax"
        )


def read_positive(name: str, value: int) -> int:
    """Return the value if it is a positive int.

    Raises:
        InvalidInputError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidInputError(f"{name} is {shown(value)}: it must be an int of at least 1")
    return value


def read_states(states: Tensor) -> Tensor:
    """Return states as (sites, n, d), checked.

    Raises:
        InvalidInputError: not a floating point tensor of two or more dimensions, empty, or not finite.
    """
    check_real("states", states)
    if states.dim() < 2 or 0 in states.shape:
        raise InvalidInputError(f"states has shape {tuple(states.shape)}: it must be (n, d) or (..., n, d), not empty")
    flat = states.detach().reshape(-1, *states.shape[-2:])
    for site, part in enumerate(flat):
        # the extremes of a tensor with NaN are NaN, and finding them needs no copy, unlike isfinite().all()
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


def read_probabilities(name: str, probabilities: Tensor, shapes: list[tuple[int, ...]], device: torch.device) -> Tensor:
    """Return float64 probabilities whose rows sum to one.

    Args:
        name: the name of the argument, for the message.
        probabilities: any floating point dtype.
        shapes: the allowed shapes.
        device: where the result is placed.

    Raises:
        InvalidInputError: another dtype or shape, a negative or NaN entry, or a row whose sum is not one.
    """
    check_real(name, probabilities)
    if tuple(probabilities.shape) not in shapes:
        allowed = " or ".join(map(str, dict.fromkeys(shapes)))
        raise InvalidInputError(f"{name} has shape {tuple(probabilities.shape)}: it must be {allowed}")
    wide = probabilities.detach().to(device).double()
    total = wide.sum(-1, keepdim=True)
    tolerance = 1e-4 if probabilities.dtype in (torch.float32, torch.float64) else 0.05
    if not bool((wide >= 0).all()) or not bool(((total - 1).abs() <= tolerance).all()):
        raise InvalidInputError(
            f"{name} has rows that are not probabilities: none may be negative, and they sum to one"
        )
    return wide / total


def check_outputs(
    name: str, sums: Tensor, expected: Tensor, values: Tensor, queries: Tensor | int, dtype: torch.dtype
) -> None:
    """Raise InvalidInputError where outputs, summed over queries, are not what rows times values gives.

    Args:
        name: subject and verb of the message, such as "output is".
        sums: (heads, groups, head_dim) outputs summed over the real queries.
        expected: the same of rows times values.
        values: (heads, keys, head_dim).
        queries: number of real queries.
        dtype: the data type of the outputs; it sets the size of rounding errors.
    """
    half = dtype in (torch.float16, torch.bfloat16)
    limit = (5e-2 if half else 1e-3) * queries * values.abs().amax(dim=(1, 2))
    worst = (sums - expected).abs().amax(dim=(1, 2))
    if not bool((worst <= limit + 1e-30).all()):
        raise InvalidInputError(
            f"{name} not rows times values: the mean is off by {float((worst / queries).max()):.3g}. Masked keys or "
            "dropout in the model, or a wrong scale or mask? Pass the output of this attention, or None."
        )


def is_finite(tensor: Tensor) -> bool:
    """Whether no entry is NaN or infinite; one pass over the memory.

    Example:
        >>> is_finite(torch.tensor([1.0, 2.0])), is_finite(torch.tensor([1.0, torch.nan]))
        (True, False)
    """
    if not tensor.numel():
        return True
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    low, high = torch.aminmax(tensor.detach().permute(order))  # in memory order, which saves a copy
    return bool(torch.isfinite(low) & torch.isfinite(high))
