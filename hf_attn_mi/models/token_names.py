"""Names and places of the tokens of a caller's tensors: from its BatchEncoding, else from the tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.words import number_words, trimmed


def with_token_names(
    one: EncodedInput, encoding: Any, tokenizer: Any, inputs: Mapping[str, Any], index: int
) -> EncodedInput:
    """The input with its tokens' names and what is known of their places in the text.

    Args:
        one: a row of `inputs`, padding included.
        encoding: what a fast tokenizer keeps of this row in a BatchEncoding; else None.
        tokenizer: names the tokens without an encoding; None for their ids as names.
        inputs: what the caller passed; "offset_mapping" and "special_tokens_mask" are used where they are in it.
        index: the index of the row.

    Raises:
        InvalidInputError: one of these two holds anything else than their tokenizer's pairs and flags.
    """
    if one.length is None or "input_ids" not in one.tensors:
        return one
    ids = one.tensors["input_ids"].tolist()
    if encoding is not None and encoding.ids == ids:
        one = replace(
            one,
            tokens=tuple(encoding.tokens),
            special=tuple(map(bool, encoding.special_tokens_mask)),
            word_ids=tuple(encoding.word_ids),
            sequence_ids=tuple(encoding.sequence_ids),
            offsets=tuple(map(tuple, encoding.offsets)),
        )
        return _with_words(one)
    special, offsets = _row(inputs, "special_tokens_mask", index, one), _row(inputs, "offset_mapping", index, one)
    if offsets is not None:
        if not all(
            isinstance(pair, list | tuple) and [type(place) for place in pair] == [int, int] for pair in offsets
        ):
            raise InvalidInputError("inputs['offset_mapping'] must hold (start, end) for each token.")
        one = replace(one, offsets=tuple((start, end) for start, end in offsets))
    if special is not None:
        if not all(isinstance(flag, int) and flag in (0, 1) for flag in special):
            raise InvalidInputError("inputs['special_tokens_mask'] must hold 0 or 1 for each token.")
        one = replace(one, special=tuple(map(bool, special)))
    if tokenizer is None:
        return replace(one, tokens=tuple(map(str, ids)))
    in_text = {getattr(tokenizer, "unk_token_id", None), getattr(tokenizer, "mask_token_id", None)}
    known = set(tokenizer.all_special_ids) - in_text
    tokens = tuple(str(token) for token in tokenizer.convert_ids_to_tokens(ids))
    return replace(one, tokens=tokens, special=one.special or tuple(token in known for token in ids))


def _row(inputs: Mapping[str, Any], key: str, index: int, one: EncodedInput) -> list[Any] | None:
    """What the caller's mapping says of the tokens of one row; None if it says nothing that fits them."""
    values: Any = inputs.get(key)
    values = values.tolist() if hasattr(values, "tolist") else values
    if values is None or values == []:
        return None
    if not isinstance(values, list):
        raise InvalidInputError(f"inputs[{key!r}] must be a tensor or a list, not {type(values).__name__}.")
    if len(values) == one.length and not (isinstance(values[0], list) and len(values[0]) == one.length):
        return values  # one row, without the dimension of the batch
    row = values[index] if index < len(values) else None
    return row if isinstance(row, list) and len(row) == one.length else None


def _with_words(one: EncodedInput) -> EncodedInput:
    """The input with trimmed offsets and words as `models.words` numbers them, as far as its tokens tell the text.

    A BatchEncoding does not keep the text. It is put together from the tokens at their offsets; where a token does not
    have the length of its characters, the tokenizer's own words stay.
    """
    assert one.tokens is not None
    assert one.offsets is not None
    assert one.sequence_ids is not None
    assert one.word_ids is not None
    assert one.special is not None
    offsets, words = list(one.offsets), list(one.word_ids)
    for sequence in {number for number in one.sequence_ids if number is not None}:
        positions = [i for i, number in enumerate(one.sequence_ids) if number == sequence and not one.special[i]]
        spans = [offsets[i] for i in positions]
        if any(right[0] < left[0] for left, right in pairwise(spans)):
            return replace(one, offsets=None)  # the offsets count from the beginning of each word of a list
        text = [" "] * max((end for _, end in spans), default=0)
        for i in positions:
            start, end = offsets[i]
            surface = _surface(one.tokens[i], end - start)
            if surface is None:
                break
            text[start:end] = surface
        else:
            for i in positions:
                offsets[i] = trimmed("".join(text), *offsets[i])
            numbers = number_words("".join(text), offsets, positions, one.word_ids)
            words = [numbers.get(i, word) for i, word in enumerate(words)]
    return replace(one, offsets=tuple(offsets), word_ids=tuple(words))


def _surface(token: str, length: int) -> str | None:
    """The characters of a token, without the signs of its tokenizer; None if there are not `length` of them."""
    blanks = token.replace("\u2581", " ").replace("\u0120", " ")
    forms = (token, token.removeprefix("##"), blanks, blanks.strip())
    return next((form for form in forms if len(form) == length), None)
