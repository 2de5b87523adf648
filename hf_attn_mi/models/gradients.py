"""Gradients of an explained value, with an error of this package where autograd cannot give them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hf_attn_mi.errors import UnsupportedModelError

UNUSABLE = ("second time", "modified by an inplace operation")  # what PyTorch says of a graph that is used up


def gradients(value: Tensor, tensors: Sequence[Tensor], *, keep: bool = False) -> tuple[Tensor | None, ...]:
    """The gradient of the sum of `value` with respect to each tensor; None for one that it does not depend on.

    Args:
        value: of any shape; it requires a gradient.
        tensors: what the gradient is taken of.
        keep: whether the graph is used again.

    Raises:
        UnsupportedModelError: the graph was used up, or values that it needs were changed in place.

    Example:
        >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> gradients(x**2, [x])
        (tensor([2., 4.]),)
    """
    try:
        return torch.autograd.grad(value.sum(), tensors, allow_unused=True, retain_graph=keep)
    except RuntimeError as error:
        if not any(words in str(error) for words in UNUSABLE):
            raise
        raise UnsupportedModelError(
            "model, target: no gradient of the explained value can be taken, because the target called backward on the "
            "outputs of the model, or the target or the model changed values in place that the gradient needs "
            f"({str(error).split('. ')[0]}). Methods without gradients can be used."
        ) from error
