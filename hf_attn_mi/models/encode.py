"""From what a caller passes to encoded inputs that the model can take, without padding."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.encoded_input import ALLOWED, EncodedInput
from hf_attn_mi.models.loading import input_embedding, maximum_length
from hf_attn_mi.models.tensor_inputs import padding_ends, read_tensors, split_rows, with_token_names

Text = str | tuple[str, str]


def encode_texts(
    texts: Sequence[Text],
    model: nn.Module,
    tokenizer: Any,
    truncation: bool,
    tokenizer_options: Mapping[str, Any] | None = None,
) -> list[EncodedInput]:
    """The encoded inputs of texts and pairs of texts.

    Args:
        texts: texts and pairs.
        model: takes them.
        tokenizer: of the model.
        truncation: cut what is too long, with a warning.
        tokenizer_options: what a pipeline passes to its tokenizer.

    Raises:
        InvalidInputError: a text without tokens, too long without `truncation`, or ids that the model does not have.
    """
    limit, accepted = maximum_length(model, tokenizer), argument_names(model)
    encoded = []
    for i, text in enumerate(texts):
        one = encode_text(text, tokenizer, limit, truncation, i, tokenizer_options)
        _check(one, one.token_count, i, model, limit)
        known = {key: value for key, value in one.tensors.items() if key in accepted}
        encoded.append(replace(one, tensors=known))
    return encoded


def encode_tensors(tensors: Mapping[str, Any], model: nn.Module, tokenizer: Any) -> list[EncodedInput]:
    """The encoded inputs of a BatchEncoding or another mapping from argument names to tensors, one for each row.

    Rows are as given, padding included; see `EncoderRunner.encode`. Labels are left out, but where an encoder-decoder
    derives the tokens of its decoder from them, these are given in their place.

    Raises:
        InvalidInputError: keys that the model has no argument for, shapes that disagree, values that are not finite,
            too many tokens, or ids that the model does not have.
    """
    limit = maximum_length(model, tokenizer)
    rows = split_rows(read_tensors(_with_decoder_tokens(tensors, model), argument_names(model)))
    for i, one in enumerate(rows):
        start, end = padding_ends(one)
        _check(one, end - start, i, model, limit)
    encodings = getattr(tensors, "encodings", None) or [None] * len(rows)
    return [with_token_names(one, encoding, tokenizer) for one, encoding in zip(rows, encodings)]


def _with_decoder_tokens(tensors: Mapping[str, Any], model: nn.Module) -> Mapping[str, Any]:
    """The mapping with decoder_input_ids where only (batch, tokens) labels say what the decoder reads."""
    labels, prepare = tensors.get("labels"), getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if prepare is None or "decoder_input_ids" in tensors or not isinstance(labels, torch.Tensor) or labels.dim() != 2:
        return tensors
    return {**tensors, "decoder_input_ids": prepare(labels=labels)}


def argument_names(model: nn.Module) -> set[str]:
    """Every argument that the forward of this model takes; with **kwargs also those of the modules inside it."""
    parameters = inspect.signature(model.forward).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return set(parameters)
    classes = {type(module): module for module in reversed(list(model.modules()))}
    return {name for module in classes.values() for name in inspect.signature(module.forward).parameters}


def read_texts(inputs: Any) -> tuple[list[str | tuple[str, str]], bool]:
    """The texts and pairs, and whether a single one was passed.

    Raises:
        InvalidInputError: no texts, or an empty one.
    """
    if isinstance(inputs, str) or _is_pair(inputs):
        items, single = [inputs], True
    elif isinstance(inputs, tuple):
        raise InvalidInputError(
            f"inputs is a tuple of {len(inputs)}: a tuple of two texts is one pair; pass several inputs as a list."
        )
    elif _is_container(inputs):
        items, single = list(inputs), False
    else:
        raise InvalidInputError(f"inputs must be {ALLOWED}; not {type(inputs).__name__}.")
    if not items:
        raise InvalidInputError(f"inputs is an empty {type(inputs).__name__}; allowed is {ALLOWED}.")
    for i, item in enumerate(items):
        if isinstance(item, list) and item and all(isinstance(part, str) for part in item):
            raise InvalidInputError(
                f"inputs[{i}] is a list of {len(item)} strings: is it a pair, or one text as words? Pass a pair as a "
                "tuple, and words joined to one text."
            )
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


def _is_container(value: Any) -> bool:
    """Whether this holds several inputs: a list, an array or column of texts, or an iterator."""
    if isinstance(value, Mapping | bytes) or hasattr(value, "columns"):
        return False
    dtype = getattr(value, "dtype", None)
    if isinstance(value, torch.Tensor) or (dtype is not None and getattr(dtype, "kind", "O") in "biufc"):
        return False
    return isinstance(value, Iterable) and getattr(value, "ndim", 1) == 1


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(part, str) for part in value)


def encode_text(
    text: str | tuple[str, str],
    tokenizer: Any,
    limit: int | None,
    truncation: bool,
    index: int,
    tokenizer_options: Mapping[str, Any] | None = None,
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
    if tokenizer_options:
        full = tokenizer(*parts, return_special_tokens_mask=True, verbose=False, **options, **tokenizer_options)
        kept = len(full["input_ids"])
        if kept < length:
            notes = (f"input {index} was cut from {length} to {kept} tokens by the pipeline's own settings.",)
        length = kept
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
        warnings.warn(notes[0], stacklevel=5)
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


def _check(example: EncodedInput, real: int, index: int, model: nn.Module, limit: int | None) -> None:
    if example.length is None:
        return
    if limit is not None and real > limit:
        raise InvalidInputError(f"inputs[{index}] has {real} tokens, the model takes {limit}. Shorten it.")
    table = input_embedding(model)
    ids, embeds = example.tensors.get("input_ids"), example.tensors.get("inputs_embeds")
    if table is None:
        return
    if embeds is not None and embeds.shape[-1] != table.embedding_dim:
        raise InvalidInputError(
            f"inputs['inputs_embeds'] has width {embeds.shape[-1]}, the embeddings of {type(model).__name__} have "
            f"{table.embedding_dim}."
        )
    if ids is not None and (int(ids.max()) >= table.num_embeddings or int(ids.min()) < 0):
        wrong = int(ids.min()) if int(ids.min()) < 0 else int(ids.max())
        raise InvalidInputError(
            f"inputs[{index}] holds token id {wrong}, but {type(model).__name__} has embeddings for ids 0 to "
            f"{table.num_embeddings - 1} only: the tokenizer is another model's. Pass the one saved with this model."
        )
