"""The linearized forward pass: attention rows, normalization scales and activation gates are held constant.

The rest is affine in the token embeddings, so that gradient x input adds up, with the bias terms, to the
explained value. Conservative propagation: Ali et al., arXiv 2202.07304; AttnLRP: Achtibat et al., arXiv 2402.05602.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_attn_mi.capture import is_attention_rows, multi_head_call, rows_and_logits
from hf_attn_mi.capture.function_mode import FunctionMode
from hf_attn_mi.capture.torch_ops import ADD, CONCAT, DIVIDE, MULTIPLY, PRODUCT, READS, SAME, SHAPE, SOFTMAX, both
from hf_attn_mi.errors import UnsupportedModelError
from hf_attn_mi.methods.relevance import rules
from hf_attn_mi.methods.relevance.bias_terms import BiasTerms
from hf_attn_mi.methods.relevance.functions import (
    BIASED,
    CONSTANT,
    GATED,
    NORMS,
    POWER,
    SOLVE,
    WITHOUT_RULE,
)
from hf_attn_mi.methods.relevance.tracked import (
    any_tracked,
    inside_activation,
    is_negative,
    is_tracked,
    without_gradient,
)
from hf_attn_mi.models.token_origins import TokenOrigins

T = Tensor
PRODUCTS = both("mul multiply __mul__")  # of two tensors; not in place
IN_PLACE = both("mul_ multiply_ __imul__")
# Functions without a rule, of which no argument but the first could be a parameter.
UNCHANGED = frozenset(SHAPE | SAME | both("chunk split unbind neg __neg__"))
# Functions whose result is no tensor of ids.
NO_IDS = {*BIASED, *GATED, *NORMS, *SOFTMAX, F.layer_norm, F.embedding, F.scaled_dot_product_attention}
SoftmaxRule = Literal["detach", "taylor"]


@dataclass(frozen=True, eq=False)
class Leaf:
    """A tensor at which gradient x input is taken.

    Attributes:
        tensor: (*ids.shape, hidden), or of any shape if it is not the result of a look-up.
        ids: the token ids that were looked up; None for other leaves.
        places: like ids: the flattened position of each id among the input's token ids, -1 for other ids.
        others: places in other arguments, flattened, that entries come from, by the names of the arguments.
    """

    tensor: Tensor
    ids: Tensor | None = None
    places: Tensor | None = None
    others: Mapping[str, Tensor] = field(default_factory=dict)


class LinearizedForward(FunctionMode):
    """Runs a model as an affine function of its embeddings, exact at the current input.

    Args:
        embedding_weight: the weight of the input embedding; its look-ups become leaves. None to place leaves elsewhere.
        batch: number of examples, for the bias terms of each.
        softmax_rule: "detach" holds attention rows constant; "taylor" takes the softmax as its tangent and shares
            products of rows and values, and of queries and keys, equally (AttnLRP, arXiv 2402.05602; the constants of
            the tangents go to the bias terms).
        origins: the origins of the ids that are looked up; where the model names no table of token embeddings, look-ups
            of the input's own token ids become leaves.

    Attributes:
        unchanged: functions that are run as they are, unless their first argument is a parameter or holds ids.
        leaves: every look-up.
        constants: biases whose shares the caller takes from their gradients; see `add_gradients`.
        unfollowed: names of operations that have no rule, in the order of their first use.
        bias: (batch,) contributions of biases, positions and every other constant; complete after backward.
    """

    unchanged: frozenset[Any] = UNCHANGED

    def __init__(
        self,
        embedding_weight: Tensor | None,
        batch: int,
        softmax_rule: SoftmaxRule = "detach",
        *,
        origins: TokenOrigins | None = None,
    ) -> None:
        super().__init__()
        self.origins = origins
        self.embedding_weight, self.batch, self.taylor = embedding_weight, batch, softmax_rule == "taylor"
        self.leaves: list[Leaf] = []
        self.constants: list[Tensor] = []
        self.unfollowed: dict[str, None] = {}
        self._slopes: dict[Hashable, float] = {}
        self.forget_bias()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in READS or (func in self.unchanged and args and self._is_plain(args[0])):
            return func(*args, **kwargs) if kwargs else func(*args)
        kwargs = kwargs or {}
        result = self._apply(func, args, kwargs)
        if self.origins is not None and func not in NO_IDS:
            self.origins.observe(func, args, kwargs, result)
        return result

    def _is_plain(self, value: Any) -> bool:
        """Whether this is a tensor that is neither a parameter nor holds ids that are followed."""
        return type(value) is Tensor and (self.origins is None or id(value) not in self.origins.known)

    def _apply(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of one torch function by its rule in `_RULES`; without one it is run as it is."""
        if func is F.embedding:
            return self._embedding(func, args, kwargs)
        if func is T.register_hook or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        args = tuple(map(without_gradient, args))
        kwargs = {k: without_gradient(v) for k, v in kwargs.items()} if kwargs else kwargs
        rule = _RULES.get(func)
        return self._without_rule(func, args, kwargs) if rule is None else rule(self, func, args, kwargs)

    # --- rules: each takes the function and its arguments, without parameters that require gradients ----------

    def _without_rule(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in WITHOUT_RULE and any_tracked(result):
            self.unfollowed[name] = None
        return result

    def _softmax(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        logits = args[0] if args else kwargs["input"]
        if not self.taylor or not is_tracked(logits):
            return self._constant(func, args, kwargs)
        rest = {key: value for key, value in kwargs.items() if key != "input"}
        return rules.taylor_rule(lambda x: func(x, *args[1:], **rest), [logits], self._collect)

    def _constant(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        return result.detach() if isinstance(result, Tensor) else result

    def _power(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args and is_negative(args[-1]):
            return self._constant(func, args, kwargs)
        return func(*args, **kwargs)

    def _solve(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if len(args) > 1:
            args = (args[0].detach(), *args[1:])
        return func(*args, **kwargs)

    def _gate(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not is_tracked(args[0]):
            return func(*args, **kwargs)
        if func in (torch.tanh, T.tanh, F.tanh) and inside_activation():
            return func(*args, **kwargs).detach()
        kwargs = {k: v for k, v in kwargs.items() if k != "inplace"}
        return rules.identity_rule(func, *args, slope=self._slope(func, args[1:], kwargs), **kwargs)

    def _slope(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
        """The slope of an activation at zero, computed once for all layers."""
        key = (func, *args, *sorted(kwargs.items()))
        if key not in self._slopes:
            self._slopes[key] = rules.slope_at_zero(lambda x: func(x, *args, **kwargs), torch.device("cpu"))
        return self._slopes[key]

    def _layer_norm(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        return rules.layer_norm(*args, **kwargs, collect=self._of_constant)

    def _norm(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        result = NORMS[func](*args, **kwargs)
        bias = kwargs.get("bias", args[3] if len(args) > 3 else None)
        return self._with_bias(result, bias if func is F.group_norm else None, channels_first=True)

    def _batch_norm(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        bound = dict(zip(("input", "mean", "var", "weight", "bias", "training", "momentum", "eps"), args)) | kwargs
        mean, var = bound.get("mean", bound.get("running_mean")), bound.get("var", bound.get("running_var"))
        if not is_tracked(args[0]) or bound.get("training") or mean is None or var is None:
            return func(*args, **kwargs)
        scaled, shift = rules.batch_norm(
            bound["input"], mean, var, bound.get("weight"), bound.get("bias"), bound.get("eps", 1e-5)
        )
        return self._with_constant(scaled + shift, shift)

    def _glu(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        value, gate = args[0].chunk(2, kwargs.get("dim", args[1] if len(args) > 1 else -1))
        result: Tensor = value * gate.sigmoid().detach()
        return result

    def _divide(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if len(args) > 1 and is_tracked(args[1]):
            args = (args[0], args[1].detach(), *args[2:])
        return func(*args, **kwargs)

    def _add(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        if len(args) > 1 and is_tracked(result) and not (is_tracked(args[0]) and is_tracked(args[1])):
            constants = [a for a in args[:2] if not is_tracked(a)]
            if len(constants) == 1:
                return self._with_constant(result, constants[0])
        return result

    def _concat(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        if not is_tracked(result):
            return result
        parts = args[0] if args else kwargs["tensors"]
        if all(map(is_tracked, parts)):
            return result
        constants_only = [torch.zeros_like(part) if is_tracked(part) else without_gradient(part) for part in parts]
        return self._with_constant(result, func(constants_only, *args[1:], **kwargs))

    def _biased(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func is F.linear and self.batch == 1 and len(args) == 3 and args[2] is not None and is_tracked(args[0]):
            return func(args[0], args[1], self._constant_leaf(args[2]))
        result = func(*args, **kwargs)
        bias = kwargs.get("bias", args[BIASED[func]] if len(args) > BIASED[func] else None)
        return self._with_bias(result, bias, channels_first="conv" in func.__name__)

    def _embedding(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        result: Tensor = func(*args, **kwargs).detach()
        ids = args[0] if args else kwargs["input"]
        if self._looks_up_tokens(weight, ids):
            leaf = result.requires_grad_(True)
            origins = self.origins
            places, others = (None, {}) if origins is None else (origins.of_main(ids), origins.others(ids))
            self.leaves.append(Leaf(leaf, ids, places, others))
            result = leaf.clone()  # the model may scale its embeddings in place
        return result

    def _looks_up_tokens(self, weight: Tensor, ids: Tensor) -> bool:
        table = self.embedding_weight
        if table is not None:
            return weight.data_ptr() == table.data_ptr() and weight.shape == table.shape
        return self.origins is not None and self.origins.reads_input(ids)

    def _attention(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        bound = dict(zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), args)) | kwargs
        names = ("query", "key", "value")
        if isinstance(bound.get("attn_mask"), Tensor):
            bound["attn_mask"] = bound["attn_mask"].detach()
        if self.taylor and any(is_tracked(bound[name]) for name in names):
            inputs = [bound.pop(name) for name in names]
            return rules.attention_rule(partial(func, **bound), inputs, _uniform_shares(inputs), self._collect)
        for name in names[:2]:
            bound[name] = bound[name].detach()
        return func(**bound)  # type: ignore[no-any-return]

    def _multi_head(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, None]:
        call, projection, project = multi_head_call(args, kwargs)
        bias = kwargs.get("in_proj_bias", args[6] if len(args) > 6 else None)
        names = ("query", "key", "value") if self.taylor else ("value",)
        inputs = [call[name].clone() for name in names]  # copies, not views: gradients have this shape
        for part, part_bias in zip(inputs, () if bias is None else bias.chunk(3)[-len(inputs) :]):
            self._with_bias(part, part_bias.reshape(1, part.shape[1], 1, -1))  # (batch, heads, tokens, head_dim)
        if self.taylor:
            output = rules.attention_rule(partial(_attend, call), inputs, _uniform_shares(inputs), self._collect)
        else:
            output = call["rows"].detach() @ inputs[0]
        projected = project(output)
        if projected.dim() != 3:
            return self._with_bias(projected, projection.bias), None
        batch_first = projected.transpose(0, 1).clone(memory_format=torch.contiguous_format)
        return self._with_bias(batch_first, projection.bias).transpose(0, 1), None

    def _multiply(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        two = len(args) == 2 and not kwargs and all(map(is_tracked, args))
        if two and func in PRODUCTS and (self.taylor or not any(map(is_attention_rows, args))):
            return rules.UniformProduct.apply(*args)  # type: ignore[no-untyped-call]
        return self._bilinear(func, args, kwargs)

    def _bilinear(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func is torch.einsum and len(args) == 2 and isinstance(args[1], list | tuple):
            args = (args[0], *args[1])  # its operands may be passed as a list
        factors = [*args, *kwargs.values()]
        if not self.taylor:
            factors = [one.detach() if is_attention_rows(one) else one for one in factors]
        if func in IN_PLACE and sum(map(is_tracked, factors)) > 1:
            raise UnsupportedModelError("An in-place product of two activations cannot be divided between its factors.")

        def product(*factors: Any) -> Any:
            return func(*factors[: len(args)], **dict(zip(kwargs, factors[len(args) :])))

        return rules.uniform_rule(product, factors)

    # --- bias terms ----------------------------------------------------------------------------------------

    def _constant_leaf(self, constant: Tensor) -> Tensor:
        """The constant as a leaf: for one example <constant, its gradient> is its share.

        So autograd sums over the tokens, without a call of Python for each bias.
        """
        leaf = constant.detach().requires_grad_(True)
        self.constants.append(leaf)
        return leaf

    def add_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """Add the shares of `constants`, whose gradients these are."""
        for constant, gradient in zip(self.constants, gradients, strict=True):
            if gradient is not None:
                self._terms.add_product(gradient.reshape(1, -1), constant.detach().reshape(-1))

    @property
    def bias(self) -> Tensor:
        """(batch,) float64 on the CPU: contributions of biases, positions and every other constant so far."""
        return self._terms.total()

    def forget_bias(self) -> None:
        """Start again: every backward pass collects its own."""
        self._terms = BiasTerms(self.batch)

    def _collect(self, shares: Tensor) -> None:
        """Add shares to the bias terms of their examples; see `BiasTerms.add`."""
        self._terms.add(shares)

    def _with_bias(self, result: Tensor, bias: Tensor | None, channels_first: bool = False) -> Tensor:
        if bias is not None and is_tracked(result):
            shape = (1, -1, *([1] * (result.dim() - 2)))
            self._with_constant(result, bias.reshape(shape) if channels_first else bias)
        return result

    def _with_constant(self, result: Tensor, constant: Any) -> Tensor:
        """Add <gradient of result, constant> to the bias terms once the gradient is known."""
        if not result.requires_grad:
            return result
        if is_tracked(constant):
            constant = constant.detach()
        rules.at_gradient(result, lambda grad: self._of_constant(grad, constant))
        return result

    def _of_constant(self, grad: Tensor, constant: Any) -> None:
        """Add <grad, constant> of each example."""
        shape = grad.shape
        if isinstance(constant, Tensor) and constant.dim() == 1 and shape[0] == self.batch:
            rows = grad if len(shape) == 3 else grad.reshape(self.batch, -1, shape[-1])
            self._terms.add_product(rows.sum(1), constant)
        else:  # masks of -inf have no gradient
            self._terms.add(torch.where(grad == 0, 0.0, grad * constant))


def _uniform_shares(qkv: Sequence[Tensor]) -> tuple[float, float, float]:
    """Shares of query, key and value by the Taylor rule: a product of two tracked factors is halved."""
    query, key, value = map(is_tracked, qkv)
    rows = (0.5 if value else 1.0) if query or key else 0.0
    one = rows / 2 if query and key else rows
    return one * query, one * key, (1 - rows) * value


def _attend(call: dict[str, Any], query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return rows_and_logits(query, key, call["mask"], call["scale"])[0] @ value


Rule = Callable[[LinearizedForward, Any, tuple[Any, ...], dict[str, Any]], Any]
_RULES: dict[Any, Rule] = {  # later entries replace earlier ones
    **dict.fromkeys(BIASED, LinearizedForward._biased),
    **dict.fromkeys(CONCAT, LinearizedForward._concat),
    **dict.fromkeys(ADD, LinearizedForward._add),
    **dict.fromkeys(DIVIDE, LinearizedForward._divide),
    **dict.fromkeys(PRODUCT | {torch.einsum}, LinearizedForward._bilinear),
    **dict.fromkeys(MULTIPLY, LinearizedForward._multiply),
    F.glu: LinearizedForward._glu,
    F.batch_norm: LinearizedForward._batch_norm,
    F.multi_head_attention_forward: LinearizedForward._multi_head,
    F.scaled_dot_product_attention: LinearizedForward._attention,
    **dict.fromkeys(NORMS, LinearizedForward._norm),
    F.layer_norm: LinearizedForward._layer_norm,
    **dict.fromkeys(GATED, LinearizedForward._gate),
    **dict.fromkeys(SOLVE, LinearizedForward._solve),
    **dict.fromkeys(POWER, LinearizedForward._power),
    **dict.fromkeys(CONSTANT, LinearizedForward._constant),
    **dict.fromkeys(SOFTMAX, LinearizedForward._softmax),
}
