"""Map human rationales to the model's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.tensor_checks import plain_values

WAYS = (
    "for each input 0 or 1 for each of its tokens (including special tokens), or character spans [(start, end), ...] "
    "of its "
    "text, (start, end, 1) for the second text of a pair; None for an input without a rationale"
)


def rationale_spans(words: Sequence[str], flags: Sequence[Any]) -> list[tuple[int, int]]:
    """Return the character spans of the flagged words in `" ".join(words)`, neighbors joined.

    Data sets give rationales for words that are split already. Pass the joined text as the input, and these spans as
    its rationale: they reach the model's tokens through the characters, whatever its tokenizer makes of the words.

    Args:
        words: the words of the text, none of them empty.
        flags: 0 or 1 for each word.

    Raises:
        InvalidInputError: numbers of words and flags that differ, or flags other than 0 and 1.

    Example:
        >>> rationale_spans(["a", "quietly", "moving", "film"], [0, 1, 1, 0])
        [(2, 16)]
    """
    if len(words) != len(flags):
        raise InvalidInputError(f"flags has {len(flags)} entries for {len(words)} words; pass one for each word.")
    chosen = [_flag(flag, f"flags[{i}]") for i, flag in enumerate(flags)]
    touched: list[tuple[int, int]] = []
    start = 0
    for word, flagged in zip(words, chosen):
        if flagged and touched and touched[-1][1] == start - 1:
            touched[-1] = (touched[-1][0], start + len(word))
        elif flagged:
            touched.append((start, start + len(word)))
        start += len(word) + 1
    return touched


def rationale_masks(rationales: Any, examples: list[EncodedInput]) -> list[Tensor | None]:
    """Return for each input (tokens,) bool, False for special tokens; None for an input without a rationale.

    Raises:
        InvalidInputError: numbers of inputs or tokens that differ, spans outside of the text, or other data.
    """
    if isinstance(rationales, Tensor):
        rationales = plain_values(rationales, "rationales")
    if isinstance(rationales, str) or not hasattr(rationales, "__len__") or not hasattr(rationales, "__getitem__"):
        raise InvalidInputError(f"rationales must be a list: {WAYS}; not {type(rationales).__name__}.")
    if len(rationales) != len(examples):
        raise InvalidInputError(
            f"rationales has {len(rationales)} entries for {len(examples)} inputs; pass one for each."
        )
    return [_mask(rationales[i], example, i) for i, example in enumerate(examples)]


def _mask(rationale: Any, example: EncodedInput, index: int) -> Tensor | None:
    if rationale is None:
        return None
    rationale = plain_values(rationale, f"rationales[{index}]")
    if isinstance(rationale, str) or not hasattr(rationale, "__iter__"):
        raise InvalidInputError(f"rationales[{index}] is {type(rationale).__name__}; allowed is {WAYS}.")
    items, count = list(rationale), int(example.length or 0)
    ordinary = ~torch.tensor(example.special)
    if all(hasattr(item, "__len__") and not isinstance(item, str) for item in items):  # [] marks no token
        return _touched(items, example, index) & ordinary
    if len(items) != count:
        raise InvalidInputError(
            f"rationales[{index}] has {len(items)} entries, inputs[{index}] has {count} tokens: {example.tokens}. Pass "
            "one for each token of the model, including special tokens; or character spans, see rationale_spans."
        )
    return torch.tensor([_flag(item, f"rationales[{index}][{i}]") for i, item in enumerate(items)]) & ordinary


def _touched(spans: list[Any], example: EncodedInput, index: int) -> Tensor:
    """(tokens,) bool: the tokens that share a character with a span."""
    if example.offsets is None or example.sequence_ids is None:
        raise InvalidInputError(
            f"rationales[{index}] holds character spans, but the tokens of inputs[{index}] have no offsets: use texts "
            "and a fast tokenizer, or 0 or 1 for each token."
        )
    touched = torch.zeros(int(example.length or 0), dtype=torch.bool)
    for span in spans:
        numbers = [*span, 0] if len(span) == 2 else list(span)
        good = len(numbers) == 3 and all(type(x) is int for x in numbers) and 0 <= numbers[2] < len(example.texts)
        if not good or not 0 <= numbers[0] <= numbers[1] <= len(example.texts[numbers[2]]):
            sizes = [len(text) for text in example.texts]
            raise InvalidInputError(
                f"rationales[{index}] holds {shown(span)}, which is not a span (start, end) or (start, end, text) of "
                f"texts with {sizes} characters."
            )
        for i, ((start, end), text) in enumerate(zip(example.offsets, example.sequence_ids)):
            touched[i] |= text == numbers[2] and start < numbers[1] and numbers[0] < end
    return touched


def _flag(value: Any, name: str) -> bool:
    if value in (0, 1):
        return bool(value)
    raise InvalidInputError(f"{name} is {shown(value)}; it must be 0 or 1.")
