"""The column space of values through their Gram matrix: rank, pseudo-inverse factor, orthonormal basis."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

DOUBLE_EPSILON = torch.finfo(torch.float64).eps
WELL_CONDITIONED = 1e3  # up to this condition number float32 products with the whitening keep four digits and more
BASIS_CHUNK = 1 << 20  # entries of values brought to float64 at a time


@dataclass(frozen=True)
class ValueBasis:
    """Orthonormal basis of the column space of each head's values, and how well it is determined."""

    basis: Tensor  # (heads, keys, head_dim) U = V W, columns orthonormal, zero beyond the rank
    whitening: Tensor  # (heads, head_dim, head_dim) W, W W^T = (V^T V)^+
    rank: Tensor  # (heads,) long
    condition: Tensor  # (heads,) float64, ||V||_F ||V^+||_F; 0 if V is zero


def epsilon_of(*tensors: Tensor | None) -> float:
    """Return the machine epsilon that decides ranks: of float64 where all are float64, else of float32.

    Half precision is computed in float32; its own epsilon times the number of keys would exceed one.

    Example:
        >>> epsilon_of(torch.ones(1, dtype=torch.bfloat16)) == 2.0**-23
        True
    """
    wide = all(tensor is None or tensor.dtype == torch.float64 for tensor in tensors)
    return float(torch.finfo(torch.float64 if wide else torch.float32).eps)


def rank_cut(keys: Tensor, dim: int, epsilon: float) -> Tensor:
    """Return the share of the largest eigenvalue of V^T V up to which an eigenvalue counts as zero.

    Singular values up to max(n, d) * epsilon times the largest count as zero; a float64 Gram matrix cannot tell
    those below sqrt(max(n, d) * 2e-16) apart, which only matters for float64 input.

    Example:
        >>> rank_cut(torch.tensor([4]), 2, 0.5)
        tensor([4.], dtype=torch.float64)
    """
    size = keys.clamp_min(dim).double()
    return torch.maximum((size * epsilon) ** 2, size * DOUBLE_EPSILON)


def inverse_factor(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return L^-1 of the Cholesky factor L, and a lower bound of the smallest eigenvalue; 0 if there is no factor.

    1 / ||L^-1||_F^2 is the bound: ||L^-1||_F^2 is the sum of the reciprocal eigenvalues.

    Args:
        gram: (..., dim, dim) float64.

    Example:
        >>> inverse_factor(torch.eye(1, dtype=torch.float64) * 4)[1]
        tensor(4., dtype=torch.float64)
    """
    factor, failed = torch.linalg.cholesky_ex(gram)
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    factored = failed == 0
    if not bool(factored.all()):
        factor = torch.where(factored[..., None, None], factor, identity)
    inverse = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
    return inverse, factored / torch.linalg.vector_norm(inverse, dim=(-2, -1)).square()


def whiten(gram: Tensor, cut: Tensor, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return W with W W^T = gram^+, and the rank, of a batch of float64 Gram matrices.

    Args:
        gram: (batch, dim, dim).
        cut: (batch,) eigenvalues up to `cut` times the largest of `scale` count as zero.
        scale: the matrix whose rounding errors `gram` carries, where it is another one: after centering, the Gram
            matrix before it.

    Example:
        >>> whiten(torch.eye(2, dtype=torch.float64)[None] * 4, torch.tensor([1e-9]))[0][0, 0, 0]
        tensor(0.5000, dtype=torch.float64)
    """
    raw = gram if scale is None else scale
    dim = gram.shape[-1]
    inverse, smallest = inverse_factor(gram)
    trace = raw.diagonal(dim1=-2, dim2=-1).sum(-1)
    full = smallest > cut * trace  # trace >= largest eigenvalue: then full rank is certain
    whitening = inverse.transpose(-1, -2).contiguous()
    rank = torch.full(full.shape, dim, dtype=torch.long, device=gram.device)
    if not bool(full.all()):
        eigenvalues, vectors = torch.linalg.eigh(gram[~full])
        largest = eigenvalues[:, -1] if scale is None else torch.linalg.eigvalsh(raw[~full])[:, -1]
        kept = eigenvalues > (cut[~full] * largest.clamp_min(0))[:, None]
        length = torch.where(kept, eigenvalues.clamp_min(torch.finfo(gram.dtype).tiny).rsqrt(), 0.0)
        whitening[~full] = vectors * length[:, None, :]
        rank[~full] = kept.sum(-1)
    return whitening, rank


def independent_values(values: Tensor, flags: Tensor, epsilon: float) -> Tensor:
    """Return for which heads the values of all allowed keys are certainly independent: then their number is the rank.

    With few keys this takes the Gram matrix of the keys, (keys, keys), in place of that of the dimensions, and neither
    eigenvalues nor a basis. False means that the rank is not known yet.

    Args:
        values: (heads, keys, head_dim) float32 or float64, zero at keys that are not allowed.
        flags: (heads, keys) bool, the allowed keys.
        epsilon: see `epsilon_of`.

    Example:
        >>> independent_values(torch.eye(2, 3)[None], torch.tensor([[True, True]]), 2.0**-23).tolist()
        [True]
    """
    if values.shape[1] > values.shape[2]:
        return flags.new_zeros(len(values))
    wide = values.double()
    gram = wide @ wide.transpose(1, 2)
    diagonal = gram.diagonal(dim1=1, dim2=2)
    trace = diagonal.sum(1)
    diagonal += (trace / flags.sum(1).clamp_min(1))[:, None] * ~flags  # other keys get a block of their own
    _, smallest = inverse_factor(gram)
    return smallest > rank_cut(flags.sum(1), values.shape[2], epsilon) * trace


def value_basis(
    values: Tensor, keys: Tensor, epsilon: float, *, columns: bool = True, center: Tensor | None = None
) -> ValueBasis:
    """Return an orthonormal basis of the column space of V for each head.

    The Gram matrix is summed in float64 always: in float32 its smallest eigenvalue is lost from a condition number
    of about 1e3 on, and the float64 sum costs a tenth of the pass it serves. The basis of float64 values is
    orthonormalized twice.

    Args:
        values: (heads, keys, head_dim) float32 or float64, zero at keys that are not allowed.
        keys: (heads,) number of allowed keys.
        epsilon: see `epsilon_of`.
        columns: also form the basis itself; else it has no keys.
        center: bool (heads, keys), the allowed keys, for values less their mean: with the constant vector, the basis
            then spans [V, 1]. Rank and condition are those of the centered values.

    Example:
        >>> space = value_basis(torch.eye(3)[None, :, :2] * 5, torch.tensor([3]), 2.0**-23)
        >>> space.rank.tolist(), space.condition.tolist(), space.basis[0].T.tolist()
        ([2], [2.0], [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    """
    size = max(1, BASIS_CHUNK // max(1, values.shape[1] * values.shape[2]))
    parts = []
    for i in range(0, values.shape[0], size):
        part = slice(i, i + size)
        parts.append(_basis_of(values[part], keys[part], epsilon, columns, None if center is None else center[part]))
    if len(parts) == 1:
        return parts[0]
    return ValueBasis(
        torch.cat([part.basis for part in parts]),
        torch.cat([part.whitening for part in parts]),
        torch.cat([part.rank for part in parts]),
        torch.cat([part.condition for part in parts]),
    )


def _basis_of(values: Tensor, keys: Tensor, epsilon: float, columns: bool, center: Tensor | None) -> ValueBasis:
    wide = values.double()
    gram = wide.transpose(-1, -2) @ wide
    scale = None
    if center is not None:
        # the scale is that of the values before centering, because that is what their rounding errors follow
        scale = gram
        wide = (wide - wide.sum(1, keepdim=True) / keys.clamp_min(1)[:, None, None]) * center[:, :, None]
        gram = wide.transpose(-1, -2) @ wide
    cut = rank_cut(keys, values.shape[-1], epsilon)
    whitening, rank = whiten(gram, cut, scale)
    condition = (gram.diagonal(dim1=-2, dim2=-1).sum(-1) * whitening.square().sum((-2, -1))).sqrt()
    if values.dtype == torch.float64:
        basis = wide @ whitening
        correction, _ = whiten(basis.transpose(-1, -2) @ basis, torch.full_like(cut, 0.5))
        basis, whitening = basis @ correction, whitening @ correction
    elif not columns:
        basis = values[:, :0]
    elif center is not None or bool((condition > WELL_CONDITIONED).any()):
        basis = (wide @ whitening).to(values.dtype)
    else:
        basis = values @ whitening.to(values.dtype)
    return ValueBasis(basis, whitening, rank, condition)
