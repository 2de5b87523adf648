"""Encode what a caller passes as inputs that the model can take, without padding."""

from __future__ import annotations

import inspect
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from functools import lru_cache
from types import FrameType
from typing import Any

import torch
from torch import nn

from hf_attn_mi.capture.model_cache import cached
from hf_attn_mi.capture.module_walk import modules_of
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.encoded_input import MAIN_KEYS, EncodedInput, EncodedInputs, FailedInput
from hf_attn_mi.models.loading import maximum_length
from hf_attn_mi.models.tensor_checks import InputRanges
from hf_attn_mi.models.tensor_inputs import no_main_argument, padding_ends, read_tensors, split_rows
from hf_attn_mi.models.texts import TextParts, read_item, read_items, shown_texts
from hf_attn_mi.models.token_names import with_token_names
from hf_attn_mi.models.words import number_words, trimmed


def encode_texts(
    inputs: Any,
    model: nn.Module,
    require_tokenizer: Callable[[], Any],
    *,
    truncation: bool = False,
    is_split_into_words: bool = False,
    tokenizer_options: Mapping[str, Any] | None = None,
    skip: bool = False,
    unlimited: bool = False,
) -> EncodedInputs:
    """The encoded inputs of texts and pairs of texts.

    Args:
        inputs: a text, a pair, or a container of them.
        model: the model that takes the inputs.
        require_tokenizer: returns the tokenizer of the model.
        truncation: cut what is too long, with a warning.
        is_split_into_words: texts are lists of words.
        tokenizer_options: what a pipeline passes to its tokenizer.
        skip: keep what cannot be encoded in `failures`; else the first such input raises.
        unlimited: take texts that are longer than the model's limit as they are, for windows.

    Raises:
        InvalidInputError: no texts; unless they are skipped: an empty text, one without tokens, too long without
            `truncation`, or ids that the model does not have.
    """
    items, single = read_items(inputs, is_split_into_words=is_split_into_words)
    parts, failures = list[tuple[int, TextParts]](), dict[int, FailedInput]()
    skip = skip and not single
    for i, item in enumerate(items):
        try:
            parts.append((i, read_item(item, i, is_split_into_words=is_split_into_words)))
        except InvalidInputError as error:
            if not skip:
                raise
            failures[i] = FailedInput(shown_texts(item), error)
    if not parts:
        return EncodedInputs([], [], failures, single)
    tokenizer = require_tokenizer()
    limit, accepted = None if unlimited else maximum_length(model, tokenizer), argument_names(model)
    if not accepted.intersection(MAIN_KEYS):
        raise InvalidInputError(no_main_argument(accepted))
    ranges, encoded = InputRanges.of(model, limit), list[EncodedInput]()
    for i, one_parts in parts:
        try:
            one = encode_text(one_parts, tokenizer, limit, truncation, i, tokenizer_options)
            if not has_tokens(one):
                raise InvalidInputError(
                    f"inputs[{i}] has no tokens other than special ones ({one.texts!r}): the tokenizer drops all of "
                    "it. Pass a text with at least one visible character."
                )
            ranges.check(one, one.token_count, i)
        except InvalidInputError as error:
            if not skip:
                raise
            failures[i] = FailedInput(one_parts.texts, error)
        else:
            known = {key: value for key, value in one.tensors.items() if key in accepted}
            encoded.append(replace(one, tensors=known))
    return EncodedInputs(encoded, [i for i, _ in parts if i not in failures], failures, single)


def encode_tensors(inputs: Mapping[str, Any], model: nn.Module, tokenizer: Any, *, skip: bool = False) -> EncodedInputs:
    """The encoded inputs of a BatchEncoding or another mapping from argument names to tensors, one for each row.

    Rows are as given, padding included; see `EncoderRunner.encode`. Labels are left out, but where an encoder-decoder
    derives the tokens of its decoder from them, these are given in their place.

    Raises:
        InvalidInputError: keys that the model has no argument for, shapes that disagree, values that are not finite,
            too many tokens, or ids, types or positions that the model does not have.
    """
    ranges = InputRanges.of(model, maximum_length(model, tokenizer))
    rows = split_rows(read_tensors(_with_decoder_tokens(inputs, model), argument_names(model)), model)
    encodings = getattr(inputs, "encodings", None) or [None] * len(rows)
    encoded, failures = dict[int, EncodedInput](), dict[int, FailedInput]()
    for i, (row, encoding) in enumerate(zip(rows, encodings)):
        try:
            start, end = padding_ends(row)
            ranges.check(row, end - start, i)
        except InvalidInputError as error:
            if not skip or len(rows) == 1:
                raise
            failures[i] = FailedInput((), error)
        else:
            encoded[i] = with_token_names(row, encoding, tokenizer, inputs, i)
    return EncodedInputs(list(encoded.values()), list(encoded), failures, len(rows) == 1)


def _with_decoder_tokens(tensors: Mapping[str, Any], model: nn.Module) -> Mapping[str, Any]:
    """The mapping with decoder_input_ids where only (batch, tokens) labels say what the decoder reads."""
    labels, prepare = tensors.get("labels"), getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if prepare is None or "decoder_input_ids" in tensors or not isinstance(labels, torch.Tensor) or labels.dim() != 2:
        return tensors
    return {**tensors, "decoder_input_ids": prepare(labels=labels)}


def argument_names(model: nn.Module) -> frozenset[str]:
    """Every argument that the forward of this model takes; with **kwargs also those of the modules inside it."""
    parameters = _parameters(model)
    if not any(kind is inspect.Parameter.VAR_KEYWORD for kind in parameters.values()):
        return frozenset(parameters)
    return cached(model, "argument names", lambda: _all_argument_names(model))


def _all_argument_names(model: nn.Module) -> frozenset[str]:
    names: set[str] = set()
    classes = set()
    for module in modules_of(model):
        if "forward" in module.__dict__:  # replaced for this module alone
            names.update(inspect.signature(module.forward).parameters)
        else:
            classes.add(type(module))
    return frozenset(names.union(*(_class_parameters(kind.forward) for kind in classes)))


def _parameters(model: nn.Module) -> Mapping[str, Any]:
    """The arguments of the forward of this model and their kinds."""
    if "forward" not in model.__dict__:
        return _class_parameters(type(model).forward)
    return {name: parameter.kind for name, parameter in inspect.signature(model.forward).parameters.items()}


def forward_parameters(model: nn.Module) -> Set[str]:
    """The names of the arguments of the forward of this model."""
    return _parameters(model).keys()


@lru_cache(maxsize=1024)  # reading the signatures of every class of a model takes milliseconds
def _class_parameters(forward: Callable[..., Any]) -> Mapping[str, Any]:
    parameters = list(inspect.signature(forward).parameters.items())[1:]
    return {name: parameter.kind for name, parameter in parameters}


def encode_text(
    parts: TextParts,
    tokenizer: Any,
    limit: int | None,
    truncation: bool,
    index: int,
    tokenizer_options: Mapping[str, Any] | None = None,
) -> EncodedInput:
    """The encoded input of one text or pair, its place in `inputs` being `index`.

    Raises:
        InvalidInputError: more tokens than `limit` without `truncation`, or what the tokenizer refuses.
    """
    full = _tokenize(parts, tokenizer, index)
    notes: tuple[str, ...] = ()
    length = len(full["input_ids"])
    if tokenizer_options:
        full = _tokenize(parts, tokenizer, index, **tokenizer_options)
        kept = len(full["input_ids"])
        if kept < length:
            notes = (f"input {index} was cut from {length} to {kept} tokens by the settings of the pipeline or model.",)
        length = kept
    if limit is not None and length > limit:
        if not truncation:
            raise InvalidInputError(
                f"inputs[{index}] has {length} tokens, the model takes {limit}. Shorten it, or pass truncation=True to "
                "use its first part only."
            )
        full = _tokenize(parts, tokenizer, index, truncation=True, max_length=limit)
        notes = (f"input {index} was cut from {length} to {limit} tokens; the rest was not seen by the model.",)
        warnings.warn(notes[0], stacklevel=caller_level())
    special = tuple(map(bool, full["special_tokens_mask"]))
    fast = "offset_mapping" in full
    one = EncodedInput(
        tensors={k: torch.tensor(v) for k, v in full.items() if k not in ("offset_mapping", "special_tokens_mask")},
        length=len(full["input_ids"]),
        texts=parts.texts,
        tokens=tuple(map(str, tokenizer.convert_ids_to_tokens(full["input_ids"]))),
        offsets=tuple(map(tuple, full["offset_mapping"])) if fast else None,
        sequence_ids=tuple(full.sequence_ids(0)) if fast else None,
        word_ids=tuple(full.word_ids(0)) if fast else None,
        special=special,
        warnings=notes,
    )
    return _with_words(one, parts) if fast else one


def caller_level() -> int:
    """The `stacklevel` with which a warning of the function that calls this one names the caller of the package.

    That is the caller of the outermost function of the package, however many functions lie between.
    """
    package = __name__.partition(".")[0]
    frames = traceback.walk_stack(sys._getframe(1))
    return 2 + max(n for n, (frame, _) in enumerate(frames) if _package_of(frame) == package)


def _package_of(frame: FrameType) -> str:
    """The package whose code runs in this frame."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def has_tokens(one: EncodedInput) -> bool:
    """Whether the tokenizer made at least one token that is not special."""
    return one.special is None or not all(one.special)


def _tokenize(parts: TextParts, tokenizer: Any, index: int, **options: Any) -> Any:
    """The tokenizer's output for one input; every error names the input."""
    if getattr(tokenizer, "is_fast", False):
        options["return_offsets_mapping"] = True
    texts: Sequence[Any] = parts.texts
    if parts.words is not None:
        texts, options["is_split_into_words"] = [list(words) for words in parts.words], True
    try:
        full = tokenizer(*texts, return_special_tokens_mask=True, verbose=False, **options)
        missing = [name for name in ("input_ids", "special_tokens_mask") if name not in full]
    except Exception as error:  # tokenizers are code of many kinds; some raise plain Exception
        first = (str(error).strip() or "no message").splitlines()[0]
        raise InvalidInputError(
            f"inputs[{index}] cannot be encoded by {type(tokenizer).__name__}: {type(error).__name__}: {first}; "
            f"the text is {parts.texts!r:.80}."
        ) from error
    if missing:
        raise InvalidInputError(
            f"tokenizer: {type(tokenizer).__name__} gives no {', '.join(missing)}; pass a PreTrainedTokenizer."
        )
    return full


def _with_words(one: EncodedInput, parts: TextParts) -> EncodedInput:
    """The input with trimmed offsets and the number of the word of each token, text by text."""
    assert one.offsets is not None
    assert one.sequence_ids is not None
    assert one.word_ids is not None
    assert one.special is not None
    offsets, words = list(one.offsets), list(one.word_ids)
    for sequence, text in enumerate(parts.texts):
        positions = [i for i, number in enumerate(one.sequence_ids) if number == sequence]
        if parts.words is not None:
            starts = _starts(parts.words[sequence])
            for i in positions:  # the offsets count from the beginning of each word
                word = one.word_ids[i]
                start = 0 if word is None else starts[word]
                stop = len(text) if word is None else start + len(parts.words[sequence][word])
                offsets[i] = (min(start + offsets[i][0], stop), min(start + offsets[i][1], stop))
        for i in positions:
            offsets[i] = trimmed(text, *offsets[i])
        if parts.words is None:
            ordinary = [i for i in positions if not one.special[i]]
            numbers = number_words(text, offsets, ordinary, one.word_ids)
            for i in positions:
                words[i] = numbers.get(i)
    return replace(one, offsets=tuple(offsets), word_ids=tuple(words))


def _starts(words: Sequence[str]) -> list[int]:
    """Where each word begins in the words joined by blanks."""
    starts, place = [], 0
    for word in words:
        starts.append(place)
        place += len(word) + 1
    return starts
