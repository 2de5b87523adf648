"""Compare the outputs of two forward passes, to test how padding and positions affect a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

PADDING_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}  # relative to the largest output
PADDING_TOLERANCE_REDUCED = 2e-2  # half precision
ROW_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}  # for a row whose padding was cut off


def output_tensors(outputs: Any) -> list[Tensor]:
    """The floating-point tensors of one dimension or more among the outputs of a model.

    Read are a tensor, the entries of a mapping or a sequence, and the attributes of any other object.
    """
    values: Any = [outputs] if isinstance(outputs, Tensor) else outputs
    if isinstance(values, Mapping):
        values = values.values()
    elif not isinstance(values, Iterable):
        values = getattr(values, "__dict__", {}).values()
    return [value for value in values if isinstance(value, Tensor) and value.is_floating_point() and value.dim()]


def float_outputs(outputs: Any) -> list[Tensor]:
    """Those of `output_tensors` with two dimensions or more."""
    return [value for value in output_tensors(outputs) if value.dim() > 1]


def same_tokens(padded: Tensor, alone: Tensor, start: int, end: int) -> bool:
    """Whether an output of the padded row is that of the row alone; of the real tokens where it has one for each."""
    for dim in range(1, min(padded.dim(), alone.dim())):  # tokens are dimension 1 of states, the last of attention
        if padded.shape[dim] != alone.shape[dim] == end - start:
            padded = padded.narrow(dim, start, end - start)
    if padded.shape != alone.shape:
        return False
    limit = ROW_TOLERANCE.get(padded.dtype, PADDING_TOLERANCE_REDUCED) * max(1.0, float(padded.abs().max()))
    return bool(((padded - alone).abs() <= limit).all())


def same_outputs(alone: Tensor, padded: Tensor) -> bool:
    """Whether an output of an input alone is that of the first row of a padded batch."""
    first = padded[: alone.shape[0]]
    if first.dim() > 2:
        first = first[:, : alone.shape[1]]  # outputs of padding tokens do not count
    if first.shape != alone.shape:
        return False
    limit = PADDING_TOLERANCE.get(alone.dtype, PADDING_TOLERANCE_REDUCED) * max(1.0, float(alone.abs().max()))
    return bool(((first - alone).abs() <= limit).all())
