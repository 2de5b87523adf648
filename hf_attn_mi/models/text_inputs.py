"""From texts and pairs of texts to examples."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.encoded_input import ALLOWED, EncodedInput


def read_texts(inputs: Any) -> tuple[list[str | tuple[str, str]], bool]:
    """The texts and pairs, and whether a single one was passed.

    Raises:
        InvalidInputError: no texts, or an empty one.
    """
    if isinstance(inputs, str) or _is_pair(inputs):
        items, single = [inputs], True
    elif isinstance(inputs, (list, tuple)):
        items, single = list(inputs), False
    else:
        raise InvalidInputError(f"inputs must be {ALLOWED}; not {type(inputs).__name__}.")
    if not items:
        raise InvalidInputError(f"inputs is an empty {type(inputs).__name__}; allowed is {ALLOWED}.")
    for i, item in enumerate(items):
        if isinstance(item, list) and len(item) == 2 and all(isinstance(part, str) for part in item):
            items[i] = item = tuple(item)
        if not isinstance(item, str) and not _is_pair(item):
            raise InvalidInputError(
                f"inputs[{i}] must be a text or a pair of texts, not {type(item).__name__}: {repr(item)[:80]}; "
                "pass token ids as a dict: inputs={'input_ids': [[...]]}."
            )
        for part in (item,) if isinstance(item, str) else item:
            if not part.strip():
                raise InvalidInputError(
                    f"inputs[{i}] is an empty text ({part!r}); pass at least one visible character."
                )
    return items, single


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(part, str) for part in value)


def encode_text(
    text: str | tuple[str, str], tokenizer: Any, limit: int | None, truncation: bool, index: int
) -> EncodedInput:
    """The example of one text or pair, its place in `inputs` being `index`.

    Raises:
        InvalidInputError: more tokens than `limit` without `truncation`, or none of its own.
    """
    parts = (text,) if isinstance(text, str) else text
    fast = bool(getattr(tokenizer, "is_fast", False))
    options = {"return_offsets_mapping": True} if fast else {}
    full = tokenizer(*parts, return_special_tokens_mask=True, verbose=False, **options)
    notes: tuple[str, ...] = ()
    length = len(full["input_ids"])
    if limit is not None and length > limit:
        if not truncation:
            raise InvalidInputError(
                f"inputs[{index}] has {length} tokens, the model takes {limit}. Shorten it, or pass truncation=True to "
                "explain its first part only."
            )
        full = tokenizer(
            *parts, return_special_tokens_mask=True, truncation=True, max_length=limit, verbose=False, **options
        )
        notes = (f"input {index} was cut from {length} to {limit} tokens; the rest was not seen by the model.",)
        warnings.warn(notes[0], stacklevel=4)
    tensors = {k: torch.tensor(v) for k, v in full.items() if k not in ("offset_mapping", "special_tokens_mask")}
    special = tuple(map(bool, full["special_tokens_mask"]))
    if all(special):
        raise InvalidInputError(
            f"inputs[{index}] has no token of its own ({text!r}): the tokenizer drops all of it. Pass a text with at "
            "least one visible character."
        )
    return EncodedInput(
        tensors=tensors,
        length=len(full["input_ids"]),
        texts=parts,
        tokens=tuple(tokenizer.convert_ids_to_tokens(full["input_ids"])),
        offsets=tuple(map(tuple, full["offset_mapping"])) if fast else None,
        sequence_ids=tuple(full.sequence_ids(0)) if fast else None,
        word_ids=tuple(full.word_ids(0)) if fast else None,
        special=special,
        warnings=notes,
    )
