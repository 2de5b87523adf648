"""Windows over a text that is longer than the model's limit."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.encoded_input import EncodedInput, per_token


@dataclass(frozen=True, eq=False)
class Window:
    """A part of an input as the model takes it, special tokens included.

    Attributes:
        input: the part.
        positions: (tokens,) the place of each of its tokens in the whole input.
    """

    input: EncodedInput
    positions: torch.Tensor


def split_windows(one: EncodedInput, limit: int | None, stride: int, index: int = 0) -> list[Window]:
    """The windows of an input: consecutive parts of its (last) text, each between the input's own special tokens.

    Neighboring windows share `stride` tokens; the last window may be shorter. Of a pair every window has the whole
    first text. An input within the limit is one window.

    Args:
        one: the whole input, however long.
        limit: the maximum number of tokens of a window; None for one window.
        stride: tokens that neighboring windows share, 0 or more.
        index: the index of the input, for messages.

    Raises:
        InvalidInputError: too little room for stride plus one token, a pair without a fast tokenizer, or arguments
            with an entry for each pair of tokens.

    Example:
        >>> ids = torch.tensor([2, 11, 12, 13, 14, 15, 3])
        >>> special = (True, False, False, False, False, False, True)
        >>> windows = split_windows(EncodedInput({"input_ids": ids}, 7, special=special), 5, 1)
        >>> [window.input.tensors["input_ids"].tolist() for window in windows]
        [[2, 11, 12, 13, 3], [2, 13, 14, 15, 3]]
    """
    count = one.token_count
    if limit is None or count <= limit:
        return [Window(one, torch.arange(count))]
    first, end = _segment(one, index)
    room = limit - (count - (end - first))
    if room <= stride:
        raise InvalidInputError(
            f"stride is {stride}, but a window of inputs[{index}] has room for {max(room, 0)} tokens beside the "
            f"{limit - room} that every window has (special tokens, the first text of a pair); pass a smaller stride."
        )
    windows = []
    for start in range(first, end, room - stride):
        stop = min(start + room, end)
        places = [torch.arange(first), torch.arange(start, stop), torch.arange(end, count)]
        windows.append(_window(one, torch.cat(places)))
        if stop == end:
            break
    return windows


def _segment(one: EncodedInput, index: int) -> tuple[int, int]:
    """(first, end) of the tokens that windows divide: those of the last text."""
    if one.special is None:
        raise InvalidInputError(f"inputs[{index}]: windows need to know which tokens are special: pass texts.")
    ordinary = [i for i, special in enumerate(one.special) if not special]
    if len(one.texts) > 1:
        if one.sequence_ids is None:
            raise InvalidInputError(f"inputs[{index}] is a pair: windows over pairs need a fast tokenizer.")
        ordinary = [i for i in ordinary if one.sequence_ids[i] == len(one.texts) - 1]
    if not ordinary:
        raise InvalidInputError(f"inputs[{index}]: its last text has no tokens that windows could divide.")
    return ordinary[0], ordinary[-1] + 1


def _window(one: EncodedInput, positions: torch.Tensor) -> Window:
    count = one.token_count
    tensors = {key: value[positions] if per_token(key, value, count) else value for key, value in one.tensors.items()}
    assert one.special is not None
    part = EncodedInput(
        tensors=tensors,
        length=len(positions),
        tokens=None if one.tokens is None else tuple(one.tokens[i] for i in positions.tolist()),
        special=tuple(one.special[i] for i in positions.tolist()),
    )
    return Window(part, positions)
