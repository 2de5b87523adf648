"""Check the arguments of `compare` before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.methods import list_methods
from hf_attn_mi.models.encoded_input import EncodedInput


def read_methods(methods: Any, scores: Any) -> tuple[str, ...]:
    """Return the names of the methods that are run here.

    Raises:
        InvalidInputError: names that do not exist, with the list; a name that occurs twice, or no names.
    """
    known = list_methods()
    if isinstance(methods, str) or not isinstance(methods, list | tuple):
        raise InvalidInputError(
            f"methods must be a list of names, not {shown(methods)}; allowed are {', '.join(known)}."
        )
    unknown = [name for name in methods if not isinstance(name, str) or name not in known]
    if unknown:
        raise InvalidInputError(f"methods: {shown(unknown)} are not known; allowed are {', '.join(known)}.")
    if scores is not None and not isinstance(scores, Mapping):
        raise InvalidInputError(
            f"scores must be a dict from a name to the scores of each input, not {type(scores).__name__}."
        )
    names = [*methods, *(scores or ())]
    if len(set(names)) < len(names):
        raise InvalidInputError(
            f"methods and scores name one twice: {names}; choose other names for the scores that you pass."
        )
    if not names:
        raise InvalidInputError(f"methods is empty, and there are no scores; allowed are {', '.join(known)}.")
    return tuple(methods)


def mask_id_of(removal: str, tokenizer: Any) -> int | None:
    """Return the id of the mask token where tokens are replaced by it, else None.

    Raises:
        InvalidInputError: there is no such token.
    """
    if removal != "mask":
        return None
    number = getattr(tokenizer, "mask_token_id", None)
    if number is None:
        raise InvalidInputError(
            "removal='mask' needs a tokenizer with a mask token: pass tokenizer=..., or use 'delete'."
        )
    return int(number)


def read_scores(scores: Mapping[str, Any] | None, examples: list[EncodedInput]) -> dict[str, list[Tensor | None]]:
    """Return the caller's scores: for each name one (tokens,) float64 tensor per input, or None.

    Raises:
        InvalidInputError: numbers of inputs or tokens that differ (both are named), or scores that are not finite.
    """
    columns: dict[str, list[Tensor | None]] = {}
    for name, column in (scores or {}).items():
        if not isinstance(name, str) or not name.strip():
            raise InvalidInputError(f"scores: {name!r} is not a name; every key must be a string that is not empty.")
        if not hasattr(column, "__len__") or len(column) != len(examples):
            count = len(column) if hasattr(column, "__len__") else "no"
            raise InvalidInputError(
                f"scores[{name!r}] has {count} entries for {len(examples)} inputs; pass one for each."
            )
        columns[name] = [_vector(column[i], example, f"scores[{name!r}][{i}]") for i, example in enumerate(examples)]
    return columns


def _vector(values: Any, example: EncodedInput, name: str) -> Tensor | None:
    if values is None:
        return None
    try:
        one = torch.as_tensor(values).detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInputError(f"{name} must be numbers, not {type(values).__name__}: {error}.") from error
    if one.shape != (example.length,):
        raise InvalidInputError(
            f"{name} has shape {tuple(one.shape)}, its input has {example.length} tokens; one score for each is "
            f"needed, including special tokens: {example.tokens}."
        )
    if not bool(one.isfinite().all()):
        raise InvalidInputError(f"{name} has entries that are NaN or infinite; pass None for an input without scores.")
    return one
