"""The head itself: states to weights, context and logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.heads.normalizers import gumbel_softmax, masked_softmax
from hf_attn_mi.heads.recurrence import PackedBiLSTM
from hf_attn_mi.heads.schedules import TemperatureSchedule, read_schedule
from hf_attn_mi.heads.scores import score_module

NORMALIZERS = ("softmax", "gumbel")


class HeadOutput(NamedTuple):
    """What the head returns: the weights always stand beside the logits."""

    logits: Tensor  # (batch, num_labels)
    weights: Tensor  # (batch, heads, queries, tokens) sum to one over tokens, exactly zero at masked ones
    context: Tensor  # (batch, heads * queries * head_dim) what the classifier reads


class AttentionHead(nn.Module):
    """Attention over states, one or more learned queries, a linear classifier on the weighted sums.

    weight_i = normalize(score(h_i) / temperature) over real tokens, context = sum_i weight_i h_i, logits linear in it.
    With several heads each attends over its own slice of the states. No bias and no non-linear step stands between the
    weighted sum and the classifier, so effective and efficient attention of the head are what they are elsewhere.

    Args:
        hidden_size: width of the states.
        num_labels: classes.
        score: "additive", "deep" or "scaled_dot".
        normalizer: "softmax", or "gumbel": noise in training, none in evaluation unless `sample=True`.
        temperature: a number above 0, a `TemperatureSchedule` or its dictionary.
        hard: one-hot weights with the gradient of the soft ones (straight-through).
        heads: slices of the states; divides hidden_size.
        queries: learned queries of each head.
        score_size: hidden width of additive and deep scores, by default head_dim.
        recurrence: None or "bilstm" between the states and the attention.
        recurrence_size: width of the states that the BiLSTM returns (both directions), by default hidden_size.
        dropout: on the context, in training.

    Raises:
        InvalidInputError: a value that is not allowed; the message names it and the choices.

    Example:
        >>> head = AttentionHead(4, 2).eval()
        >>> states = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0))
        >>> with torch.no_grad():
        ...     found = head(states, torch.tensor([[True, True, False]]))
        >>> tuple(found.logits.shape), float(found.weights[0, 0, 0, 2]), round(float(found.weights.sum()), 6)
        ((1, 2), 0.0, 1.0)
    """

    steps_seen: Tensor

    def __init__(
        self,
        hidden_size: int,
        num_labels: int,
        *,
        score: str = "additive",
        normalizer: str = "softmax",
        temperature: float | Mapping[str, Any] | TemperatureSchedule = 1.0,
        hard: bool = False,
        heads: int = 1,
        queries: int = 1,
        score_size: int | None = None,
        recurrence: str | None = None,
        recurrence_size: int | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        for name, value in (
            ("hidden_size", hidden_size),
            ("num_labels", num_labels),
            ("heads", heads),
            ("queries", queries),
            ("score_size", 1 if score_size is None else score_size),
            ("recurrence_size", 1 if recurrence_size is None else recurrence_size),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidInputError(f"{name} is {value!r}: an int of at least 1 is allowed")
        if recurrence_size is not None and recurrence is None:
            raise InvalidInputError(
                f"recurrence_size is {recurrence_size} without a recurrence: pass recurrence='bilstm'"
            )
        width = recurrence_size or hidden_size  # of what is attended to
        if width % heads:
            raise InvalidInputError(f"heads is {heads}: it must divide the width of the states, {width}")
        if normalizer not in NORMALIZERS:
            raise InvalidInputError(f"normalizer is {normalizer!r}: one of {', '.join(NORMALIZERS)} is allowed")
        if recurrence not in (None, "bilstm"):
            raise InvalidInputError(f'recurrence is {recurrence!r}: None or "bilstm" is allowed')
        if not 0 <= dropout < 1:
            raise InvalidInputError(f"dropout is {dropout!r}: from 0 to below 1 is allowed")
        self.hidden_size, self.heads, self.queries = hidden_size, heads, queries
        self.normalizer, self.hard = normalizer, hard
        self.schedule = read_schedule(temperature)
        head_dim = width // heads
        self.recurrence = PackedBiLSTM(hidden_size, width) if recurrence else None
        self.score = score_module(score, heads, head_dim, queries, score_size or head_dim)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width * queries, num_labels)
        self.register_buffer("steps_seen", torch.zeros((), dtype=torch.long))  # saved: annealing resumes where it was

    @property
    def temperature(self) -> float:
        """The temperature now: that of the training passes seen so far."""
        return self.schedule.start if self.schedule.kind == "constant" else self.schedule.at(int(self.steps_seen))

    def reset_parameters(self) -> None:
        """Draw new weights and start the temperature schedule again."""
        for module in (self.recurrence, self.score, self.classifier):
            if module is not None:
                module.reset_parameters()  # type: ignore[operator]
        nn.init.zeros_(self.steps_seen)  # not zero_(): from_pretrained guards this function where the count was loaded

    def forward(
        self,
        states: Tensor,
        mask: Tensor | None = None,
        *,
        sample: bool = False,
        generator: torch.Generator | None = None,
    ) -> HeadOutput:
        """Return logits, weights and context.

        Args:
            states: (batch, tokens, hidden_size).
            mask: (batch, tokens), bool or 0/1, nonzero for real tokens.
            sample: Gumbel noise also in evaluation.
            generator: for the noise.

        Raises:
            InvalidInputError: shapes that do not fit, or an input all of whose tokens are masked.
        """
        real = self._read(states, mask)
        if self.recurrence is not None:
            states = self.recurrence(states, real)
        batch, tokens, _ = states.shape
        slices = states.reshape(batch, tokens, self.heads, -1).transpose(1, 2)  # (batch, heads, tokens, head_dim)
        if real is not None:  # what pads hold, NaN even, must not reach the sum
            slices = slices.masked_fill(~real[:, None, :, None], 0.0)
        scores = self.score(slices).transpose(2, 3)  # (batch, heads, queries, tokens)
        weights = self._weights(scores, None if real is None else real[:, None, None, :], sample, generator)
        # Each query stands as a head of its own with one row, over the values of its slice.
        rows = weights.reshape(batch, self.heads * self.queries, 1, tokens)
        values = slices if self.queries == 1 else slices.repeat_interleave(self.queries, 1)
        context = (rows @ values).flatten(1)
        return HeadOutput(self.classifier(self.dropout(context)), weights, context)

    def _weights(self, scores: Tensor, mask: Tensor | None, sample: bool, generator: torch.Generator | None) -> Tensor:
        temperature = self.temperature
        if self.training and self.schedule.kind != "constant":
            self.steps_seen += 1
        noise = self.normalizer == "gumbel" and (self.training or sample)
        if noise or self.hard:
            return gumbel_softmax(
                scores, mask, temperature=temperature, hard=self.hard, noise=noise, generator=generator
            )
        return masked_softmax(scores, mask, temperature=temperature)

    def _read(self, states: Tensor, mask: Tensor | None) -> Tensor | None:
        """Return the mask as (batch, tokens) bool, or None."""
        if states.dim() != 3 or states.shape[-1] != self.hidden_size:
            raise InvalidInputError(
                f"states has shape {tuple(states.shape)}: it must be (batch, tokens, {self.hidden_size})"
            )
        if mask is None:
            return None
        if mask.shape != states.shape[:2]:
            raise InvalidInputError(f"mask has shape {tuple(mask.shape)}: it must be {tuple(states.shape[:2])}")
        real = mask.bool()
        if not torch.compiler.is_compiling() and not bool(real.any(1).all()):
            raise InvalidInputError(f"mask leaves input {int((~real.any(1)).nonzero()[0, 0])} without a real token")
        return real
