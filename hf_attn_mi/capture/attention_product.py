"""Reads attention products, in the layout of the model, into the fields of an `AttentionCall`.

The products: rows times values as a matrix product or einsum, a fused scaled-dot-product call, a multi-head call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_attn_mi.capture.records import Projection, repeat_heads
from hf_attn_mi.capture.torch_ops import LogitsTag, RowsTag

_SIGNATURE = inspect.signature(F.multi_head_attention_forward)


@dataclass(frozen=True)
class HeadLayout:
    """Which leading dimensions of a batched matrix product are batch and heads."""

    dims: int
    batch: int
    heads: int

    def to_heads(self, tensor: Tensor) -> Tensor:
        """(leading..., n, d) -> (batch, heads, n, d)."""
        if self.dims == 2:
            return tensor[None, None]
        if self.dims == 3:
            return tensor.reshape(self.batch, self.heads, *tensor.shape[-2:])
        if self.dims == 5:  # (batch, heads, windows, n, d): fold the windows into the batch
            return tensor.transpose(1, 2).reshape(self.batch, self.heads, *tensor.shape[-2:])
        return tensor

    values_to_heads = output_to_heads = to_heads

    def output_from_heads(self, tensor: Tensor, like: Tensor) -> Tensor:
        """Inverse of `to_heads`; `like` has the original leading dimensions."""
        if self.dims == 5:
            first, heads, windows = like.shape[:3]
            return tensor.reshape(first, windows, heads, *tensor.shape[-2:]).transpose(1, 2)
        return tensor.reshape(*like.shape[:-2], *tensor.shape[-2:])


def head_layout(rows: Tensor, heads: int | None) -> HeadLayout | None:
    """Return the layout of attention rows (..., queries, keys), None if it cannot be determined.

    Args:
        rows: the rows as the model multiplies them.
        heads: number of heads that the module states, or None; needed for rows of shape (batch * heads, q, k).
    """
    dims = rows.dim()
    if dims == 4:
        return HeadLayout(4, rows.shape[0], rows.shape[1])
    if dims == 5:
        return HeadLayout(5, rows.shape[0] * rows.shape[2], rows.shape[1])
    if dims == 2:
        return HeadLayout(2, 1, 1)
    if dims == 3 and heads is not None and rows.shape[0] % heads == 0:
        return HeadLayout(3, rows.shape[0] // heads, heads)
    return None


@dataclass(frozen=True)
class EinsumLayout:
    """Orders of dimensions that bring the operands of an einsum product to (batch..., heads, n, d)."""

    rows: tuple[int, ...]
    values: tuple[int, ...]
    output: tuple[int, ...]

    def to_heads(self, tensor: Tensor) -> Tensor:
        """Rows or logits -> (batch, heads, queries, keys)."""
        return tensor.permute(self.rows).flatten(0, -4)

    def values_to_heads(self, tensor: Tensor) -> Tensor:
        """Values -> (batch, heads, keys, head_dim)."""
        return tensor.permute(self.values).flatten(0, -4)

    def output_to_heads(self, tensor: Tensor) -> Tensor:
        """Result -> (batch, heads, queries, head_dim)."""
        return tensor.permute(self.output).flatten(0, -4)

    def output_from_heads(self, tensor: Tensor, like: Tensor) -> Tensor:
        """Inverse of `output_to_heads`."""
        back = tuple(sorted(range(len(self.output)), key=self.output.__getitem__))
        return tensor.reshape([like.shape[i] for i in self.output[:-3]] + list(tensor.shape[1:])).permute(back)


def einsum_layout(equation: str, rows_first: bool, dims: int) -> EinsumLayout | None:
    """Read 'bnij,jbnd->ibnd' as rows (b, n, i, j), values (b, n, j, d), output (b, n, i, d).

    Letters that all three share are the batch, the last of them is the heads. Returns None for any other product.
    """
    operands, arrow, result = equation.replace(" ", "").partition("->")
    terms = operands.split(",")
    if not arrow or len(terms) != 2:
        return None
    rows, values = terms if rows_first else terms[::-1]
    if "..." in rows:  # leading dimensions without letters
        letters = "".join(c for c in "ABCDEFGHIJ" if c not in equation)[: dims - len(rows) + 3]
        rows, values, result = (term.replace("...", letters) for term in (rows, values, result))
    key = rows[-1]
    shared = [c for c in rows[:-1] if c in values and c in result]
    query = [c for c in rows[:-1] if c not in values and c in result]
    width = [c for c in values if c not in rows and c in result]
    if len(shared) < 2 or len(query) != 1 or len(width) != 1 or key not in values or key in result:
        return None
    if not len(rows) == len(values) == len(result) == len(shared) + 2 == dims:
        return None
    return EinsumLayout(
        tuple(rows.index(c) for c in (*shared, query[0], key)),
        tuple(values.index(c) for c in (*shared, key, width[0])),
        tuple(result.index(c) for c in (*shared, query[0], width[0])),
    )


@dataclass(frozen=True)
class Product:
    """One attention product.

    Attributes:
        call: the fields of the `AttentionCall` that are known before W_O.
        to_result: (batch, heads, queries, head_dim) output of new rows -> the result in the model's layout.
    """

    call: dict[str, Any]
    to_result: Callable[[Tensor], Tensor]

    def features(self) -> Tensor:
        """Return head * head_dim + coordinate for every element of the result, in the model's layout."""
        output = self.call["output"]
        _, heads, _, width = output.shape
        numbers = torch.arange(heads * width, dtype=torch.int32, device=output.device).view(1, heads, 1, width)
        return self.to_result(numbers.expand(output.shape))


def einsum_product(
    equation: str, rows_first: bool, rows: Tensor, values: Tensor, result: Tensor, tag: RowsTag
) -> Product | str:
    """Return rows times values written as an einsum; the reason, as text, where it is something else."""
    layout = einsum_layout(equation, rows_first, rows.dim())
    if layout is None or rows.shape[-1] != values.permute(layout.values).shape[-2]:
        return f"a softmax enters einsum {equation!r}, which is not rows times values"
    return _product(layout, rows, values, result, tag)


def columns_of(index: Any, rows: Tensor) -> tuple[int, int] | None:
    """Return (start, stop) where an index selects consecutive columns of all rows, else None."""
    index = index if isinstance(index, tuple) else (index,)
    if index and index[0] is Ellipsis:
        index = (slice(None),) * (rows.dim() - len(index) + 1) + index[1:]
    if len(index) != rows.dim() or any(item != slice(None) for item in index[:-1]) or not isinstance(index[-1], slice):
        return None
    start, stop, step = index[-1].indices(rows.shape[-1])
    return (start, stop) if step == 1 else None


def windowed_values(equation: str, rows: Tensor, values: Tensor, result: Tensor) -> Tensor | None:
    """Return the values of 'BHNKG,BHGF->BHNKF' with the windows N that rows and result share, (B, H, N, G, F)."""
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


def matrix_product(rows: Tensor, values: Tensor, result: Tensor, tag: RowsTag, heads: int | None) -> Product | str:
    """Return rows times values as a batched matrix product; the reason, as text, where the heads are not known."""
    layout = head_layout(rows, heads)
    shared = rows.dim() == values.dim() == 4 and values.shape[:2] == (rows.shape[0], 1)  # one head of values for all
    if layout is None or rows.dim() != values.dim() or (values.shape[:-2] != rows.shape[:-2] and not shared):
        return f"cannot determine the heads in attention rows of shape {tuple(rows.shape)}"
    return _product(layout, rows, values, result, tag)


def _product(layout: HeadLayout | EinsumLayout, rows: Tensor, values: Tensor, result: Tensor, tag: RowsTag) -> Product:
    head_rows = layout.to_heads(rows)
    logits = layout.to_heads(tag.logits) if tag.logits.shape == rows.shape else None
    call = dict(
        query=None,
        key=None,
        value=layout.values_to_heads(values),
        mask=None,
        scale=None,
        is_causal=False,
        output=layout.output_to_heads(result),
        rows=head_rows,
        raw_logits=logits,
    )
    if tag.source is not None and tag.source.is_scaled_product and isinstance(layout, HeadLayout):
        call.update(_query_and_key(tag.source, layout, head_rows.shape))
    return Product(call, lambda output: layout.output_from_heads(output, result))


def fused_product(bound: dict[str, Any], result: Tensor, heads: int | None) -> Product | str:
    """Return the product of a scaled-dot-product call; the reason, as text, where the heads are not known."""
    query, key, value, mask = bound["query"], bound["key"], bound["value"], bound.get("attn_mask")
    layout = head_layout(query, heads)
    if layout is None or query.dim() != value.dim() or (mask is not None and query.dim() == 5):
        return f"cannot determine the heads in a query of shape {tuple(query.shape)}"
    shared = layout if value.shape[:-2] == query.shape[:-2] else head_layout(value, None)
    if shared is None or layout.heads % shared.heads:
        return f"cannot determine the heads in values of shape {tuple(value.shape)}"
    if mask is not None and mask.dim() < 4:
        folded = mask.dim() == 3 and query.dim() == 3 and mask.shape[0] == query.shape[0]
        mask = layout.to_heads(mask) if folded else mask.reshape(*([1] * (4 - mask.dim())), *mask.shape)
    call = dict(
        query=layout.to_heads(query),
        key=shared.to_heads(key),
        value=shared.to_heads(value),
        mask=mask,
        scale=bound.get("scale") or query.shape[-1] ** -0.5,
        is_causal=bool(bound.get("is_causal", False)),
        output=layout.to_heads(result),
        rows=None,
        raw_logits=None,
    )
    return Product(call, lambda output: layout.output_from_heads(output, result))


def share_heads(call: dict[str, Any], groups: int, check: bool) -> None:
    """Keep one of each key and value head where the model repeated each of them `groups` times."""
    value, heads = call["value"], call["output"].shape[1]
    if groups == 1 or value.shape[1] != heads or heads % groups:
        return
    if check and not torch.equal(repeat_heads(value[:, ::groups], heads), value):
        return
    call["value"] = value[:, ::groups]
    call["key"] = None if call["key"] is None else call["key"][:, ::groups]


def _query_and_key(source: LogitsTag, layout: HeadLayout, shape: torch.Size) -> dict[str, Any]:
    """Return query, key, scale and bias where the logits are one scaled product plus one added tensor."""
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


def multi_head_call(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[str, Any], Projection, Callable[[Tensor], Tensor]]:
    """Read a call of `torch.nn.functional.multi_head_attention_forward`, which contains W_O.

    Returns:
        The fields of the `AttentionCall`, its W_O, and a function head output -> projected output.
    """
    bound = _SIGNATURE.bind(*args, **kwargs)
    bound.apply_defaults()
    arguments = bound.arguments
    heads = arguments["num_heads"]
    unbatched = arguments["query"].dim() == 2

    def split(tensor: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        tensor = tensor.unsqueeze(1) if unbatched else tensor
        projected = F.linear(tensor, weight, bias)
        return projected.reshape(*projected.shape[:2], heads, -1).permute(1, 2, 0, 3)

    if arguments["use_separate_proj_weight"]:
        weights = [arguments[f"{x}_proj_weight"] for x in "qkv"]
    else:
        weights = list(arguments["in_proj_weight"].chunk(3))
    biases = [None] * 3 if arguments["in_proj_bias"] is None else list(arguments["in_proj_bias"].chunk(3))
    query, key, value = (split(arguments[x], w, b) for x, w, b in zip(("query", "key", "value"), weights, biases))
    mask = _additive_mask(arguments, query, key, heads)
    scale = query.shape[-1] ** -0.5
    rows, logits = rows_and_logits(query, key, mask, scale)
    out_weight, out_bias = arguments["out_proj_weight"], arguments["out_proj_bias"]
    features = torch.arange(heads * value.shape[-1]).reshape(heads, -1)

    def project(output: Tensor) -> Tensor:
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
    return call, Projection(out_weight.t(), out_bias, features), project


def rows_and_logits(query: Tensor, key: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Return attention rows (zero where no key is allowed) and logits, (batch, heads, queries, keys)."""
    scores = query @ key.transpose(-1, -2) * scale
    logits = scores if mask is None else scores + mask
    return logits.softmax(-1).nan_to_num(0.0), logits


def _additive_mask(arguments: dict[str, Any], query: Tensor, key: Tensor, heads: int) -> Tensor | None:
    mask, padding = arguments["attn_mask"], arguments["key_padding_mask"]
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
