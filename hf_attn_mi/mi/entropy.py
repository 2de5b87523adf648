"""Entropies of outputs and the exact ceiling of the information that any state can have."""

from __future__ import annotations

from torch import Tensor

from hf_attn_mi.mi.inputs import read_outputs


def entropy(probabilities: Tensor) -> Tensor:
    """Return the Shannon entropy of each distribution over the last dimension, nats; 0 log 0 = 0."""
    return -(probabilities * probabilities.clamp_min(1e-300).log()).sum(-1)


def output_ceiling(outputs: Tensor) -> float:
    """Return I(input; output) = H(mean of P) - mean of H(P) in nats, exact for this sample of inputs.

    The output is drawn from P(. | input), so that no state of the network has more information about it (data
    processing), and the state that the classifier reads has all of it. For classes it is their entropy.

    Args:
        outputs: (n,) integer classes, or (n, K) probabilities.

    Raises:
        InvalidInputError: neither, NaN, or rows that do not sum to one.

    Example:
        >>> import torch
        >>> output_ceiling(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))  # log 2
        0.6931471805599453
    """
    probabilities = read_outputs(outputs)
    return float(entropy(probabilities.mean(0)) - entropy(probabilities).mean())
