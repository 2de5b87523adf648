"""The loss of a classification model, chosen as transformers does."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from hf_attn_mi.errors import InvalidInputError

PROBLEMS = ("single_label_classification", "multi_label_classification", "regression")


def classification_loss(logits: Tensor, labels: Tensor, problem: str | None = None) -> Tensor:
    """Return the mean cross-entropy (nats) or squared error of a batch.

    Args:
        logits: (batch, num_labels).
        labels: (batch,) integers; floats (batch,) or (batch, 1) for a regression; floats (batch, num_labels) where
            several labels may hold.
        problem: "single_label_classification", "multi_label_classification" or "regression"; None: read off the
            labels, one output being a regression.

    Raises:
        InvalidInputError: another problem.

    Example:
        >>> import torch
        >>> round(float(classification_loss(torch.zeros(1, 4), torch.tensor([2]))), 4)  # log 4
        1.3863
    """
    if problem is None:
        problem = PROBLEMS[1] if labels.is_floating_point() else PROBLEMS[0]
        problem = PROBLEMS[2] if logits.shape[1] == 1 else problem
    if problem not in PROBLEMS:
        raise InvalidInputError(f"problem_type is {problem!r}: one of {', '.join(PROBLEMS)} is allowed")
    if problem == PROBLEMS[2]:
        return functional.mse_loss(logits.flatten(), labels.to(logits.dtype).flatten())
    if problem == PROBLEMS[1]:
        return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
    return functional.cross_entropy(logits, labels.long().flatten())
