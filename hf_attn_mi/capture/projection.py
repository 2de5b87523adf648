"""Reads the output projection W_O from the linear operation that consumes an attention product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_attn_mi.capture.records import Projection


@dataclass(frozen=True)
class LinearMap:
    """A linear operation: its input, its weight, and where its input and output features are.

    Attributes:
        source: the input.
        projection: (heads, head_dim) input features of the heads -> W_O.
        input_features_last: a tensor shaped like `source` -> (..., in_features).
        output_features_last: the result -> (..., hidden).
        is_fixed: the weight and the bias are parameters as they are, which a further pass uses again.
    """

    source: Tensor
    projection: Callable[[Tensor], Projection]
    input_features_last: Callable[[Tensor], Tensor] = lambda tensor: tensor
    output_features_last: Callable[[Tensor], Tensor] = lambda tensor: tensor
    is_fixed: bool = False


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], position: int, name: str) -> Any:
    return args[position] if len(args) > position else kwargs.get(name)


def _are_parameters(weight: Any, bias: Any) -> bool:
    return isinstance(weight, nn.Parameter) and (bias is None or isinstance(bias, nn.Parameter))


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.transpose(1, -1)


def _linear(args: tuple[Any, ...], kwargs: dict[str, Any]) -> LinearMap | None:
    weight, bias = _argument(args, kwargs, 1, "weight"), _argument(args, kwargs, 2, "bias")
    if weight.dim() != 2 or not hasattr(weight, "t"):
        return None
    source, fixed = _argument(args, kwargs, 0, "input"), _are_parameters(weight, bias)
    return LinearMap(source, lambda f: Projection(weight.t(), bias, f), is_fixed=fixed)


def _addmm(args: tuple[Any, ...], kwargs: dict[str, Any]) -> LinearMap | None:
    bias, source, weight = (_argument(args, kwargs, i, n) for i, n in enumerate(("input", "mat1", "mat2")))
    return LinearMap(source, lambda f: Projection(weight, bias, f), is_fixed=_are_parameters(weight, bias))


def _conv1d(args: tuple[Any, ...], kwargs: dict[str, Any]) -> LinearMap | None:
    weight, bias = _argument(args, kwargs, 1, "weight"), _argument(args, kwargs, 2, "bias")
    if weight.shape[-1] != 1:
        return None
    source = _argument(args, kwargs, 0, "input")
    groups = _argument(args, kwargs, 6, "groups") or 1

    def make(features: Tensor) -> Projection:
        blocks = weight[..., 0].chunk(groups)  # each (out / groups, in / groups)
        return Projection(torch.block_diag(*blocks).t(), bias, features)  # type: ignore[no-untyped-call]

    return LinearMap(source, make, _channels_last, _channels_last)


def _matmul(args: tuple[Any, ...], kwargs: dict[str, Any]) -> LinearMap | None:
    source, weight = args[0], _argument(args, kwargs, 1, "other")
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        return None
    return LinearMap(source, lambda f: Projection(weight, None, f))


def _einsum(args: tuple[Any, ...], kwargs: dict[str, Any]) -> LinearMap | None:
    """'ibnd,hnd->ibh': sums over the heads n and their coordinates d."""
    operands = args[1] if len(args) == 2 else args[1:]
    terms, _, result = args[0].replace(" ", "").partition("->")
    names = terms.split(",")
    if len(names) != 2 or len(operands) != 2:
        return None
    summed = [c for c in names[0] if c in names[1] and c not in result]
    kept = [c for c in names[1] if c in result and c not in names[0]]
    if len(summed) != 2 or len(kept) != 1 or names[0][-2:] != "".join(summed):
        return None
    weight = operands[1].permute([names[1].index(c) for c in (*summed, *kept)])
    return LinearMap(operands[0], lambda f: Projection(weight.flatten(0, 1), None, f), lambda t: t.flatten(-2))


PROJECTIONS: dict[Any, Callable[[tuple[Any, ...], dict[str, Any]], LinearMap | None]] = {
    F.linear: _linear,
    torch.addmm: _addmm,
    F.conv1d: _conv1d,
    torch.matmul: _matmul,
    Tensor.matmul: _matmul,
    Tensor.__matmul__: _matmul,
    torch.einsum: _einsum,
}


def resolve_projection(features: Tensor | None, heads: int, head_dim: int) -> Tensor | None:
    """Return the input feature of W_O that each coordinate of each head becomes, (heads, head_dim).

    Args:
        features: (..., in_features) head * head_dim + coordinate of every entry of W_O's input, -1 for entries
            that do not come from the attention product.
        heads: number of heads.
        head_dim: width of a head.

    Returns:
        None unless every coordinate of every head occurs exactly once, at the same position for every token.
    """
    if features is None or features.numel() == 0:
        return None
    table = features.reshape(-1, features.shape[-1])
    if table.shape[1] == heads * head_dim:  # most models: the heads one after another
        counted = torch.arange(heads * head_dim, dtype=table.dtype, device=table.device)
        if bool((table == counted).all()):
            return counted.long().reshape(heads, head_dim)
    numbers = table.amax(0)
    if not bool(((table == numbers) | (table == -1)).all()):
        return None
    positions = (numbers >= 0).nonzero()[:, 0]
    values = numbers[positions].long()
    if values.numel() != heads * head_dim or values.bincount(minlength=heads * head_dim).ne(1).any():
        return None
    return positions[values.argsort()].reshape(heads, head_dim)
