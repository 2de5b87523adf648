"""How many inputs share a forward pass: a budget of tokens that grows, and is halved when memory runs out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.models.encoded_input import EncodedInput

START = 1024  # tokens, padding included, of the first batches
MOST_ON_CPU = 2048  # more does not make a CPU faster
MOST_ON_ACCELERATOR = 2**18
GROWTH = 4  # batches of a budget before it is doubled
MOST_INPUTS = 256  # inputs of a batch, however short they are


def check_batch_size(value: object) -> None:
    """Check that the value is "auto" or a positive whole number.

    Raises:
        InvalidInputError: it is neither.
    """
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InvalidInputError(f"batch_size must be 'auto' or a positive whole number, not {shown(value)}.")


class TokenBudget:
    """Cuts a queue of inputs, sorted by length, into batches.

    With "auto" a batch holds at most `tokens` tokens, padding included. The budget begins at 1,024 with each shard, so
    that the batches of a shard do not depend on those before it. It doubles after four batches: up to 2,048 on a CPU,
    and up to what fits on an accelerator. When memory runs out, it is halved and does not grow any more.

    Args:
        batch_size: "auto", or the maximum number of inputs of a batch.
        device: where the model runs.

    Attributes:
        tokens: the budget; None for a fixed number of inputs.
        inputs: the maximum number of inputs of a batch.
    """

    def __init__(self, batch_size: int | str, device: torch.device) -> None:
        check_batch_size(batch_size)
        self.auto = batch_size == "auto"
        self.most = MOST_ON_CPU if device.type == "cpu" else MOST_ON_ACCELERATOR
        self.inputs = MOST_INPUTS if self.auto else int(batch_size)
        self.ended = False  # memory has run out once
        self.restart()

    def restart(self) -> None:
        """Begin a shard."""
        self.tokens: int | None = min(START, self.most) if self.auto else None
        self._batches = 0

    def take(self, queue: Sequence[int], inputs: Sequence[EncodedInput], *, mixed: bool) -> list[int]:
        """The first positions of the queue that share a batch: at least one.

        Args:
            queue: positions, the shortest inputs first.
            inputs: all inputs.
            mixed: whether inputs of different length may share a batch.
        """
        first: Any = inputs[queue[0]].shape_key
        taken: list[int] = []
        for position in queue[: self.inputs]:
            one = inputs[position]
            width = max(one.token_count, 1)
            if taken and self.tokens is not None and width * (len(taken) + 1) > self.tokens:
                break
            if taken and not mixed and one.shape_key != first:
                break
            taken.append(position)
        return taken

    def succeeded(self) -> None:
        """Note a batch that fitted into memory."""
        self._batches += 1
        if self.tokens is not None and not self.ended and self._batches % GROWTH == 0:
            self.tokens = min(2 * self.tokens, self.most)

    def exhausted(self, count: int, tokens: int) -> None:
        """Note that memory ran out with a batch of `count` inputs and so many tokens: half of it from now on.

        An input that does not fit alone says nothing about batches of others.
        """
        if count < 2:
            return
        self.ended = True
        if self.tokens is not None:
            self.tokens = self.most = max(1, tokens // 2)
        else:
            self.inputs = count // 2
