"""The linearized target: rules for what a target function computes from the outputs of the model.

A target function belongs to the network, so its operations get rules as those of the model do. A norm that is a divisor
is a scale and is held constant (cosine similarity, normalize); a norm that is itself the value, such as a
distance, is linear along its argument. Functions without such a form (softmax, log-softmax, exponentials, losses) are
replaced by their tangent at the current outputs; the constants of the tangents go to the bias terms. A product of two
outputs is shared equally between them, a quotient holds its divisor, and of a maximum or an absolute value the linear
piece at the current outputs is taken. All of these but norms are named, so that a note can say what was explained.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_attn_mi.capture.torch_ops import DIVIDE, MULTIPLY, PRODUCT, SOFTMAX, both
from hf_attn_mi.methods.relevance import rules
from hf_attn_mi.methods.relevance.functions import GATED
from hf_attn_mi.methods.relevance.linearized_forward import LinearizedForward
from hf_attn_mi.methods.relevance.tracked import is_tracked, without_gradient

TANGENT = SOFTMAX | both("log_softmax logsumexp sigmoid exp exp2 expm1 log log1p log2 log10 logit erf sin cos atan")
TANGENT |= both("logaddexp logaddexp2 logcumsumexp") | {
    F.log_softmax,
    F.softmin,
    F.sigmoid,
    F.logsigmoid,
    F.softplus,
    F.cross_entropy,
    F.binary_cross_entropy,
    F.binary_cross_entropy_with_logits,
    F.kl_div,
    F.mse_loss,
    F.l1_loss,
    F.smooth_l1_loss,
    F.huber_loss,
    F.soft_margin_loss,
    F.multilabel_soft_margin_loss,
    F.multi_margin_loss,
    F.hinge_embedding_loss,
    F.margin_ranking_loss,
    F.triplet_margin_loss,
    F.cosine_embedding_loss,
    torch.special.softmax,
    torch.special.log_softmax,
    torch.special.logsumexp,
    torch.special.expit,
    torch.special.logit,
}
# f(x) = x * f(x)/x with the factor held constant, by the exponent of x; None where it is an argument
SCALED: dict[Any, float | None] = {
    **dict.fromkeys(both("sqrt"), 0.5),
    **dict.fromkeys(both("square"), 2.0),
    **dict.fromkeys(both("pow __pow__")),
}
INVERSE_ROOT = both("rsqrt")
LENGTHS = both("norm std") | {  # homogeneous of degree one: f(x) = <x, gradient of f>
    torch.linalg.norm,
    torch.linalg.vector_norm,
    torch.linalg.matrix_norm,
}
DISTANCES = both("cdist dist") | {F.pairwise_distance}  # homogeneous of degree one in both arguments together
LIMITED = both("maximum minimum fmax fmin clamp clip clamp_min clamp_max")  # their other arguments may be constants
PIECEWISE = LIMITED | both(  # linear at the current outputs: some of them are selected, or their signs are taken
    "max min amax amin aminmax abs absolute __abs__ sort msort topk median nanmedian kthvalue mode quantile "
    "nanquantile cummax cummin abs_ absolute_ clamp_ clip_ clamp_min_ clamp_max_"
)
SUBTRACT = both("sub subtract __sub__ sub_ __isub__")
REVERSED = both("rsub __rsub__")
_NO_POWER = 1e-9  # distance from 1 of a product of exponents
BILINEAR = PRODUCT | both("mm dot inner mv vdot outer tensordot")
MULTIPLIED = MULTIPLY | BILINEAR | {torch.einsum, torch.linalg.vecdot}
INVERSE = both("reciprocal __rtruediv__")


class LinearizedTarget(LinearizedForward):
    """Runs a target function on the outputs of a linearized model; inside, no look-up of embeddings becomes a leaf.

    Args:
        batch: number of examples, for the bias terms of each.

    Attributes:
        tangents: names of the functions that were replaced by their tangent, in the order of their first use.
        factors: names of the functions f(x) of which the factor f(x) / x was held constant, products and quotients
            included; without powers that make up a norm together, and without norms as divisors.
        pieces: names of the functions that select outputs or take their signs, in the order of the backward pass: they
            are known once the gradient of the value was taken.
    """

    unchanged = frozenset()  # every operation is observed

    def __init__(self, batch: int) -> None:
        super().__init__(None, batch)
        self.tangents: dict[str, None] = {}
        self.pieces: dict[str, None] = {}
        self._gates: dict[str, None] = {}
        self._powers: dict[str, None] = {}
        self._degree = 1.0  # the product of all exponents: 1 for the root of a sum of squares
        self._scales: dict[int, Tensor] = {}  # norms, and what is computed from nothing else, by their ids
        self._choices: dict[int, Tensor] = {}  # indices and conditions that were computed from the outputs

    @property
    def factors(self) -> tuple[str, ...]:
        """See the class."""
        return (*self._gates, *(self._powers if abs(self._degree - 1.0) > _NO_POWER else ()))

    def _apply(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tracked = [a for a in (*args, *kwargs.values()) if is_tracked(a)]
        if func is Tensor.register_hook or not torch.is_grad_enabled():
            return super()._apply(func, args, kwargs)
        result = self._by_rule(func, args, kwargs) if tracked else super()._apply(func, args, kwargs)
        self._observe(func, (*args, *kwargs.values()), tracked, result)
        return result

    def _by_rule(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        args = tuple(without_gradient(a) for a in args)
        kwargs = {k: without_gradient(v) for k, v in kwargs.items()}
        if func in TANGENT:
            self.tangents[_name(func)] = None
        if func in TANGENT or func in DISTANCES or func in LIMITED:
            return self._tangent(func, args, kwargs)
        if func in LENGTHS:
            return func(*args, **kwargs)
        if func in SCALED and is_tracked(args[0]) and not _is_reciprocal(args):
            exponent = SCALED[func] or (args[1] if len(args) > 1 else kwargs.get("exponent"))
            self._raise_degree(func, float(exponent) if isinstance(exponent, int | float) else 0.0)
            return rules.identity_rule(func, *args, **kwargs)
        if func in GATED and is_tracked(args[0]):
            self._gates[_name(func)] = None
        if func in INVERSE_ROOT:
            self._degree *= 0.5
        if self._divides_by_output(func, args):
            self._gates["div"] = None
        if func in MULTIPLIED and sum(map(is_tracked, _flat(args))) > 1:
            self._raise_degree(func, 2.0)
        if func is F.cosine_similarity:
            return rules.cosine_similarity(*args, **kwargs)
        if func in BILINEAR:
            return self._bilinear(func, args, kwargs)
        if func in SUBTRACT | REVERSED and len(args) > 1:
            return self._difference(func, args, kwargs)
        return super()._apply(func, args, kwargs)

    def _raise_degree(self, func: Any, exponent: float) -> None:
        self._degree *= exponent
        self._powers[_name(func)] = None

    def _divides_by_output(self, func: Any, args: tuple[Any, ...]) -> bool:
        """Whether this divides by an output that is no norm."""
        if func in INVERSE or (func in SCALED and _is_reciprocal(args)):
            divisor = args[0]
        elif func in DIVIDE and len(args) > 1:
            divisor = args[1]
        else:
            return False
        return is_tracked(divisor) and id(divisor) not in self._scales

    def _observe(self, func: Any, values: Sequence[Any], tracked: Sequence[Tensor], result: Any) -> None:
        """Note norms, choices made by the outputs, and the functions whose result is a piece of what they could be."""
        chosen = any(id(value) in self._choices for value in _flat(values))
        for part in result if isinstance(result, tuple | list) else (result,):
            if not isinstance(part, Tensor):
                continue
            if not is_tracked(part):
                if chosen or (tracked and not part.is_floating_point()):
                    self._choices[id(part)] = part
                continue
            if func in PIECEWISE or chosen:
                part.register_hook(partial(self._use_piece, _name(func)))  # type: ignore[no-untyped-call]
            is_length = func in LENGTHS or func in INVERSE_ROOT or _name(func) in ("sqrt", "abs", "absolute")
            is_length = is_length or (func in SCALED and len(values) > 1 and values[1] == 0.5)
            if is_length or (tracked and all(id(value) in self._scales for value in tracked)):
                self._scales[id(part)] = part

    def _use_piece(self, name: str, gradient: Tensor) -> None:
        """Note a function once a gradient reaches its result: what is only a divisor is held and needs no note."""
        if bool(gradient.any()):
            self.pieces[name] = None

    def _tangent(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        places = [i for i, a in enumerate(args) if is_tracked(a)]
        names = [k for k, v in kwargs.items() if is_tracked(v)]

        def call(*tensors: Tensor) -> Tensor:
            arguments, rest = list(args), dict(kwargs)
            for place, tensor in zip(places, tensors):
                arguments[place] = tensor
            rest |= dict(zip(names, tensors[len(places) :]))
            result: Tensor = func(*arguments, **rest)
            return result

        tensors = [*(args[i] for i in places), *(kwargs[k] for k in names)]
        return rules.taylor_rule(call, tensors, self._collect)

    def _difference(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        constants = [a for a in args[:2] if not is_tracked(a)]
        if len(constants) != 1 or kwargs or not is_tracked(result):
            return result
        added = (func in SUBTRACT) != (constants[0] is args[1])
        return self._with_constant(result, constants[0] if added else -constants[0])


def _name(func: Any) -> str:
    return str(getattr(func, "__name__", func)).removeprefix("special_").strip("_")


def _flat(values: Sequence[Any]) -> list[Any]:
    """The values; the entries of lists and tuples among them, such as those of an index, instead of these."""
    return [one for value in values for one in (value if isinstance(value, list | tuple) else (value,))]


def _is_reciprocal(args: tuple[Any, ...]) -> bool:
    """Whether the exponent of a power is negative: then the result is a factor, not a signal."""
    return len(args) > 1 and isinstance(args[1], (int, float)) and args[1] < 0
