"""Attention rollout: attention multiplied through the layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hf_attn_mi.attention.inputs import read_key_mask
from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.kernels.inputs import check_tensor


@torch.no_grad()
def rollout(
    attentions: Sequence[Tensor], mask: Tensor | None = None, *, residual: float = 0.5, head_dimension: int | None = -3
) -> Tensor:  # (..., queries, keys)
    """Return how much of each input token reaches each token of the last layer: R = M_L ... M_1.

    M_l = (1 - residual) A_l + residual I with rows divided by their sums, A_l the mean over heads (Abnar and Zuidema,
    arXiv 2005.00928; there residual = 1/2). Keys that are padding get 0 and rows of queries that are padding are 0.

    Args:
        attentions: one tensor for each layer, first layer first: (..., heads, tokens, tokens), or (tokens, tokens)
            without heads.
        mask: bool (..., tokens) or (batch, tokens), True where the token is real.
        residual: share of the residual connection, in [0, 1].
        head_dimension: the dimension to average over, counted from the end; None if there is none, for attentions of
            shape (batch, tokens, tokens). Tensors of two dimensions have none.

    Raises:
        InvalidInputError: no layer, shapes that differ or are not square, negative or NaN weights, residual outside
            [0, 1].

    Example:
        >>> layer = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
        >>> rollout([layer, layer])
        tensor([[1.0000, 0.0000],
                [0.4375, 0.5625]])
    """
    if isinstance(residual, bool) or not isinstance(residual, int | float) or not 0.0 <= residual <= 1.0:
        raise InvalidInputError(f"residual is {shown(residual)}: it must lie between 0 and 1")
    if head_dimension is not None and (type(head_dimension) is not int or head_dimension > -3):
        raise InvalidInputError(
            f"head_dimension is {shown(head_dimension)}: it must be None, or -3 or less, counted from the end"
        )
    if not isinstance(attentions, list | tuple | Tensor) or (isinstance(attentions, Tensor) and not attentions.dim()):
        raise InvalidInputError(
            f"attentions is {type(attentions).__name__}: pass a list with one tensor for each layer"
        )
    if isinstance(attentions, Tensor):
        check_tensor("attentions", attentions)
    if not len(attentions):
        raise InvalidInputError("attentions is empty: pass one tensor for each layer")
    layers = [_mean_over_heads(layer, head_dimension) for layer in attentions]
    shape = layers[0].shape
    if any(layer.shape != shape for layer in layers) or shape[-1] != shape[-2]:
        raise InvalidInputError(
            f"attentions have shapes {[tuple(a.shape) for a in attentions]}: all must be equal and square"
        )
    tokens = shape[-1]
    real = read_key_mask(mask, tuple(shape[:-2]), 1, tokens, layers[0].device)[:, 0].reshape(*shape[:-2], tokens)
    visible = real[..., :, None] & real[..., None, :]
    identity = torch.eye(tokens, dtype=layers[0].dtype, device=layers[0].device)
    total = identity * visible
    for layer in layers:
        layer = layer.where(visible, torch.zeros_like(layer))
        if not bool(torch.isfinite(layer).all()) or bool((layer < 0).any()):
            raise InvalidInputError("attentions has negative, NaN or infinite weights at real tokens")
        mixed = (1 - residual) * layer + residual * identity
        sums = mixed.sum(-1, keepdim=True)
        total = mixed / sums.where(sums > 0, torch.ones_like(sums)) @ total
    return total.to(attentions[0].dtype)


def _mean_over_heads(attention: Tensor, head_dimension: int | None) -> Tensor:
    """Return (..., tokens, tokens) in float32 or float64."""
    check_tensor("attentions holds an entry that", attention)
    if not attention.is_floating_point() or attention.dim() < 2:
        raise InvalidInputError(
            f"attentions holds {attention.dtype} of shape {tuple(attention.shape)}: pass attention weights"
        )
    wide = attention if attention.dtype == torch.float64 else attention.float()
    if head_dimension is None or attention.dim() == 2:
        return wide
    if attention.dim() < -head_dimension:
        raise InvalidInputError(
            f"attentions has shape {tuple(attention.shape)}: there is no dimension {shown(head_dimension)}"
        )
    return wide.mean(head_dimension)
