"""One input as every part of `explain` passes it on."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

MAIN_KEYS = (
    "input_ids",
    "inputs_embeds",
    "pixel_values",
    "input_features",
    "input_values",
    "inputs",
    "pixel_values_videos",
)
ALLOWED = (
    "a text, a pair (tuple) of texts, a list of either, or a dict / BatchEncoding of tensors with one of "
    + ", ".join(MAIN_KEYS)
)


@dataclass(frozen=True, eq=False)
class EncodedInput:
    """One input, without padding at its ends."""

    tensors: dict[str, Tensor]  # each (tokens, ...) for sequences, else one element of the batch
    length: int | None  # number of tokens; None where the model decides (images, audio)
    start: int = 0  # columns of padding cut off on the left
    texts: tuple[str, ...] = ()
    tokens: tuple[str, ...] | None = None
    offsets: tuple[tuple[int, int], ...] | None = None
    sequence_ids: tuple[int | None, ...] | None = None
    word_ids: tuple[int | None, ...] | None = None
    special: tuple[bool, ...] | None = None
    warnings: tuple[str, ...] = field(default_factory=tuple)


def per_token(key: str, value: Tensor, length: int) -> bool:
    """Whether this argument has an entry for each token (a decoder's own tokens are others)."""
    return value.dim() > 0 and value.shape[0] == length and not key.startswith(("decoder_", "labels"))
