"""Tables of the torch functions the tracer knows, and the tags that travel along with tensors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

T = Tensor
SOFTMAX = {F.softmax, torch.softmax, T.softmax}
PRODUCT = {torch.matmul, T.matmul, T.__matmul__, torch.bmm, T.bmm}
EINSUM = {torch.einsum}
CONCAT = {torch.cat, torch.concat, torch.concatenate}
SHAPE = {
    T.view,
    T.reshape,
    torch.reshape,
    T.transpose,
    torch.transpose,
    T.permute,
    torch.permute,
    T.flatten,
    torch.flatten,
    T.squeeze,
    torch.squeeze,
    T.unsqueeze,
    torch.unsqueeze,
    T.swapaxes,
    torch.swapaxes,
    T.swapdims,
    torch.swapdims,
    T.unflatten,
    torch.unflatten,
    T.movedim,
    torch.movedim,
    T.view_as,
    T.__getitem__,
    T.expand,
    T.narrow,
    torch.narrow,
    T.T.__get__,
    T.mT.__get__,  # type: ignore[attr-defined]
}
MOVE = {
    T.transpose,
    torch.transpose,
    T.permute,
    torch.permute,
    T.swapaxes,
    torch.swapaxes,
    T.swapdims,
    torch.swapdims,
    T.movedim,
    torch.movedim,
    T.T.__get__,
    T.mT.__get__,  # type: ignore[attr-defined]
}
SAME = {
    T.contiguous,
    T.to,
    T.type_as,
    T.float,
    T.clone,
    torch.clone,
    F.dropout,
    torch.dropout,
    T.type,
    T.half,
    T.bfloat16,
    T.detach,
    torch.detach,
    T.double,
    T.requires_grad_,
    T.cpu,
    T.cuda,
    T.data.__get__,  # type: ignore[attr-defined]
}
ADD = {T.add, torch.add, T.__add__, T.__radd__, T.__iadd__, T.add_}
MULTIPLY = {T.mul, torch.mul, T.__mul__, T.__rmul__, T.__imul__, T.mul_, torch.multiply}
DIVIDE = {T.div, torch.div, T.__truediv__, T.__itruediv__, T.div_, torch.true_divide}
LOGITS = {
    T.masked_fill,
    T.masked_fill_,
    torch.masked_fill,
    torch.where,
    T.where,
    torch.max,
    torch.maximum,
    T.sub,
    T.__sub__,
    torch.sub,
    torch.tanh,
    T.tanh,
    T.clamp,
    torch.clamp,
}


@dataclass
class ProductRecord:
    """An attention product found by the tracer, while its output is followed to W_O."""

    index: int
    module_name: str
    call: dict[str, Any]  # fields of the AttentionCall known so far
    ended_by: str | None = None  # the operation that ended the trail before a linear map, if any
    done: bool = False


@dataclass
class Logits:
    """Tag of a product of two tensors that may become attention logits."""

    left: Tensor
    right: Tensor
    scale: float = 1.0
    bias: Tensor | None = None
    plain: bool = True  # nothing but scaling and one added tensor has happened


@dataclass
class Rows:
    """Tag of the result of a softmax over its last dimension."""

    identity: int
    logits: Tensor
    source: Logits | None
    module_name: str
    turned: bool = False  # the keys are no longer the last dimension


@dataclass
class RowsPart:
    """Tag of some columns of attention rows: sinks cut off, or blocks of keys that meet their values apart."""

    whole: Rows
    rows: Tensor
    start: int
    stop: int


@dataclass
class OutputPart:
    """Tag of the product of some columns of rows with their values; the other columns are still to be added."""

    part: RowsPart
    values: list[tuple[int, int, Tensor]]  # (start, stop, values of these columns)


@dataclass
class Output:
    """Tag of the product of rows and values, on its way to W_O.

    `features` has the shape of the tagged tensor; each entry is head * head_dim + coordinate, -1 for anything
    that is not part of the product. It is carried only while a module is checked for the first time.
    """

    records: list[ProductRecord] = field(default_factory=list)
    features: Tensor | None = None


Tag = Logits | Rows | RowsPart | OutputPart | Output
_ATTRIBUTE = "_hf_attn_mi_tags"
_current = threading.local()


@contextmanager
def tags_of(owner: object) -> Iterator[None]:
    """Read and write the tags of `owner` inside: captures that are open at the same time keep theirs apart."""
    before = getattr(_current, "owner", None)
    _current.owner = id(owner)
    try:
        yield
    finally:
        _current.owner = before


def get_tag(value: Any) -> Tag | None:
    """The tag of a tensor, or None."""
    return _tags(value).get(getattr(_current, "owner", None))


def set_tag(value: Any, tag: Tag | None) -> None:
    """Put a tag on a tensor (None takes it away)."""
    if isinstance(value, Tensor):
        owner = getattr(_current, "owner", None)
        if tag is not None:
            value.__dict__.setdefault(_ATTRIBUTE, {})[owner] = tag
        else:
            _tags(value).pop(owner, None)


def keeps_last(func: Any, before: Tensor, after: Tensor) -> bool:
    """Whether an operation on shapes left the last dimension, the keys of attention rows, where and as it was."""
    if after.shape[-1:] != before.shape[-1:]:
        return False
    return func not in MOVE or after.shape[-1] == 1 or after.stride(-1) == before.stride(-1)


def is_attention_rows(value: Any) -> bool:
    """Whether a tensor was recognized as attention rows by a capture that is now open."""
    return any(isinstance(tag, (Rows, RowsPart)) for tag in _tags(value).values())


def _tags(value: Any) -> dict[int | None, Tag]:
    return getattr(value, _ATTRIBUTE, None) or {} if isinstance(value, Tensor) else {}
