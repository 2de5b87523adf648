"""Operations with a frozen non-linear part: the forward value is unchanged, the backward pass is linear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.methods.relevance.tracked import is_tracked

NEAR_ZERO = 1e-6  # the slope of an activation at zero is evaluated here


class IdentityRule(torch.autograd.Function):
    """f(x) as gate * x with the gate f(x)/x held fixed; at x = 0 the gate is f's slope there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor], slope: float) -> Tensor:
        value = function(x)
        ctx.save_for_backward((value / x).nan_to_num_(nan=slope, posinf=slope, neginf=slope))
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (gate,) = ctx.saved_tensors
        return grad * gate, None, None


class DetachedLayerNorm(torch.autograd.Function):
    """(x - mean(x)) / std * weight + bias with std held fixed; linear in x."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        shape: Any,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        collect: Callable[[Tensor, Tensor], None] | None,
    ) -> Tensor:
        result, _, rstd = torch.native_layer_norm(x, list(shape), weight, bias, eps)
        ctx.save_for_backward(rstd, weight, bias)
        ctx.dims, ctx.collect = tuple(range(-len(shape), 0)), collect
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        rstd, weight, bias = ctx.saved_tensors
        if bias is not None and ctx.collect is not None:
            with torch._C.DisableTorchFunction():
                ctx.collect(grad, bias)
        scaled = grad if weight is None else grad * weight
        centered = scaled - scaled.mean(ctx.dims, keepdim=True)
        return (centered * rstd).to(grad.dtype), None, None, None, None, None


class UniformProduct(torch.autograd.Function):
    """first * second, of which each factor gets half of the gradient: the uniform rule for an element-wise product."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        ctx.save_for_backward(first, second)
        return first * second

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        first, second = ctx.saved_tensors
        half = 0.5 * grad
        return (half * second).sum_to_size(first.shape), (half * first).sum_to_size(second.shape)


def at_gradient(result: Tensor, receive: Callable[[Tensor], None]) -> None:
    """Call `receive` with the gradient of `result`, of its shape, whenever a backward pass has computed it."""
    node, place, shape = result.grad_fn, result.output_nr, result.shape
    assert node is not None
    if result._is_view() and result._base is not None and result._base.numel() == result.numel():
        node, place = node.next_functions[0]  # a later change in place would leave the view's own node behind
        assert node is not None

    def before(grads: tuple[Tensor | None, ...]) -> None:
        grad = grads[place]
        if grad is not None:
            with torch._C.DisableTorchFunction():
                receive(grad if grad.shape == shape else grad.reshape(shape))

    node.register_prehook(before)


class _Kept:
    """A tensor that a backward pass will read: a change in place until then is an error, as in autograd."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor.detach()
        self._version = tensor._version

    def inner(self, grad: Tensor, *, finite: bool = False) -> Tensor:
        """<tensor, grad> for each leading index, float64.

        Unless the tensor is known to be finite, infinite entries without a gradient have no share: logits are masked by
        -inf.
        """
        x = self.tensor
        product = x.to(torch.promote_types(x.dtype, torch.float32)) * grad
        product = product if finite else torch.where(grad == 0, 0.0, product)
        if product.dim() > 2:
            product = product.sum(-1)  # a copy of all products in float64 would cost more than the products
        return product.flatten(1).sum(1, dtype=torch.float64) if product.dim() > 1 else product.double()

    @property
    def tensor(self) -> Tensor:
        if self._tensor._version != self._version:
            raise RuntimeError("a tensor that the gradient needs has been modified by an inplace operation.")
        return self._tensor


def _with_gradient(x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The tensor, with its gradient passed through `change`."""

    def hook(grad: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():
            return change(grad)

    alias = x.view_as(x)
    alias.register_hook(hook)  # type: ignore[no-untyped-call]
    return alias


def taylor_rule(
    function: Callable[..., Tensor],
    tensors: Sequence[Tensor],
    collect: Callable[[Tensor], None],
    shares: Sequence[float] | None = None,
) -> Tensor:
    """A function replaced by its tangent at the given tensors plus a constant; each gradient is multiplied by a share.

    With shares s and gradients g: result = sum_i s_i <x_i, d result / d x_i> + constant. What the constant adds to
    the explained value, <result, grad> - sum_i s_i <x_i, g_i>, goes to `collect` in parts, once they are known.

    Args:
        function: of the tensors.
        tensors: at which the tangent is taken; those without gradients are constants.
        collect: takes (leading dimension,) parts of the constant.
        shares: of each tensor; all of each by default.
    """

    def part(x: Tensor, share: float) -> Tensor:
        kept = _Kept(x)

        def change(grad: Tensor) -> Tensor:
            collect(-share * kept.inner(grad))
            return grad if share == 1 else share * grad

        return _with_gradient(x, change) if x.requires_grad else x

    result = function(*(part(x, share) for x, share in zip(tensors, shares or (1.0,) * len(tensors), strict=True)))
    if result.requires_grad:
        value = _Kept(result)
        at_gradient(result, lambda grad: collect(value.inner(grad)))
    return result


def attention_rule(
    attend: Callable[[Tensor, Tensor, Tensor], Tensor],
    tensors: Sequence[Tensor],
    shares: Sequence[float],
    collect: Callable[[Tensor], None],
) -> Tensor:
    """`taylor_rule` of rows times values, where the rows are a softmax over products of queries and keys.

    Two of its inner products are known from others: the result is linear in the values, <result, grad> = <v, g_v>, and
    the logits are bilinear, <q, g_q> = <k, g_k>.

    Args:
        attend: of query, key and value.
        tensors: query, key and value.
        shares: of query, key and value; zero for those without gradients.
        collect: takes (leading dimension,) parts of the constant.
    """
    query, key, value = tensors
    of_query, of_key, of_value = shares

    def scaled(x: Tensor, share: float, factor: float) -> Tensor:
        """The tensor with its gradient times the share; <x, gradient> times the factor is a part of the constant."""
        kept = _Kept(x)

        def change(grad: Tensor) -> Tensor:
            if factor:
                collect(factor * kept.inner(grad, finite=True))
            return share * grad

        return _with_gradient(x, change) if x.requires_grad else x

    both = query.requires_grad and key.requires_grad
    result = attend(
        scaled(query, of_query, -(of_query + of_key) if both else -of_query),
        scaled(key, of_key, 0.0 if both else -of_key),
        scaled(value, of_value, 1.0 - of_value),
    )
    if result.requires_grad and not value.requires_grad:
        output = _Kept(result)
        at_gradient(result, lambda grad: collect(output.inner(grad, finite=True)))
    return result


def slope_at_zero(function: Callable[[Tensor], Tensor], device: torch.device) -> float:
    """The slope at zero of an element-wise activation with f(0) = 0."""
    return float(function(torch.full((1,), NEAR_ZERO, dtype=torch.float32, device=device))) / NEAR_ZERO


def identity_rule(
    function: Callable[..., Tensor], x: Tensor, *args: Any, slope: float | None = None, **kwargs: Any
) -> Tensor:
    """`function(x)` for an element-wise activation with f(0) = 0, its gate f(x)/x frozen.

    Args:
        function: of `x`, `args` and `kwargs`.
        x: of any shape.
        args, kwargs: further arguments.
        slope: the gate where x is zero; computed if not given.
    """

    def of_x(t: Tensor) -> Tensor:
        return function(t, *args, **kwargs)

    slope = slope_at_zero(of_x, x.device) if slope is None else slope
    result: Tensor = IdentityRule.apply(x, of_x, slope)  # type: ignore[no-untyped-call]
    return result


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    collect: Callable[[Tensor, Tensor], None] | None = None,
) -> Tensor:
    """Layer normalization with a frozen standard deviation.

    Args:
        input, normalized_shape, weight, bias, eps: see `torch.nn.functional.layer_norm`.
        collect: takes the gradient of the result and the bias, once the gradient is known.
    """
    result: Tensor = DetachedLayerNorm.apply(input, normalized_shape, weight, bias, eps, collect)  # type: ignore[no-untyped-call]
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
    shares = uniform_rule(product, [x1, x2])
    return result.detach() + (shares - shares.detach())


def uniform_rule(product: Callable[..., Tensor], factors: Sequence[Any]) -> Tensor:
    """A product that is linear in each factor, shared equally between those with gradients (uniform rule).

    Of k such factors each gets 1 / k of its gradient. <factor, gradient> is <product, gradient of the product> for
    every factor, so that the shares add up to it. Source: AttnLRP, arXiv 2402.05602, section 3.

    Args:
        product: of the factors.
        factors: the arguments of `product`; those that are no tensors or have no gradient are constants.
    """
    signals = list(map(is_tracked, factors))
    share = 1 / max(1, sum(signals))

    def shared(grad: Tensor) -> Tensor:
        return grad * share

    if share == 1:
        return product(*factors)
    return product(*(_with_gradient(one, shared) if signal else one for one, signal in zip(factors, signals)))
