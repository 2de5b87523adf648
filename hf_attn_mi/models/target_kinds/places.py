"""Tokens of an input by word, position or characters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.models.encoded_input import EncodedInput

MARKS = ("##", "▁", "Ġ", "</w>")  # how tokenizers mark the start or the continuation of a word
SHOWN = 12  # words that a message lists


def locate(
    kind: str,
    one: EncodedInput,
    *,
    word: str | None = None,
    occurrence: int = 0,
    position: int | None = None,
    span: tuple[int, int] | None = None,
    sequence: int | None = None,
    tokenizer: Any = None,
) -> tuple[int, ...]:
    """The tokens of one input that a word, a position or a span of characters stands for, in reading order.

    Args:
        kind: the kind of the target, for messages.
        one: the input.
        word: a word or several, as in the text.
        occurrence: the number of its occurrence, from 0.
        position: the position of a token; negative ones count from the end.
        span: (start, end) characters of the text.
        sequence: the text of a pair that is meant; None for both, in order (for `span`: the first).
        tokenizer: writes the word as its tokens do, where the text itself is not known; None for the word as it is.

    Raises:
        InvalidInputError: not exactly one of the three was given, or it matches no token.
    """
    arguments = [name for name, value in (("word", word), ("position", position), ("span", span)) if value is not None]
    if len(arguments) != 1:
        raise InvalidInputError(
            f"target {kind}: pass one of word=, position= (of a token) and span= (start and end character), not "
            f"{' and '.join(arguments) or 'none'}."
        )
    if one.length is None:
        raise InvalidInputError(f"target {kind}: the input is not a sequence of tokens.")
    if position is not None:
        return (_position(kind, one.token_count, position),)
    if span is not None:
        return _covered(kind, one, span, 0 if sequence is None else sequence)
    assert word is not None
    if one.offsets is None or not one.texts:
        return _by_token_strings(kind, one, word, occurrence, tokenizer)
    texts = range(len(one.texts)) if sequence is None else (sequence,)
    matches = [(number, place) for number in texts for place in _occurrences(one.texts[number], word)]
    if occurrence >= len(matches):
        raise _missing(kind, word, occurrence, len(matches), " | ".join(one.texts[number] for number in texts))
    number, (start, end) = matches[occurrence]
    return _covered(kind, one, (start, end), number)


def text_of(one: EncodedInput, places: Sequence[int], tokenizer: Any = None) -> str:
    """The text that these tokens stand for: cut from the original where offsets are known, else put together.

    Args:
        one: the input.
        places: the positions of the tokens.
        tokenizer: puts tokens together; None to join their strings.
    """
    if one.offsets is not None and one.texts and len(places):
        sequences = [one.sequence_ids[i] if one.sequence_ids is not None else 0 for i in places]
        if sequences[0] is not None and all(sequence == sequences[0] for sequence in sequences):
            start, end = min(one.offsets[i][0] for i in places), max(one.offsets[i][1] for i in places)
            return one.texts[sequences[0]][start:end].strip()
    if tokenizer is not None and one.tokens is not None and hasattr(tokenizer, "convert_tokens_to_string"):
        return str(tokenizer.convert_tokens_to_string([one.tokens[i] for i in places])).strip()
    names = one.tokens or tuple(f"token {i}" for i in range(one.token_count))
    joined = "".join(names[i] if names[i].startswith("##") else f" {names[i]}" for i in places)
    return bare(joined.replace("##", "").strip())


def bare(token: str) -> str:
    """A token without the marks of its tokenizer.

    Example:
        >>> bare("##ing"), bare("▁film")
        ('ing', 'film')
    """
    for mark in MARKS:
        token = token.replace(mark, " " if mark in ("▁", "Ġ") else "")
    return token.strip()


def real_ordinary(one: EncodedInput) -> list[int]:
    """The tokens that are neither special nor hidden by the input's own mask."""
    mask = one.tensors.get("attention_mask")
    real = [True] * one.token_count if mask is None or mask.dim() != 1 else mask.bool().tolist()
    special = one.special or (False,) * one.token_count
    return [i for i in range(one.token_count) if real[i] and not special[i]]


def _position(kind: str, count: int, position: int) -> int:
    if isinstance(position, bool) or not isinstance(position, int) or not -count <= position < count:
        raise InvalidInputError(
            f"target {kind}: position must be a whole number from 0 to {count - 1} (the input has {count} tokens), not "
            f"{shown(position)}."
        )
    return position % count


def _occurrences(text: str, word: str) -> list[tuple[int, int]]:
    """Characters of each occurrence of a word in the text: whole words, else wherever its letters stand."""
    whole = list(re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", text))
    return [match.span() for match in whole or re.finditer(re.escape(word), text)]


def _covered(kind: str, one: EncodedInput, span: tuple[int, int], sequence: int) -> tuple[int, ...]:
    """The tokens of a text that share a character with this span."""
    good = isinstance(span, tuple | list) and len(span) == 2 and all(type(end) is int for end in span)
    if not good or not 0 <= span[0] < span[1]:
        raise InvalidInputError(
            f"target {kind}: span must be (start, end) characters with start < end, not {shown(span)}."
        )
    if one.offsets is None:
        raise InvalidInputError(
            f"target {kind}: which characters the tokens stand for is not known (tensors, or a slow tokenizer); pass "
            "position=, the place of the token."
        )
    places = tuple(
        i
        for i, (start, end) in enumerate(one.offsets)
        if start < span[1]
        and end > span[0]
        and (one.sequence_ids is None or one.sequence_ids[i] == sequence)
        and not (one.special is not None and one.special[i])
    )
    if not places:
        raise InvalidInputError(f"target {kind}: no token stands for the characters {span[0]} to {span[1]}.")
    return places


def _by_token_strings(kind: str, one: EncodedInput, word: str, occurrence: int, tokenizer: Any) -> tuple[int, ...]:
    """Runs of tokens whose strings spell the word, where the text itself is not known."""
    if one.tokens is None or all(token.isdigit() for token in one.tokens):
        raise InvalidInputError(
            f"target {kind}: the words of these tensors are not known. Pass texts, tokenizer=..., or position=, the "
            "place of the token."
        )
    names = [bare(token) for token in one.tokens]
    matches = list(_runs(names, "".join(word.split())))
    if not matches and tokenizer is not None:  # in lower case, or in the letters that stand for bytes
        matches = list(_runs(names, "".join(map(bare, tokenizer.tokenize(word)))))
    if occurrence >= len(matches):
        raise _missing(kind, word, occurrence, len(matches), " ".join(one.tokens))
    return matches[occurrence]


def _runs(tokens: Sequence[str], letters: str) -> Iterator[tuple[int, ...]]:
    for start in range(len(tokens)):
        spelled = ""
        for end in range(start, len(tokens)):
            spelled += "".join(tokens[end].split())
            if spelled == letters:
                yield tuple(range(start, end + 1))
            if not letters.startswith(spelled) or spelled == letters:
                break


def _missing(kind: str, word: str, occurrence: int, count: int, text: str) -> InvalidInputError:
    words = text.split()
    part = " ".join(words[:SHOWN]) + (" ..." if len(words) > SHOWN else "")
    if not count:
        return InvalidInputError(f"target {kind}: {word!r} is not in the text {part!r}; write it as it stands there.")
    return InvalidInputError(
        f"target {kind}: {word!r} stands {count} times in the text {part!r}, so occurrence must be 0 to {count - 1}, "
        f"not {occurrence}."
    )
