"""`torch.nn.functional.multi_head_attention_forward`: projections, rows and W_O inside one call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_attn_mi.capture.records import Projection

_SIGNATURE = inspect.signature(F.multi_head_attention_forward)


def multi_head_call(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[str, Any], Projection, Callable[[Tensor], Tensor]]:
    """Fields of the `AttentionCall`, its W_O, and a function head output -> projected output."""
    bound = _SIGNATURE.bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    heads = given["num_heads"]
    unbatched = given["query"].dim() == 2

    def split(tensor: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        tensor = tensor.unsqueeze(1) if unbatched else tensor
        projected = F.linear(tensor, weight, bias)
        return projected.reshape(*projected.shape[:2], heads, -1).permute(1, 2, 0, 3)

    if given["use_separate_proj_weight"]:
        weights = [given[f"{x}_proj_weight"] for x in "qkv"]
    else:
        weights = list(given["in_proj_weight"].chunk(3))
    biases = [None] * 3 if given["in_proj_bias"] is None else list(given["in_proj_bias"].chunk(3))
    query, key, value = (split(given[x], w, b) for x, w, b in zip(("query", "key", "value"), weights, biases))
    mask = _additive_mask(given, query, key, heads)
    scale = query.shape[-1] ** -0.5
    rows, logits = rows_and_logits(query, key, mask, scale)
    out_weight, out_bias = given["out_proj_weight"], given["out_proj_bias"]
    features = torch.arange(heads * value.shape[-1]).reshape(heads, -1)

    def again(output: Tensor) -> Tensor:
        projected = F.linear(output.permute(2, 0, 1, 3).flatten(2), out_weight, out_bias)
        return projected.squeeze(1) if unbatched else projected

    call = dict(
        query=query,
        key=key,
        value=value,
        mask=mask,
        scale=scale,
        is_causal=False,
        output=rows @ value,
        rows=rows,
        raw_logits=logits,
    )
    return call, Projection(out_weight.t(), out_bias, features), again


def rows_and_logits(query: Tensor, key: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Attention rows (zero where nothing may be seen) and logits, (batch, heads, queries, keys)."""
    scores = query @ key.transpose(-1, -2) * scale
    logits = scores if mask is None else scores + mask
    return logits.softmax(-1).nan_to_num(0.0), logits


def _additive_mask(given: dict[str, Any], query: Tensor, key: Tensor, heads: int) -> Tensor | None:
    mask, padding = given["attn_mask"], given["key_padding_mask"]
    if mask is None and padding is None:
        return None
    batch, length, keys = query.shape[0], query.shape[2], key.shape[2]
    total = torch.zeros(batch, 1, length, keys, dtype=query.dtype, device=query.device)
    if mask is not None:
        mask = mask.view(batch, heads, length, keys) if mask.dim() == 3 else mask
        total = total.masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else total + mask
    if padding is not None:
        padding = padding.reshape(batch, 1, 1, keys)
        total = total.masked_fill(padding, -torch.inf) if padding.dtype == torch.bool else total + padding
    return total
