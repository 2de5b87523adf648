"""Weights that cannot be explained: not finite, or quantized."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import nn

from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError

_sound: WeakKeyDictionary[nn.Module, tuple[tuple[int, int], ...]] = WeakKeyDictionary()


def refuse_unsound(model: nn.Module) -> None:
    """Raise `InvalidInputError` where a weight is NaN or infinite: fused attention may hide it behind finite logits.

    Weights that were found sound are not read again until one of them is replaced or changed in place.
    """
    state = tuple((p.data_ptr(), p._version) for p in model.parameters() if not p.is_meta and not p.is_inference())
    if _sound.get(model) == state:
        return
    name = unsound_weight(model)
    if name is not None:
        raise InvalidInputError(f"model: weight {name} holds NaN or infinite entries; load sound weights.")
    _sound[model] = state


def unsound_weight(model: nn.Module) -> str | None:
    """Name of the first weight with NaN or infinite entries, None where there is none."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.is_meta or not parameter.is_floating_point():
                continue
            values = parameter.float() if parameter.dtype.itemsize == 1 else parameter
            total = values.sum(dtype=torch.promote_types(values.dtype, torch.float32))  # one pass, no mask formed
            if not bool(torch.isfinite(total)) and not bool(torch.isfinite(values).all()):  # a sum may overflow
                return name
    return None


def refuse_quantized(model: nn.Module) -> None:
    """Raise `UnsupportedModelError` where weights are quantized: parts of the gradient would be missing unnoticed."""
    for name, module in model.named_modules():
        home = type(module).__module__
        stored = [t.dtype for t in (*module._parameters.values(), *module._buffers.values()) if t is not None]
        packed = home.startswith("torch.nn") and any(t in (torch.int8, torch.uint8) for t in stored)
        if "quantized" in home or "bitsandbytes" in home or packed:
            raise UnsupportedModelError(
                f"{type(model).__name__}: {name or 'the model'} ({type(module).__name__}) has quantized weights, "
                "through which no exact gradient flows. Load the model in float32, bfloat16 or float16, or use a "
                "method without gradients (attention, rollout, effective, efficient)."
            )
