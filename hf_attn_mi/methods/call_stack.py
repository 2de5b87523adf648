"""Attention calls of few tokens that wait, so that what is computed of several layers is computed in one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hf_attn_mi.capture import AttentionCall

FEW = 1 << 18  # entries of the attention rows of a call that may wait
HELD = 1 << 22  # entries of all calls that wait, with their rows
Form = tuple[object, ...]


@dataclass
class CallStack:
    """Calls that wait, by their form; calls of one form are stacked.

    Attributes:
        groups: form -> the calls, each with the place of its result. They are copies, because a model may change its
            tensors in place afterwards.
        masks: a copy of every mask of these calls.
        entries: number of entries of their tensors and rows.
    """

    groups: dict[Form, list[tuple[int, AttentionCall]]] = field(default_factory=dict)
    masks: list[Tensor] = field(default_factory=list)
    entries: int = 0

    def takes(self, call: AttentionCall) -> bool:
        """Whether this call may wait."""
        formed = call.query is None or call.key is None or call.rows is not None or call.raw_logits is not None
        return not formed and _rows(call) <= FEW and self.entries + _entries(call) <= HELD

    def add(self, place: int, call: AttentionCall) -> None:
        """Keep a copy of the call."""
        query, key, value, output = (tensor.detach().clone() for tensor in _tensors(call))
        number = None if call.mask is None else self._mask(call.mask.detach())
        mask = None if number is None else self.masks[number]
        copy = replace(call, query=query, key=key, value=value, output=output, mask=mask)
        self.groups.setdefault((number, *_form(call)), []).append((place, copy))
        self.entries += _entries(call)

    def take(self) -> list[list[tuple[int, AttentionCall]]]:
        """The groups of calls; none of them waits any more."""
        groups, self.groups, self.masks, self.entries = list(self.groups.values()), {}, [], 0
        return groups

    def _mask(self, mask: Tensor) -> int:
        """The number of the copy that is like this mask, entry by entry; a new copy if there is none."""
        with torch._C.DisableTorchFunction():  # the modes that follow the model may be open
            for number, kept in enumerate(self.masks):
                same = kept.shape == mask.shape and kept.dtype == mask.dtype and kept.device == mask.device
                if same and torch.equal(kept, mask):
                    return number
            self.masks.append(mask.clone())
        return len(self.masks) - 1


def stacked(calls: Sequence[AttentionCall]) -> AttentionCall:
    """One call whose batch is that of the calls, one after another; they have the same form.

    Example:
        >>> from hf_attn_mi.capture import AttentionCall
        >>> x = torch.zeros(2, 1, 3, 4)
        >>> call = AttentionCall(0, 0, "attention", x, x, x, None, 0.5, False, x, None, None, None)
        >>> stacked([call, call, call]).value.shape
        torch.Size([6, 1, 3, 4])
    """
    first = calls[0]
    if len(calls) == 1:
        return first
    query, key, value, output = (torch.cat(parts) for parts in zip(*map(_tensors, calls)))
    mask = first.mask
    if mask is not None and mask.dim() == 4 and mask.shape[0] > 1:
        mask = mask.repeat(len(calls), 1, 1, 1)
    return replace(first, mask=mask, query=query, key=key, value=value, output=output)


def _tensors(call: AttentionCall) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    assert call.query is not None
    assert call.key is not None
    return call.query, call.key, call.value, call.output


def _rows(call: AttentionCall) -> int:
    batch, heads, queries, _ = call.output.shape
    return batch * heads * queries * call.value.shape[2]


def _entries(call: AttentionCall) -> int:
    return _rows(call) + sum(tensor.numel() for tensor in _tensors(call))


def _form(call: AttentionCall) -> Form:
    """What calls must have in common to be stacked, beside the mask: the scale, tensors of the same shape and type."""
    tensors = tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in _tensors(call))
    return call.scale, call.is_causal, tensors
