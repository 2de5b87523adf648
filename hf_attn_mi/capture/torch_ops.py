"""Tables of the torch functions that the tracer recognizes, and the tags that it puts on tensors."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def both(names: str) -> set[Any]:
    """Return the functions of these names in `torch` and the methods of these names of `Tensor`, where they exist."""
    return {getattr(owner, name) for owner in (torch, Tensor) for name in names.split() if hasattr(owner, name)}


def _methods(names: str) -> set[Any]:
    return {getattr(Tensor, name) for name in names.split()}


def _getters(names: str) -> set[Any]:
    return {getattr(Tensor, name).__get__ for name in names.split()}


def recomputing() -> bool:
    """Whether this thread is in a backward pass: what runs there is recomputation, not a new call."""
    return bool(torch._C._current_graph_task_id() != -1)


SOFTMAX = both("softmax") | {F.softmax}
PRODUCT = both("matmul bmm __matmul__")
EINSUM = {torch.einsum}
CONCAT = {torch.cat, torch.concat, torch.concatenate}
MOVE = both("transpose permute swapaxes swapdims movedim") | _getters("T mT")  # may move the last dimension
SHAPE = MOVE | both("view reshape flatten squeeze unsqueeze unflatten view_as expand narrow __getitem__")
SAME = both("clone detach dropout") | {F.dropout} | _getters("data")  # keep shape and meaning
SAME |= _methods("contiguous to type_as float type half bfloat16 double requires_grad_ cpu cuda")
ADD = both("add __add__ __radd__ __iadd__ add_")
MULTIPLY = both("mul multiply __mul__ __rmul__ __imul__ mul_ multiply_")
DIVIDE = both("div divide true_divide __truediv__ __itruediv__ div_ divide_ true_divide_")
LOGITS = both("masked_fill masked_fill_ where sub __sub__ tanh clamp") | {torch.max, torch.maximum}
# Attributes that a model reads of its tensors: nothing is computed. A function mode receives these reads, too.
READS = frozenset(_getters("shape dtype device ndim requires_grad is_leaf grad_fn layout is_cuda itemsize nbytes"))
READS |= _methods("dim size stride numel is_floating_point is_contiguous")


@dataclass
class ProductRecord:
    """An attention product found by the tracer, while its output is followed to W_O."""

    index: int
    module_name: str
    call: dict[str, Any]  # the fields of the `AttentionCall` known so far
    shapes: tuple[torch.Size, ...] | None = None  # of query, key and value of a fused kernel
    ended_by: str | None = None  # the operation before a linear map at which following ended, if any
    done: bool = False


@dataclass
class LogitsTag:
    """Tag of a product of two tensors, which may become attention logits."""

    left: Tensor
    right: Tensor
    scale: float = 1.0
    bias: Tensor | None = None
    is_scaled_product: bool = True  # nothing else than scaling and adding one tensor has been applied


@dataclass
class RowsTag:
    """Tag of the result of a softmax over its last dimension."""

    number: int
    logits: Tensor
    source: LogitsTag | None
    module_name: str
    transposed: bool = False  # the keys are no longer the last dimension


@dataclass
class RowsPartTag:
    """Tag of some columns of attention rows: without attention sinks, or a block of keys with its own product."""

    whole: RowsTag
    rows: Tensor
    start: int
    stop: int


@dataclass
class OutputPartTag:
    """Tag of the product of some columns of rows with their values; the other columns have yet to be added."""

    part: RowsPartTag
    values: list[tuple[int, int, Tensor]]  # (start, stop, values of these columns)


@dataclass
class OutputTag:
    """Tag of the product of rows and values, followed to W_O.

    `features` has the shape of the tagged tensor; each entry is head * head_dim + coordinate, -1 for anything
    that is not part of the product. It is kept only while a module is checked for the first time.
    """

    records: list[ProductRecord] = field(default_factory=list)
    features: Tensor | None = None


Tag = LogitsTag | RowsTag | RowsPartTag | OutputPartTag | OutputTag
_ATTRIBUTE = "_hf_attn_mi_tags"
_current = threading.local()


def set_owner(owner: int | None) -> int | None:
    """Read and write the tags of this owner from now on, and return the one before.

    Captures that are open together have separate tags. No context manager, which would take as long as the rest of the
    tracing of an operation.
    """
    before: int | None = getattr(_current, "owner", None)
    _current.owner = owner
    return before


def get_tag(value: Any) -> Tag | None:
    """Return the tag of a tensor, or None."""
    return _tags(value).get(getattr(_current, "owner", None))


def set_tag(value: Any, tag: Tag | None) -> None:
    """Set the tag of a tensor; None removes it."""
    if isinstance(value, Tensor):
        owner = getattr(_current, "owner", None)
        if tag is not None:
            value.__dict__.setdefault(_ATTRIBUTE, {})[owner] = tag
        else:
            _tags(value).pop(owner, None)


def keeps_last(func: Any, before: Tensor, after: Tensor) -> bool:
    """Whether an operation on shapes left the last dimension, the keys of attention rows, in place and unchanged."""
    if after.shape[-1:] != before.shape[-1:]:
        return False
    return func not in MOVE or after.shape[-1] == 1 or after.stride(-1) == before.stride(-1)


def is_attention_rows(value: Any) -> bool:
    """Whether a capture that is open now has recognized this tensor as attention rows."""
    return any(isinstance(tag, (RowsTag, RowsPartTag)) for tag in _tags(value).values())


def any_tagged(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether one of the arguments, or of the entries of a list among them, has a tag of any capture."""
    for value in (*args, *kwargs.values()) if kwargs else args:
        if isinstance(value, Tensor):
            if getattr(value, _ATTRIBUTE, None):
                return True
        elif isinstance(value, list | tuple) and any_tagged(tuple(value), {}):
            return True
    return False


def _tags(value: Any) -> dict[int | None, Tag]:
    return getattr(value, _ATTRIBUTE, None) or {} if isinstance(value, Tensor) else {}


def logits_after(func: Any, tag: LogitsTag, others: list[Any]) -> LogitsTag | None:
    """The tag of the result of an operation on logits; None where they are no logits any more."""
    other = others[0] if others else None
    if func in MULTIPLY or func in DIVIDE:
        if isinstance(other, (int, float)) and tag.bias is None:
            factor = float(other) if func in MULTIPLY else 1.0 / float(other)
            return LogitsTag(tag.left, tag.right, tag.scale * factor, None, tag.is_scaled_product)
        return LogitsTag(tag.left, tag.right, is_scaled_product=False)
    if func in ADD:
        if isinstance(other, Tensor) and get_tag(other) is None:
            bias = other if tag.bias is None else tag.bias + other
            return LogitsTag(tag.left, tag.right, tag.scale, bias, tag.is_scaled_product)
        return LogitsTag(tag.left, tag.right, is_scaled_product=False)
    return LogitsTag(tag.left, tag.right, is_scaled_product=False) if func in LOGITS else None


def operands_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The two factors of a product."""
    if func in EINSUM:
        rest = args[1:]
        return list(rest[0]) if len(rest) == 1 and isinstance(rest[0], (list, tuple)) else list(rest)
    return [*args, *(kwargs[k] for k in ("input", "other", "mat2", "tensor2") if k in kwargs)][:2]


def has_tensor(result: Any) -> bool:
    """Whether a result is a tensor, or holds one."""
    if isinstance(result, (tuple, list)):
        return any(isinstance(item, Tensor) for item in result)
    return isinstance(result, Tensor)
