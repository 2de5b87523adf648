"""Scores of tokens: how much each state matters to a learned query."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hf_attn_mi.errors import InvalidInputError


class ScaledDotScore(nn.Module):
    """<h_i, q> / sqrt(d) with learned queries q."""

    def __init__(self, heads: int, head_dim: int, queries: int, size: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(heads, head_dim, queries))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new queries."""
        nn.init.normal_(self.query)

    def forward(self, states: Tensor) -> Tensor:  # (batch, heads, tokens, head_dim) -> (batch, heads, tokens, queries)
        """Return the scores."""
        found: Tensor = states @ self.query * states.shape[-1] ** -0.5
        return found


class AdditiveScore(nn.Module):
    """v^T tanh(W h_i + b) (Bahdanau et al., arXiv 1409.0473)."""

    def __init__(self, heads: int, head_dim: int, queries: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, head_dim, size))
        self.bias = nn.Parameter(torch.empty(heads, 1, size))
        self.query = nn.Parameter(torch.empty(heads, size, queries))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights."""
        nn.init.normal_(self.weight, std=self.weight.shape[1] ** -0.5)
        nn.init.zeros_(self.bias)
        nn.init.normal_(self.query, std=self.query.shape[1] ** -0.5)

    def forward(self, states: Tensor) -> Tensor:  # (batch, heads, tokens, head_dim) -> (batch, heads, tokens, queries)
        """Return the scores."""
        return torch.tanh(states @ self.weight + self.bias) @ self.query


class DeepScore(nn.Module):
    """v^T gelu(W_2 gelu(W_1 h_i + b_1) + b_2): a network of two hidden layers, our reading of "deep attention"."""

    def __init__(self, heads: int, head_dim: int, queries: int, size: int) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.empty(heads, head_dim, size))
        self.first_bias = nn.Parameter(torch.empty(heads, 1, size))
        self.second = nn.Parameter(torch.empty(heads, size, size))
        self.second_bias = nn.Parameter(torch.empty(heads, 1, size))
        self.query = nn.Parameter(torch.empty(heads, size, queries))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights, of a size that keeps the variance through the gelu."""
        nn.init.normal_(self.first, std=(2 / self.first.shape[1]) ** 0.5)
        nn.init.normal_(self.second, std=(2 / self.second.shape[1]) ** 0.5)
        nn.init.zeros_(self.first_bias)
        nn.init.zeros_(self.second_bias)
        nn.init.normal_(self.query, std=self.query.shape[1] ** -0.5)

    def forward(self, states: Tensor) -> Tensor:  # (batch, heads, tokens, head_dim) -> (batch, heads, tokens, queries)
        """Return the scores."""
        inner = nn.functional.gelu(states @ self.first + self.first_bias)
        return nn.functional.gelu(inner @ self.second + self.second_bias) @ self.query


SCORES: dict[str, type[nn.Module]] = {
    "additive": AdditiveScore,
    "deep": DeepScore,
    "scaled_dot": ScaledDotScore,
}


def score_module(name: str, heads: int, head_dim: int, queries: int, size: int) -> nn.Module:
    """Return the module that scores the tokens of (batch, heads, tokens, head_dim) states.

    Args:
        name: "additive", "deep" or "scaled_dot".
        heads: slices of the state, each with its own parameters.
        head_dim: width of a slice.
        queries: learned queries a head.
        size: width of the hidden layers; not used by "scaled_dot".

    Raises:
        InvalidInputError: an unknown name.
    """
    if name not in SCORES:
        raise InvalidInputError(f"score is {name!r}: one of {', '.join(SCORES)} is allowed")
    return SCORES[name](heads, head_dim, queries, size)
