"""Does padding change this model's output? Some read the last position, or convolve over their padding."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from hf_attn_mi.capture import eager_stance, model_lock
from hf_attn_mi.capture.model_state import visible_attention
from hf_attn_mi.models.batching import stack
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.loading import device_of, evaluation_mode

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}  # relative to the largest output; half precision: 2e-2
_known: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def ignores_padding(model: nn.Module, examples: list[EncodedInput], pad: int | None) -> bool:
    """Whether an input gives the same output alone and padded on the right; tried once for each model.

    The shortest example is run alone and beside the longest. Where the outputs differ, only inputs of equal
    length may share a batch, so that padding never changes a score.
    """
    if pad is None or any(example.length is None for example in examples):
        return False
    if model not in _known:
        order = sorted(examples, key=lambda example: int(example.length or 0))
        device = device_of(model)
        with torch.no_grad(), model_lock(model), eager_stance(model), visible_attention(model), evaluation_mode(model):
            alone = _outputs(model(**stack([order[0]], pad, device)))
            beside = _outputs(model(**stack([order[0], order[-1]], pad, device)))
        _known[model] = len(alone) == len(beside) and all(map(_same, alone, beside))
    return _known[model]


def _outputs(outputs: Any) -> list[Tensor]:
    values = outputs.values() if hasattr(outputs, "values") else outputs
    return [value for value in values if isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 1]


def _same(alone: Tensor, beside: Tensor) -> bool:
    first = beside[: alone.shape[0]]
    if first.dim() > 2:
        first = first[:, : alone.shape[1]]  # outputs of padding tokens do not count
    if first.shape != alone.shape:
        return False
    limit = TOLERANCE.get(alone.dtype, 2e-2) * max(1.0, float(alone.abs().max()))
    return bool(((first - alone).abs() <= limit).all())
