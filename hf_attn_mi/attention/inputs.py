"""Checks the arguments that the functions of this package share and brings them to one shape."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.kernels.inputs import check_tensor


@dataclass(frozen=True)
class AttentionRows:
    """Attention and values with all leading dimensions flattened into one ("heads"), and which entries are real."""

    attention: Tensor  # (heads, queries, keys), in the dtype of the argument
    values: Tensor  # (heads, keys, head_dim)
    allowed: Tensor  # (heads, queries or 1, keys) bool; 1: all queries see the same keys
    queries: Tensor  # (heads, queries) bool, False for padding
    lead: tuple[int, ...]  # the leading dimensions of the result
    epsilon: float  # machine epsilon of the less precise argument; float32's for half precision


def read_shapes(attention: Tensor, values: Tensor, mask: Tensor | None, query_mask: Tensor | None) -> AttentionRows:
    """Return the flattened arguments; their shapes and dtypes are checked, their entries are not.

    Leading dimensions of `attention` and `values` broadcast. For the shapes of the masks see `read_key_mask` and
    `read_query_mask`.

    Raises:
        InvalidInputError: wrong shapes or dtypes.
    """
    for name, tensor in (("attention", attention), ("values", values)):
        check_tensor(name, tensor)
        if not tensor.is_floating_point():
            raise InvalidInputError(f"{name} has dtype {tensor.dtype}: it must be a floating point tensor")
        if tensor.dim() < 2 or 0 in tensor.shape:
            raise InvalidInputError(
                f"{name} has shape {tuple(tensor.shape)}: it needs 2 dimensions or more, none empty"
            )
    if attention.device != values.device:
        raise InvalidInputError(f"attention is on {attention.device}, values on {values.device}: move one of them")
    queries, keys = attention.shape[-2:]
    if values.shape[-2] != keys:
        raise InvalidInputError(
            f"values has {values.shape[-2]} keys (shape {tuple(values.shape)}), attention has {keys} "
            f"(shape {tuple(attention.shape)}): values must be (..., keys, head_dim)"
        )
    try:
        lead: tuple[int, ...] = tuple(np.broadcast_shapes(attention.shape[:-2], values.shape[:-2]))
    except ValueError as error:
        raise InvalidInputError(
            f"the leading dimensions of attention {tuple(attention.shape[:-2])} and values "
            f"{tuple(values.shape[:-2])} do not broadcast"
        ) from error
    allowed = read_key_mask(mask, lead, queries, keys, attention.device)
    real = read_query_mask(query_mask, lead, queries, attention.device)
    flat_attention = attention.expand(*lead, queries, keys).reshape(-1, queries, keys)
    flat_values = values.expand(*lead, keys, values.shape[-1]).reshape(-1, keys, values.shape[-1])
    epsilon = max(_epsilon(attention.dtype), _epsilon(values.dtype))
    return AttentionRows(flat_attention, flat_values, allowed, real, lead, epsilon)


def read_heads(
    attention: Tensor, values: Tensor, mask: Tensor | None, query_mask: Tensor | None = None
) -> AttentionRows:
    """Return the flattened arguments with checked entries: values in float64, zero wherever nothing is allowed.

    Raises:
        InvalidInputError: wrong shapes or dtypes, attention negative or not finite at an allowed key, values not finite
            there.
    """
    heads = read_shapes(attention, values, mask, query_mask)
    weights = heads.attention.where(heads.allowed & heads.queries[:, :, None], torch.zeros_like(heads.attention))
    points = heads.values.double()
    points = points.where(heads.allowed.any(1)[:, :, None], torch.zeros_like(points))
    if not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()):
        raise InvalidInputError(
            "attention has negative, NaN or infinite weights at real keys: pass rows after the softmax"
        )
    if not bool(torch.isfinite(points).all()):
        raise InvalidInputError(
            "values has NaN or infinite entries at real keys: mask these keys or replace the values"
        )
    return replace(heads, attention=weights, values=points)


def read_key_mask(
    mask: Tensor | None, lead: tuple[int, ...], queries: int, keys: int, device: torch.device
) -> Tensor:  # (heads, queries or 1, keys)
    """Return which keys each query may attend to. The number of dimensions decides how a mask is read.

    As many dimensions as attention: (..., queries, keys), a set of keys for each row (causal, windowed). One less:
    (..., keys), leading dimensions broadcast. Fewer: the leading dimensions are the first ones of attention, e.g.
    (batch, keys) for attention (batch, heads, queries, keys).
    """
    total = len(lead) + 2
    if mask is None:
        return torch.ones(1, 1, keys, dtype=torch.bool, device=device).expand(_size(lead), 1, keys)
    check_tensor("mask", mask)
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
    """Return (heads, queries) bool, True where the query is real; read like a key mask."""
    return read_key_mask(query_mask, lead, 1, queries, device).expand(-1, 1, queries)[:, 0]


def _size(lead: tuple[int, ...]) -> int:
    return int(torch.Size(lead).numel())


def _epsilon(dtype: torch.dtype) -> float:
    # Half precision is computed in float32 or float64; epsilon of float16 times the number of keys would exceed one.
    return float(torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps)
