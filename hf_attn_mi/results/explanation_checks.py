"""Whether the fields of an explanation fit together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hf_attn_mi.errors import InvalidInputError

if TYPE_CHECKING:
    from hf_attn_mi.results.explanation import Explanation


def check_sum(explanation: Explanation) -> None:
    """Refuse an explanation unless value and bias belong together and are finite.

    Raises:
        InvalidInputError: names the field.
    """
    for name in ("value", "bias"):
        number = getattr(explanation, name)
        if number is not None and not math.isfinite(number):
            raise InvalidInputError(f"{name} must be finite, got {number}")
    if (explanation.value is None) != (explanation.bias is None):
        raise InvalidInputError(
            f"value is {explanation.value} and bias is {explanation.bias}; give both of them, or neither for a method "
            "whose scores do not add up"
        )


def check_lengths(explanation: Explanation) -> None:
    """Refuse an explanation unless there is one entry for each token.

    Raises:
        InvalidInputError: names the field.
    """
    scores, count = explanation.scores, len(explanation.tokens)
    if scores.dim() != 1 or not scores.is_floating_point():
        raise InvalidInputError(f"scores must be floats of shape (tokens,), got {scores.dtype} {tuple(scores.shape)}")
    if count == 0:
        raise InvalidInputError("tokens must not be empty")
    for name in ("scores", "offsets", "sequence_ids", "word_ids", "special"):
        value = getattr(explanation, name)
        if value is not None and len(value) != count:
            raise InvalidInputError(f"{name} has {len(value)} entries for {count} tokens; one for each token is needed")
    for index, layer in enumerate(explanation.layers):
        if layer.received.shape[1] != count:
            raise InvalidInputError(
                f"layers[{index}].received has {layer.received.shape[1]} tokens, tokens has {count}"
            )


def check_media(explanation: Explanation) -> None:
    """Refuse an explanation unless grid and sound fit the tokens.

    Raises:
        InvalidInputError: names the field.
    """
    grid, count = explanation.grid, len(explanation.tokens)
    ordinary = len(explanation._ordinary())
    if grid is not None and (min(grid) < 1 or grid[0] * grid[1] != ordinary):
        raise InvalidInputError(
            f"grid is {grid}, but {ordinary} tokens are not special; rows x columns must be so many"
        )
    if explanation.sound is not None and tuple(explanation.sound.seconds.shape) != (count, 2):
        raise InvalidInputError(f"sound.seconds must be ({count}, 2), got {tuple(explanation.sound.seconds.shape)}")


def check_offsets(explanation: Explanation) -> None:
    """Refuse an explanation unless offsets lie in their texts.

    Raises:
        InvalidInputError: names the field.
    """
    texts, offsets = explanation.texts, explanation.offsets
    if offsets is not None and len(texts) > 1 and explanation.sequence_ids is None:
        raise InvalidInputError(f"sequence_ids is None for {len(texts)} texts: offsets need to know their text")
    for index in explanation._ordinary():
        sequence = explanation._sequence(index)
        if sequence is not None and texts and not 0 <= sequence < len(texts):
            raise InvalidInputError(f"sequence_ids[{index}] is {sequence}, but there are {len(texts)} texts")
        if sequence is not None and offsets is not None and texts:
            start, end = offsets[index]
            if not 0 <= start <= end <= len(texts[sequence]):
                raise InvalidInputError(
                    f"offsets[{index}] is ({start}, {end}), outside of texts[{sequence}] with "
                    f"{len(texts[sequence])} characters"
                )
