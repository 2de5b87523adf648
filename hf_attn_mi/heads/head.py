"""The attention head: scores of the tokens, weights, context and logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.heads.normalizers import TemperatureSchedule, gumbel_softmax, masked_softmax, read_schedule

# Score modules: (batch, heads, tokens, head_dim) states -> (batch, heads, tokens, queries) scores, with parameters for
# each head. `size` is the width of the hidden layers; "scaled_dot" has none.


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
        scores: Tensor = states @ self.query * states.shape[-1] ** -0.5
        return scores


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
    """v^T gelu(W_2 gelu(W_1 h_i + b_1) + b_2): deep attention, here with two hidden layers."""

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
NORMALIZERS = ("softmax", "gumbel")


class PackedBiLSTM(nn.Module):
    """A bidirectional LSTM over the real tokens of each input; padding anywhere in it changes nothing.

    Args:
        hidden_size: width of the input states.
        size: width of the output states, even; each direction gets half of it.

    Raises:
        InvalidInputError: an odd size.

    Example:
        >>> tuple(PackedBiLSTM(4, 6)(torch.zeros(1, 3, 4)).shape)
        (1, 3, 6)
    """

    def __init__(self, hidden_size: int, size: int) -> None:
        super().__init__()
        if size % 2:
            raise InvalidInputError(f"recurrence_size is {size}: a BiLSTM needs an even one, half for each direction")
        self.lstm = nn.LSTM(hidden_size, size // 2, batch_first=True, bidirectional=True)

    def reset_parameters(self) -> None:
        """Draw new weights."""
        self.lstm.reset_parameters()

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return (batch, tokens, size) states, zero at masked tokens.

        Args:
            states: (batch, tokens, hidden_size).
            mask: (batch, tokens) bool, True for real tokens, at least one in each row.
        """
        if mask is None:
            output: Tensor = self.lstm(states)[0]
            return output
        # Move the real tokens to the front, in their order: packing supports padding at the end only.
        order = torch.argsort(~mask, dim=1, stable=True)
        index = order[:, :, None].expand_as(states)
        packed = pack_padded_sequence(
            states.gather(1, index), mask.sum(1).cpu(), batch_first=True, enforce_sorted=False
        )
        compact, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=states.shape[1])
        positions = order[:, :, None].expand_as(compact)
        return torch.zeros_like(compact).scatter(1, positions, compact) * mask[:, :, None]


class HeadOutput(NamedTuple):
    """Output of the head: the logits, together with the weights that produced them."""

    logits: Tensor  # (batch, num_labels)
    weights: Tensor  # (batch, heads, queries, tokens) sum to one over tokens, exactly zero at masked ones
    context: Tensor  # (batch, heads * queries * head_dim) what the classifier reads


class AttentionHead(nn.Module):
    """Attention over the states of an encoder with one or more learned queries, and a linear classifier.

    weight_i = normalize(score(h_i) / temperature) over real tokens, context = sum_i weight_i h_i, logits linear in it.
    With several heads each attends over its own slice of the states. Between the weighted sum and the classifier there
    is no bias and no non-linear step, so effective and efficient attention mean the same as in an encoder.

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
        ...     output = head(states, torch.tensor([[True, True, False]]))
        >>> tuple(output.logits.shape), float(output.weights[0, 0, 0, 2]), round(float(output.weights.sum()), 6)
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
                raise InvalidInputError(f"{name} is {shown(value)}: an int of at least 1 is allowed")
        if recurrence_size is not None and recurrence is None:
            raise InvalidInputError(
                f"recurrence_size is {recurrence_size} without a recurrence: pass recurrence='bilstm'"
            )
        width = recurrence_size or hidden_size  # width of the states that are attended to
        if width % heads:
            raise InvalidInputError(f"heads is {heads}: it must divide the width of the states, {width}")
        for name, choice, choices in (("score", score, SCORES), ("normalizer", normalizer, NORMALIZERS)):
            if choice not in choices:
                raise InvalidInputError(f"{name} is {shown(choice)}: one of {', '.join(choices)} is allowed")
        if recurrence not in (None, "bilstm"):
            raise InvalidInputError(f'recurrence is {shown(recurrence)}: None or "bilstm" is allowed')
        if not 0 <= dropout < 1:
            raise InvalidInputError(f"dropout is {shown(dropout)}: from 0 to below 1 is allowed")
        self.hidden_size, self.heads, self.queries = hidden_size, heads, queries
        self.normalizer, self.hard = normalizer, hard
        self.schedule = read_schedule(temperature)
        head_dim = width // heads
        self.recurrence = PackedBiLSTM(hidden_size, width) if recurrence else None
        self.score = SCORES[score](heads, head_dim, queries, score_size or head_dim)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width * queries, num_labels)
        self.register_buffer("steps_seen", torch.zeros((), dtype=torch.long))  # saved: annealing resumes where it was

    @property
    def temperature(self) -> float:
        """The temperature after the training passes made so far."""
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
            generator: the source of the noise.

        Raises:
            InvalidInputError: shapes that do not fit, or an input all of whose tokens are masked.
        """
        real = self._read(states, mask)
        if self.recurrence is not None:
            states = self.recurrence(states, real)
        batch, tokens, _ = states.shape
        slices = states.reshape(batch, tokens, self.heads, -1).transpose(1, 2)  # (batch, heads, tokens, head_dim)
        if real is not None:  # the states of padding may be NaN: they must not reach the sum
            slices = slices.masked_fill(~real[:, None, :, None], 0.0)
        scores = self.score(slices).transpose(2, 3)  # (batch, heads, queries, tokens)
        weights = self._weights(scores, None if real is None else real[:, None, None, :], sample, generator)
        # Each query is computed as a head of its own with one row, over the values of its slice.
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
