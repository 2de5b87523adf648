"""Operations with a frozen non-linear part: the forward value is unchanged, the backward pass is linear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

NEAR_ZERO = 1e-6  # the slope of an activation at zero is evaluated here


class IdentityRule(torch.autograd.Function):
    """f(x) as gate * x with the gate f(x)/x held fixed; at x = 0 the gate is f's slope there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        value = function(x)
        near = function(torch.full((1,), NEAR_ZERO, dtype=torch.float32, device=x.device))
        slope = float(near) / NEAR_ZERO
        ctx.save_for_backward((value / x).nan_to_num_(nan=slope, posinf=slope, neginf=slope))
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (gate,) = ctx.saved_tensors
        return grad * gate, None


class DetachedLayerNorm(torch.autograd.Function):
    """(x - mean(x)) / std * weight + bias with std held fixed; linear in x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: Any, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        result, _, rstd = torch.native_layer_norm(x, list(shape), weight, bias, eps)
        ctx.save_for_backward(rstd, weight)
        ctx.dims = tuple(range(-len(shape), 0))
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        rstd, weight = ctx.saved_tensors
        scaled = grad if weight is None else grad * weight
        centered = scaled - scaled.mean(ctx.dims, keepdim=True)
        return (centered * rstd).to(grad.dtype), None, None, None, None


class TaylorRule(torch.autograd.Function):
    """A function replaced by its tangent at the given tensors plus a constant; each gradient is multiplied by a share.

    With shares s and gradients g: result = sum_i s_i <x_i, d result / d x_i> + constant. What the constant adds to
    the explained value, <result, grad> - sum_i s_i <x_i, g_i>, goes to `collect` once `grad` is known.
    """

    @staticmethod
    def forward(
        ctx: Any,
        function: Callable[..., Tensor],
        shares: tuple[float, ...],
        collect: Callable[[Tensor], None],
        *tensors: Tensor,
    ) -> Tensor:
        result = function(*tensors)
        ctx.save_for_backward(result, *tensors)
        ctx.about = function, shares, collect
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        result, *tensors = ctx.saved_tensors
        function, shares, collect = ctx.about
        with torch.enable_grad():
            leaves = [tensor.detach().requires_grad_(True) for tensor in tensors]
            grads = torch.autograd.grad(function(*leaves), leaves, grad)
        constant = _inner(result, grad)
        for tensor, gradient, share in zip(tensors, grads, shares):
            constant = constant - share * _inner(tensor, gradient)
        collect(constant)
        return None, None, None, *(share * gradient for share, gradient in zip(shares, grads))


def _inner(x: Tensor, grad: Tensor) -> Tensor:
    """<x, grad> for each leading index; logits that are masked by -inf have no gradient and no share."""
    product = torch.where(grad == 0, 0.0, x.double() * grad)
    return product.flatten(1).sum(1) if product.dim() > 1 else product


def taylor_rule(
    function: Callable[..., Tensor],
    tensors: Sequence[Tensor],
    collect: Callable[[Tensor], None],
    shares: Sequence[float] = (1.0,),
) -> Tensor:
    """`function(*tensors)`, linear in its tensors; see `TaylorRule`."""
    result: Tensor = TaylorRule.apply(function, tuple(shares), collect, *tensors)  # type: ignore[no-untyped-call]
    return result


def identity_rule(function: Callable[..., Tensor], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """`function(x)` for an element-wise activation with f(0) = 0, its gate f(x)/x frozen."""
    result: Tensor = IdentityRule.apply(x, lambda t: function(t, *args, **kwargs))  # type: ignore[no-untyped-call]
    return result


def layer_norm(
    x: Tensor, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Layer normalization with a frozen standard deviation."""
    result: Tensor = DetachedLayerNorm.apply(x, shape, weight, bias, eps)  # type: ignore[no-untyped-call]
    return result


def group_norm(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Group normalization with a frozen standard deviation, (batch, channels, ...)."""
    parts = x.reshape(x.shape[0], groups, -1)
    std = (parts.var(-1, unbiased=False, keepdim=True) + eps).sqrt().detach()
    result = ((parts - parts.mean(-1, keepdim=True)) / std).reshape(x.shape)
    shape = (1, -1, *([1] * (x.dim() - 2)))
    if weight is not None:
        result = result * weight.reshape(shape)
    return result if bias is None else result + bias.reshape(shape)


def batch_norm(
    x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Batch normalization in evaluation as (scaled x, constant shift); the sum of both is the result.

    Written out because the built-in backward gave other gradients for one example than for two (CPU, a feature
    map that is contiguous in two layouts).
    """
    shape = (1, -1, *([1] * (x.dim() - 2)))
    scale = (var + eps).rsqrt() * (1.0 if weight is None else weight)
    shift = -mean * scale + (0.0 if bias is None else bias)
    return x * scale.reshape(shape).to(x.dtype), shift.reshape(shape).to(x.dtype)


def rms_norm(x: Tensor, shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """Root-mean-square normalization with a frozen root mean square."""
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    dims = tuple(range(-len(shape), 0))
    result = x * (x.pow(2).mean(dims, keepdim=True) + eps).rsqrt().detach()
    return result if weight is None else result * weight


def normalize(x: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.normalize` with a frozen norm."""
    norm: Tensor = x.norm(p, dim, keepdim=True)
    return x / norm.clamp_min(eps).detach()


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """`torch.nn.functional.cosine_similarity` with both norms frozen; shared equally where both sides are signals."""
    norms = x1.norm(dim=dim).clamp_min(eps) * x2.norm(dim=dim).clamp_min(eps)

    def product(first: Tensor, second: Tensor) -> Tensor:
        share: Tensor = (first * second).sum(dim) / norms.detach()
        return share

    result = torch.nn.functional.cosine_similarity(x1, x2, dim, eps)
    if x1.requires_grad and x2.requires_grad:
        return uniform_rule(result, x1, x2, product)
    shares = product(x1, x2)
    return result.detach() + (shares - shares.detach())


def uniform_rule(result: Tensor, first: Tensor, second: Tensor, product: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """A product of two activations shared equally between them (uniform rule, arXiv 2402.05602)."""
    shares = 0.5 * product(first, second.detach()) + 0.5 * product(first.detach(), second)
    return result.detach() + (shares - shares.detach())
