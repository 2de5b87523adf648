"""Reads one attention product, in the layout of the model, into the fields of an `AttentionCall`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.capture import torch_ops as ops
from hf_attn_mi.capture.layout import EinsumLayout, HeadLayout, einsum_layout, head_layout
from hf_attn_mi.capture.records import repeat_heads


@dataclass(frozen=True)
class Product:
    """One attention product.

    Attributes:
        call: fields of the `AttentionCall` that are known before W_O.
        features: head * head_dim + coordinate for every element of the result, in the model's layout.
        again: (batch, heads, queries, head_dim) output of new rows -> the result in the model's layout.
        groups: query heads that share one key/value head.
    """

    call: dict[str, Any]
    features: Callable[[], Tensor]
    again: Callable[[Tensor], Tensor]


def numbered(output: Tensor) -> Tensor:
    """head * head_dim + coordinate for every element of (batch, heads, queries, head_dim)."""
    _, heads, _, width = output.shape
    numbers = torch.arange(heads * width, dtype=torch.int32, device=output.device).view(1, heads, 1, width)
    return numbers.expand(output.shape)


def einsum_product(
    equation: str, rows_first: bool, rows: Tensor, values: Tensor, result: Tensor, tag: ops.Rows
) -> Product | str:
    """Rows times values written as an einsum; a sentence where it is something else."""
    layout = einsum_layout(equation, rows_first, rows.dim())
    if layout is None or rows.shape[-1] != values.permute(layout.values).shape[-2]:
        return f"a softmax enters einsum {equation!r}, which is not rows times values"
    return _product(layout, rows, values, result, tag)


def columns_of(index: Any, rows: Tensor) -> tuple[int, int] | None:
    """(start, stop) where an index takes whole rows and a run of their columns, else None."""
    index = index if isinstance(index, tuple) else (index,)
    if index and index[0] is Ellipsis:
        index = (slice(None),) * (rows.dim() - len(index) + 1) + index[1:]
    if len(index) != rows.dim() or any(item != slice(None) for item in index[:-1]) or not isinstance(index[-1], slice):
        return None
    start, stop, step = index[-1].indices(rows.shape[-1])
    return (start, stop) if step == 1 else None


def windowed_values(equation: str, rows: Tensor, values: Tensor, result: Tensor) -> Tensor | None:
    """Values of 'BHNKG,BHGF->BHNKF' with the window letter N that rows and result share, (B, H, N, G, F)."""
    operands, _, out = equation.replace(" ", "").partition("->")
    left, _, right = operands.partition(",")
    if len(left) != rows.dim() or len(out) != result.dim() or out[:-1] != left[:-1] or out[-1] not in right:
        return None
    lead, key, width = left[:-2], left[-1], out[-1]
    if set(right) - set(lead) != {key, width} or len(lead) != 3:
        return None
    order = [right.index(c) for c in (*lead, key, width) if c in right]
    full = values.permute(order)
    for i, letter in enumerate(lead):
        if letter not in right:
            full = full.unsqueeze(i)
    return full.expand(*rows.shape[:-2], rows.shape[-1], values.shape[right.index(width)])


def matrix_product(rows: Tensor, values: Tensor, result: Tensor, tag: ops.Rows, heads: int | None) -> Product | str:
    """Rows times values as a batched matrix product; a sentence where the heads cannot be told."""
    layout = head_layout(rows, heads)
    one = rows.dim() == values.dim() == 4 and values.shape[:2] == (rows.shape[0], 1)  # one head of values serves all
    if layout is None or rows.dim() != values.dim() or (values.shape[:-2] != rows.shape[:-2] and not one):
        return f"cannot tell the heads in attention rows of shape {tuple(rows.shape)}"
    return _product(layout, rows, values, result, tag)


def _product(layout: HeadLayout | EinsumLayout, rows: Tensor, values: Tensor, result: Tensor, tag: ops.Rows) -> Product:
    output, own = layout.output_to_heads(result), layout.to_heads(rows)
    logits = layout.to_heads(tag.logits) if tag.logits.shape == rows.shape else None
    call = dict(
        query=None,
        key=None,
        value=layout.values_to_heads(values),
        mask=None,
        scale=None,
        is_causal=False,
        output=output,
        rows=own,
        raw_logits=logits,
    )
    if tag.source is not None and tag.source.plain and isinstance(layout, HeadLayout):
        call.update(_query_and_key(tag.source, layout, own.shape))
    return Product(
        call,
        lambda: layout.output_from_heads(numbered(output), result),
        lambda new: layout.output_from_heads(new, result),
    )


def fused_product(bound: dict[str, Any], result: Tensor, heads: int | None) -> Product | str:
    """A scaled-dot-product call; a sentence where the heads cannot be told."""
    query, key, value, mask = bound["query"], bound["key"], bound["value"], bound.get("attn_mask")
    layout = head_layout(query, heads)
    if layout is None or query.dim() != value.dim() or (mask is not None and query.dim() == 5):
        return f"cannot tell the heads in a query of shape {tuple(query.shape)}"
    shared = layout if value.shape[:-2] == query.shape[:-2] else head_layout(value, None)
    if shared is None or layout.heads % shared.heads:
        return f"cannot tell the heads in values of shape {tuple(value.shape)}"
    if mask is not None and mask.dim() < 4:
        folded = mask.dim() == 3 and query.dim() == 3 and mask.shape[0] == query.shape[0]
        mask = layout.to_heads(mask) if folded else mask.reshape(*([1] * (4 - mask.dim())), *mask.shape)
    output = layout.to_heads(result)
    call = dict(
        query=layout.to_heads(query),
        key=shared.to_heads(key),
        value=shared.to_heads(value),
        mask=mask,
        scale=bound.get("scale") or query.shape[-1] ** -0.5,
        is_causal=bool(bound.get("is_causal", False)),
        output=output,
        rows=None,
        raw_logits=None,
    )
    return Product(
        call,
        lambda: layout.output_from_heads(numbered(output), result),
        lambda new: layout.output_from_heads(new, result),
    )


def share_heads(call: dict[str, Any], groups: int, check: bool) -> None:
    """Take key and value heads once where the model repeated each of them `groups` times."""
    value, heads = call["value"], call["output"].shape[1]
    if groups == 1 or value.shape[1] != heads or heads % groups:
        return
    if check and not torch.equal(repeat_heads(value[:, ::groups], heads), value):
        return
    call["value"] = value[:, ::groups]
    call["key"] = None if call["key"] is None else call["key"][:, ::groups]


def _query_and_key(source: ops.Logits, layout: HeadLayout, shape: torch.Size) -> dict[str, Any]:
    """Query, key, scale and bias where the logits are one scaled product plus one added tensor."""
    if source.left.dim() != layout.dims or source.right.dim() != layout.dims:
        return {}
    query, key = layout.to_heads(source.left), layout.to_heads(source.right).transpose(-1, -2)
    if query.shape[:3] != shape[:3] or key.shape[-2] != shape[-1] or key.shape[1] != query.shape[1]:
        return {}
    bias = source.bias
    if bias is not None and bias.dim() not in (layout.dims, 4):
        return {}
    if bias is not None and bias.dim() == 3:
        bias = layout.to_heads(bias) if bias.shape[0] == layout.batch * layout.heads else bias[:, None]
    return dict(query=query, key=key, scale=source.scale, mask=bias)
