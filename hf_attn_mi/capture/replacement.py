"""Puts the caller's attention rows in the place of the model's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.capture.records import AttentionCall, ReplacedAttention, repeat_heads
from hf_attn_mi.errors import InvalidInputError

Replace = Callable[[AttentionCall], Tensor | ReplacedAttention | None]


def replace_rows(call: dict[str, Any], before: AttentionCall, replace: Replace) -> bool:
    """Replace the model's rows by the caller's; rows without an allowed key stay as they are.

    Args:
        call: the fields of the attention call; its rows, logits and output are changed.
        before: the call as the model made it.
        replace: see `capture_attention`.

    Returns:
        Whether the caller has replaced this call.

    Raises:
        InvalidInputError: rows or an output of another shape.
    """
    with torch._C.DisableTorchFunction():
        new = replace(before)
    if new is None:
        return False
    new, output = (new.rows, new.output) if isinstance(new, ReplacedAttention) else (new, None)
    shape = (*call["output"].shape[:3], call["value"].shape[-2])
    if tuple(new.shape) != shape:
        raise InvalidInputError(f"replace must return rows of shape {shape}, not {tuple(new.shape)}.")
    if output is not None and output.shape != call["output"].shape:
        raise InvalidInputError(
            f"replace must return an output of shape {tuple(call['output'].shape)}, not {tuple(output.shape)}."
        )
    new = new.to(call["value"].dtype)
    output = new @ repeat_heads(call["value"], shape[1]) if output is None else output.to(call["output"].dtype)
    empty = ~before.allowed().any(-1, keepdim=True)
    call["output"] = torch.where(empty, call["output"], output) if bool(empty.any()) else output
    call["rows"], call["raw_logits"] = new, None
    return True
