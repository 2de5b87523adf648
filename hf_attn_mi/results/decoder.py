"""The tokens that a decoder reads, with scores of their own."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.results.document import Table
from hf_attn_mi.results.words import format_score


@dataclass(frozen=True, eq=False)
class DecoderTokens:
    """The tokens that the decoder of an encoder-decoder reads, where they are not a copy of the input.

    Attributes:
        tokens: the tokenizer's strings; ids without a tokenizer.
        scores: (tokens,) float, signed, as those of the input: together they add up to the explained value.

    Raises:
        InvalidInputError: not one score for each token.

    Example:
        >>> import torch
        >>> DecoderTokens(("<s>", "Paris"), torch.tensor([0.25, 0.5])).scores.sum()
        tensor(0.7500)
    """

    tokens: tuple[str, ...]
    scores: Tensor

    def __post_init__(self) -> None:
        if tuple(self.scores.shape) != (len(self.tokens),):
            raise InvalidInputError(
                f"decoder.scores has shape {tuple(self.scores.shape)} for {len(self.tokens)} tokens; one for each is "
                "needed"
            )

    def table(self) -> Table:
        """The tokens and their scores, in reading order."""
        rows = [[token, format_score(score)] for token, score in zip(self.tokens, self.scores.tolist())]
        return Table(["token of the decoder", "score"], rows, title="What the decoder reads", folded=len(rows) > 20)
