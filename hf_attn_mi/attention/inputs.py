"""Checks the arguments that the functions of this folder share and brings them to one shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError


@dataclass(frozen=True)
class AttentionRows:
    """KernelInputs with all leading dimensions flattened into one, otherwise as they came."""

    attention: Tensor  # (heads, queries, keys)
    values: Tensor  # (heads, keys, head_dim)
    allowed: Tensor  # (heads, queries or 1, keys) bool; 1: all queries see the same keys
    queries: Tensor  # (heads, queries) bool, False for pad queries
    lead: tuple[int, ...]  # the leading dimensions of the answer


@dataclass(frozen=True)
class CheckedRows:
    """KernelInputs with all leading dimensions flattened into one, everything that is not allowed set to zero."""

    attention: Tensor  # (heads, queries, keys), the dtype it came in
    values: Tensor  # (heads, keys, head_dim) float64
    allowed: Tensor  # (heads, queries or 1, keys) bool; 1: all queries see the same keys
    queries: Tensor  # (heads, queries) bool, False for pad queries
    lead: tuple[int, ...]  # the leading dimensions of the answer
    epsilon: float  # machine epsilon of the less precise input; float32's for half precision


def read_shapes(attention: Tensor, values: Tensor, mask: Tensor | None, query_mask: Tensor | None) -> AttentionRows:
    """Return the flattened arguments; their entries are not looked at.

    Leading dimensions of `attention` and `values` broadcast. For the shapes of the masks see `read_key_mask` and
    `read_query_mask`.

    Raises:
        InvalidInputError: wrong shapes or dtypes.
    """
    _check_floats("attention", attention, 2)
    _check_floats("values", values, 2)
    queries, keys = attention.shape[-2:]
    if values.shape[-2] != keys:
        raise InvalidInputError(
            f"values has {values.shape[-2]} keys (shape {tuple(values.shape)}), attention has {keys} "
            f"(shape {tuple(attention.shape)}): values must be (..., keys, head_dim)"
        )
    lead = broadcast_lead("attention", attention, values)
    allowed = read_key_mask(mask, lead, queries, keys, attention.device)
    real = read_query_mask(query_mask, lead, queries, attention.device)
    flat_attention = attention.expand(*lead, queries, keys).reshape(-1, queries, keys)
    flat_values = values.expand(*lead, keys, values.shape[-1]).reshape(-1, keys, values.shape[-1])
    return AttentionRows(flat_attention, flat_values, allowed, real, lead)


def read_heads(attention: Tensor, values: Tensor, mask: Tensor | None, query_mask: Tensor | None) -> CheckedRows:
    """Return the checked and flattened arguments, masked; shapes as in `read_shapes`.

    Raises:
        InvalidInputError: wrong shapes or dtypes, attention negative or not finite at an allowed key, values not finite
            there.
    """
    heads = read_shapes(attention, values, mask, query_mask)
    allowed, real = heads.allowed, heads.queries
    flat_attention = heads.attention.where(allowed & real[:, :, None], torch.zeros_like(heads.attention))
    flat_values = heads.values.double()
    flat_values = flat_values.where(allowed.any(1)[:, :, None], torch.zeros_like(flat_values))
    if not bool(torch.isfinite(flat_attention).all()) or bool((flat_attention < 0).any()):
        raise InvalidInputError(
            "attention has negative, NaN or infinite weights at real keys: pass rows after the softmax"
        )
    if not bool(torch.isfinite(flat_values).all()):
        raise InvalidInputError("values has NaN or infinite entries at real keys: mask these keys or mend the values")
    epsilon = max(_epsilon(attention.dtype), _epsilon(values.dtype))
    return CheckedRows(flat_attention, flat_values, allowed, real, heads.lead, epsilon)


def broadcast_lead(name: str, tensor: Tensor, values: Tensor) -> tuple[int, ...]:
    """Return the common leading dimensions (all but the last two) of a tensor and the values."""
    try:
        shape: tuple[int, ...] = tuple(np.broadcast_shapes(tensor.shape[:-2], values.shape[:-2]))
    except ValueError as error:
        raise InvalidInputError(
            f"the leading dimensions of {name} {tuple(tensor.shape[:-2])} and values "
            f"{tuple(values.shape[:-2])} do not broadcast"
        ) from error
    return shape


def read_key_mask(
    mask: Tensor | None, lead: tuple[int, ...], queries: int, keys: int, device: torch.device
) -> Tensor:  # (heads, queries or 1, keys)
    """Return which keys each query may see. The number of dimensions decides how a mask is read.

    As many as attention: (..., queries, keys), one set a row (causal, windowed). One less: (..., keys), leading
    dimensions broadcast. Fewer: the leading ones are attention's first, e.g. (batch, keys) for (batch, heads,
    queries, keys).
    """
    total = len(lead) + 2
    if mask is None:
        return torch.ones(1, 1, keys, dtype=torch.bool, device=device).expand(_size(lead), 1, keys)
    if mask.dtype != torch.bool:
        raise InvalidInputError(
            f"mask has dtype {mask.dtype}: it must be bool, True where the key is real (mask.bool())"
        )
    if not 1 <= mask.dim() <= total or mask.shape[-1] != keys:
        raise InvalidInputError(
            f"mask has shape {tuple(mask.shape)}: it must end in keys = {keys} and have 1 to {total} dimensions"
        )
    if mask.dim() < total:
        mask = mask.reshape(*mask.shape[:-1], *(1,) * (total - 1 - mask.dim()), 1, keys)
    rows = mask.shape[-2]
    if rows == queries > 1 and bool((mask == mask[..., :1, :]).all()):
        mask, rows = mask[..., :1, :], 1
    try:
        wide = mask.expand(*lead, rows, keys)
    except RuntimeError as error:
        raise InvalidInputError(
            f"mask of shape {tuple(mask.shape)} does not fit the leading dimensions {lead}"
        ) from error
    if rows not in (1, queries):
        raise InvalidInputError(f"mask has {rows} rows, attention has {queries} queries")
    return wide.reshape(-1, rows, keys).to(device)


def read_query_mask(query_mask: Tensor | None, lead: tuple[int, ...], queries: int, device: torch.device) -> Tensor:
    """Return (heads, queries) bool, True where the query is real; the mask is read as a key mask is."""
    return read_key_mask(query_mask, lead, 1, queries, device).expand(-1, 1, queries)[:, 0]


def _size(lead: tuple[int, ...]) -> int:
    return int(torch.Size(lead).numel())


def _epsilon(dtype: torch.dtype) -> float:
    # Half precision is computed in float32 or float64; its own epsilon times the number of keys would exceed one.
    return float(torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps)


def _check_floats(name: str, tensor: Tensor, dimensions: int) -> None:
    if not tensor.is_floating_point():
        raise InvalidInputError(f"{name} has dtype {tensor.dtype}: it must be a floating point tensor")
    if tensor.dim() < dimensions or 0 in tensor.shape:
        raise InvalidInputError(
            f"{name} has shape {tuple(tensor.shape)}: it needs {dimensions} dimensions or more, none empty"
        )
