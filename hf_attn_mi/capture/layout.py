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

    values_to_heads = output_to_heads = to_heads

    def output_from_heads(self, tensor: Tensor, like: Tensor) -> Tensor:
        """Inverse of `to_heads`; `like` has the leading dimensions to return to."""
        if self.dims == 5:
            first, heads, windows = like.shape[:3]
            return tensor.reshape(first, windows, heads, *tensor.shape[-2:]).transpose(1, 2)
        return tensor.reshape(*like.shape[:-2], *tensor.shape[-2:])


def head_layout(rows: Tensor, heads: int | None) -> HeadLayout | None:
    """Layout of attention rows (..., queries, keys), or None where it cannot be told.

    Args:
        rows: the rows as the model multiplies them.
        heads: number of heads the module states, None if none; needed for folded (batch * heads, q, k).
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
    """Letter orders that bring the operands of an einsum product to (batch..., heads, n, d)."""

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

    Letters that all three share stand for the batch, the last of them for the heads. Returns None for anything
    that is not one attention product.
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
