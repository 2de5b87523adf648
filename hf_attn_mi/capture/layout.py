"""The model's own tensor layouts <-> (batch, heads, n, d)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class HeadLayout:
    """How leading dimensions of a batched matrix product stand for batch and heads."""

    dims: int
    batch: int
    heads: int

    def to_heads(self, tensor: Tensor) -> Tensor:
        """(leading..., n, d) -> (batch, heads, n, d)."""
        if self.dims == 2:
            return tensor[None, None]
        if self.dims == 3:
            return tensor.reshape(self.batch, self.heads, *tensor.shape[-2:])
        if self.dims == 5:  # (batch, heads, windows, n, d): windows are folded into the batch
            return tensor.transpose(1, 2).reshape(self.batch, self.heads, *tensor.shape[-2:])
        return tensor

    def from_heads(self, tensor: Tensor, like: Tensor) -> Tensor:
        """Inverse of `to_heads`; `like` has the leading dimensions to return to."""
        if self.dims == 5:
            first, heads, windows = like.shape[:3]
            return tensor.reshape(first, windows, heads, *tensor.shape[-2:]).transpose(1, 2)
        return tensor.reshape(*like.shape[:-2], *tensor.shape[-2:])


def head_layout(rows: Tensor, heads: int | None, batch: int | None) -> HeadLayout | None:
    """Layout of attention rows (..., queries, keys), or None where it cannot be told.

    Args:
        rows: the rows as the model multiplies them.
        heads: number of heads the module states, None if none.
        batch: batch size of the model's input, used for folded (batch * heads, q, k) where no count is stated.
    """
    dims = rows.dim()
    if dims == 4:
        return HeadLayout(4, rows.shape[0], rows.shape[1])
    if dims == 5:
        return HeadLayout(5, rows.shape[0] * rows.shape[2], rows.shape[1])
    if dims == 2:
        return HeadLayout(2, 1, 1)
    if dims != 3:
        return None
    lead = rows.shape[0]
    if heads is not None and lead % heads == 0:
        return HeadLayout(3, lead // heads, heads)
    if batch and lead % batch == 0:
        return HeadLayout(3, batch, lead // batch)
    return None


@dataclass(frozen=True)
class EinsumLayout:
    """Letter orders that bring the operands of an einsum product to (batch, heads, n, d) and back."""

    rows: tuple[int, ...]
    values: tuple[int, ...]
    output: tuple[int, ...]


def einsum_layout(equation: str, rows_first: bool) -> EinsumLayout | None:
    """Read 'bnij,jbnd->ibnd' as rows (b, n, i, j), values (b, n, j, d), output (b, n, i, d).

    Returns None for anything that is not one attention product over four letters.
    """
    terms, arrow, result = equation.replace(" ", "").partition("->")
    operands = terms.split(",")
    if not arrow or len(operands) != 2:
        return None
    rows, values = operands if rows_first else operands[::-1]
    if len(rows) != 4 or len(values) != 4 or len(result) != 4:
        return None
    key = rows[-1]
    shared = [c for c in rows[:-1] if c in values and c in result]
    query = [c for c in rows[:-1] if c not in values and c in result]
    width = [c for c in values if c not in rows and c in result]
    if len(shared) != 2 or len(query) != 1 or len(width) != 1 or key not in values or key in result:
        return None
    order_rows, order_values = [*shared, query[0], key], [*shared, key, width[0]]
    order_output = [*shared, query[0], width[0]]
    return EinsumLayout(
        tuple(rows.index(c) for c in order_rows),
        tuple(values.index(c) for c in order_values),
        tuple(result.index(c) for c in order_output),
    )


def inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation that undoes `order`."""
    return tuple(sorted(range(len(order)), key=order.__getitem__))
