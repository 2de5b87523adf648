"""The definition of `effective_rows` and `received_weights`: singular value decompositions, in the arguments' dtype."""

from __future__ import annotations

import torch
from torch import Tensor


def reference_effective_rows(
    attention: Tensor, values: Tensor, allowed: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Return A P (heads, queries, keys), row by row, and the rank (heads, queries) of each row's values.

    P projects on the column space of the values of the row's own keys. Rows with n <= rank come back as they are. The
    affine form is that of values with one more, constant column.

    Args:
        attention: (heads, queries, keys), zero where not allowed.
        values: (heads, keys, head_dim).
        allowed: bool, as attention.
        epsilon: singular values up to max(n, d) * epsilon times the largest count as zero.
    """
    effective, rank = attention.clone(), torch.zeros(attention.shape[:2], dtype=torch.long)
    for h in range(len(attention)):
        for keys in torch.unique(allowed[h], dim=0):
            if not bool(keys.any()):
                continue
            basis, sizes, _ = torch.linalg.svd(values[h, keys], full_matrices=False)
            basis = basis[:, sizes > max(len(basis), values.shape[2]) * epsilon * sizes[0]]
            members = (allowed[h] == keys).all(-1)
            rank[h, members] = basis.shape[1]
            if len(basis) > basis.shape[1]:
                block = torch.zeros(int(members.sum()), attention.shape[2], dtype=attention.dtype)
                block[:, keys] = attention[h][members][:, keys] @ basis @ basis.T
                effective[h, members] = block
    return effective, rank


def reference_received_weights(outputs: Tensor, values: Tensor, epsilon: float) -> Tensor:
    """Return mean_i o_i V^+, (batch, heads, keys), in float64.

    Args:
        outputs: (batch, heads, queries, head_dim).
        values: (batch, heads, keys, head_dim).
        epsilon: singular values up to max(n, d) * epsilon times the largest count as zero.
    """
    inverse: Tensor = torch.linalg.pinv(values.double(), rtol=max(values.shape[2:]) * epsilon)
    return (outputs.double().mean(2, keepdim=True) @ inverse)[:, :, 0]
