"""Read the texts that a caller passes, in any container, and check the parts of each input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any

import torch

from hf_attn_mi.data.texts import check_encodable, text_columns
from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.models.encoded_input import ALLOWED


@dataclass(frozen=True)
class TextParts:
    """The one or two texts of an input.

    Attributes:
        texts: the text, or both texts of a pair; words are joined by blanks.
        words: the words of each text, where the caller passed words; None for plain texts.
    """

    texts: tuple[str, ...]
    words: tuple[tuple[str, ...], ...] | None = None


def read_items(inputs: Any, *, is_split_into_words: bool = False) -> tuple[list[Any], bool]:
    """The inputs one by one, not yet checked, and whether a single one was passed.

    A string is one text, a tuple of two strings one pair, every other container several inputs. With
    `is_split_into_words` a container of strings is one input, a tuple of two lists one pair.

    Raises:
        InvalidInputError: no container of texts, an empty one, or one that could mean two things.
    """
    if isinstance(inputs, str):
        if is_split_into_words:
            raise InvalidInputError(
                "inputs is one string, but is_split_into_words=True: pass the list of its words, or leave it out."
            )
        return [inputs], True
    if isinstance(inputs, Mapping) and not is_split_into_words:  # {"text": ..., "text_pair": ...}
        return [inputs], True
    if isinstance(inputs, tuple) and not is_split_into_words:
        if len(inputs) == 2 and all(isinstance(part, str) for part in inputs):
            return [inputs], True
        wrong = next((i for i, part in enumerate(inputs) if not isinstance(part, str)), None)
        if len(inputs) == 2 and wrong is not None:
            raise InvalidInputError(
                f"inputs is a tuple of two, a pair of texts, but entry {wrong} is {type(inputs[wrong]).__name__}: "
                f"{shown(inputs[wrong], 80)}; pass two texts, one text as a string, or several inputs as a list."
            )
        raise InvalidInputError(
            f"inputs is a tuple of {len(inputs)}: a tuple of two texts is one pair; pass several inputs as a list."
        )
    items = _items(inputs)
    if not items:
        raise InvalidInputError(f"inputs is an empty {type(inputs).__name__}; allowed is {ALLOWED}.")
    if is_split_into_words:
        if isinstance(inputs, tuple) and len(items) == 2 and all(map(_is_words, items)):
            return [inputs], True
        if any(isinstance(item, str) for item in items):
            return [items], True
        if isinstance(inputs, tuple):
            raise InvalidInputError(
                f"inputs is a tuple of {len(items)}: a tuple of two lists of words is one pair; pass several inputs as "
                "a list."
            )
    return items, False


def read_item(item: Any, index: int, *, is_split_into_words: bool = False) -> TextParts:
    """The texts of one input, its place in `inputs` being `index`.

    Raises:
        InvalidInputError: no text, pair or list of words; an empty text or word; text that cannot be encoded.
    """
    name = f"inputs[{index}]"
    if is_split_into_words:
        lists = item if isinstance(item, tuple) and len(item) == 2 and all(map(_is_words, item)) else (item,)
        words = tuple(_words(part, name) for part in lists)
        return TextParts(tuple(" ".join(part) for part in words), words)
    if isinstance(item, Mapping) and isinstance(item.get("text"), str):  # as pipelines take a text or a pair
        pair = item.get("text_pair")
        item = item["text"] if pair is None else (item["text"], pair)
    if _is_words(item) and not isinstance(item, tuple) and len(item):
        raise InvalidInputError(
            f"{name} is a list of {len(item)} strings: is it a pair, or one text as words? Pass a pair as a tuple, and "
            "words with is_split_into_words=True."
        )
    parts = (item,) if isinstance(item, str) else item
    if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) and _is_words(item[1]):
        raise InvalidInputError(
            f"{name} is a text with a list of {len(item[1])} strings, as multiple-choice models take a prompt and its "
            "choices. This model takes a text, or a pair as a tuple of two texts."
        )
    if not isinstance(parts, tuple) or len(parts) > 2 or not parts or not all(isinstance(part, str) for part in parts):
        raise InvalidInputError(
            f"{name} must be a text or a pair of texts, not {type(item).__name__}: {shown(item)}; pass token ids as a "
            "dict: inputs={'input_ids': [[...]]}."
        )
    if len(parts) == 1 and isinstance(item, tuple):
        raise InvalidInputError(f"{name} is a tuple of 1: a tuple of two texts is a pair; pass one text as a string.")
    for part in parts:
        if not part.strip():
            raise InvalidInputError(f"{name} is an empty text ({part!r}); pass at least one visible character.")
        check_encodable(part, name)
    return TextParts(tuple(map(_plain, parts)))


def shown_texts(item: Any) -> tuple[str, ...]:
    """The texts of an input that was refused, for its record; () if it is not a text, pair or list of words."""
    parts = (item,) if isinstance(item, str) else item
    if isinstance(parts, list) and all(isinstance(part, str) for part in parts):
        parts = (" ".join(parts),)
    return tuple(map(_plain, parts)) if isinstance(parts, tuple) and all(isinstance(p, str) for p in parts) else ()


def _items(inputs: Any) -> list[Any]:
    """The entries of a container, in order."""
    columns = getattr(inputs, "column_names", None)
    if isinstance(columns, list) and not isinstance(inputs, Mapping):  # a datasets.Dataset, a pyarrow.Table
        return _rows(inputs, columns)
    if hasattr(inputs, "columns"):
        raise InvalidInputError(
            f"inputs is a {type(inputs).__name__} with columns {list(inputs.columns)}; allowed is {ALLOWED}: pass one "
            "column, such as inputs=table['text'], or pairs as list(zip(table['a'], table['b']))."
        )
    if isinstance(inputs, Set):
        raise InvalidInputError(f"inputs is a {type(inputs).__name__}, which has no order; pass a list.")
    if hasattr(inputs, "to_pylist"):  # pyarrow
        return list(inputs.to_pylist())
    if not _is_container(inputs):
        raise InvalidInputError(f"inputs must be {ALLOWED}; not {type(inputs).__name__}.")
    return list(inputs)


def _rows(dataset: Any, columns: list[str]) -> list[Any]:
    """The texts or pairs in the columns of a data set that are known to hold them."""
    try:
        chosen = text_columns(columns)
    except InvalidInputError as error:
        raise InvalidInputError(
            f"inputs is a {type(dataset).__name__} with columns {columns}, none of which is known to hold texts; pass "
            "one, such as inputs=list(dataset['review']), or pairs as list(zip(dataset['a'], dataset['b']))."
        ) from error
    values = [dataset[name] for name in chosen]
    values = [column.to_pylist() if hasattr(column, "to_pylist") else list(column) for column in values]
    return values[0] if len(chosen) == 1 else list(zip(*values))


def _is_container(value: Any) -> bool:
    """Whether this holds several inputs: a list, an array or column of texts, or an iterator."""
    if isinstance(value, Mapping | bytes | bytearray | memoryview | torch.Tensor):
        return False
    dtype = getattr(value, "dtype", None)
    if dtype is not None and getattr(dtype, "kind", "O") in "biufc":
        return False
    return isinstance(value, Iterable) and getattr(value, "ndim", 1) == 1


def _is_words(value: Any) -> bool:
    """Whether this is a sequence of strings."""
    kinds = isinstance(value, list | tuple) or getattr(value, "ndim", 0) == 1
    return kinds and not isinstance(value, torch.Tensor) and all(isinstance(word, str) for word in value)


def _words(value: Any, name: str) -> tuple[str, ...]:
    if not _is_words(value):
        raise InvalidInputError(
            f"{name} must be a list of words, or a tuple of two such lists (a pair), since is_split_into_words=True; "
            f"not {type(value).__name__}: {shown(value)}."
        )
    if not len(value):
        raise InvalidInputError(f"{name} has no words; pass at least one.")
    for i, word in enumerate(value):
        if not word.strip():
            raise InvalidInputError(f"{name}: word {i} is empty ({word!r}); pass words with a visible character.")
        check_encodable(word, f"{name}: word {i}")
    return tuple(map(_plain, value))


def _plain(text: str) -> str:
    return str.__str__(text)  # numpy's strings, and other subclasses
