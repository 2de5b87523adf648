"""A bidirectional LSTM over the real tokens of each input: padding, on either side or between, changes nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from hf_attn_mi.errors import InvalidInputError


class PackedBiLSTM(nn.Module):
    """A bidirectional LSTM.

    Args:
        hidden_size: width of the states that come in.
        size: width of those that go out, even; each direction gets half of it.

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
            found: Tensor = self.lstm(states)[0]
            return found
        # Real tokens to the front, in their order: packing knows only padding at the end.
        order = torch.argsort(~mask, dim=1, stable=True)
        index = order[:, :, None].expand_as(states)
        packed = pack_padded_sequence(
            states.gather(1, index), mask.sum(1).cpu(), batch_first=True, enforce_sorted=False
        )
        compact, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=states.shape[1])
        places = order[:, :, None].expand_as(compact)
        return torch.zeros_like(compact).scatter(1, places, compact) * mask[:, :, None]
