"""Convert mappings of tensors to encoded inputs."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.encoded_input import ALLOWED, MAIN_KEYS, EncodedInput, per_token
from hf_attn_mi.models.tensor_checks import check_lengths, check_tensor

BOOKKEEPING = {  # entries that tokenizers return in addition to the model's arguments
    "offset_mapping",
    "special_tokens_mask",
    "overflow_to_sample_mapping",
    "overflowing_tokens",
    "length",
    "num_truncated_tokens",
}
SWITCHES = {"output_attentions", "output_hidden_states", "return_dict", "return_loss", "use_cache"}
LABELS = {"labels", "label", "label_ids", "start_positions", "end_positions", "next_sentence_label"}  # for a loss only


def no_main_argument(accepted: Set[str]) -> str:
    """The message about a model whose forward has none of the arguments that inputs are passed by."""
    return (
        f"model: its forward takes ({', '.join(sorted(accepted))}) and none of {', '.join(MAIN_KEYS)}, so inputs "
        "cannot be passed by name. Pass the model inside it, or a torch.nn.Module whose forward takes input_ids (and "
        "attention_mask) and calls it."
    )


def read_tensors(inputs: Mapping[str, Any], accepted: Set[str]) -> dict[str, Tensor]:
    """The model's arguments as tensors, copied out of inference mode, in which no gradient can be taken.

    Labels are left out: they belong to a loss, and with them a model may compute another output.

    Raises:
        InvalidInputError: nothing, keys the model has no argument for, or values that make no tensor.
    """
    if not inputs:
        raise InvalidInputError(f"inputs is an empty {type(inputs).__name__}; allowed is {ALLOWED}.")
    switches = [key for key in inputs if key in SWITCHES]
    if switches:
        raise InvalidInputError(
            f"inputs has {switches}: this is how the model is called, not what it reads. Leave it out: the attention "
            "and the states that are needed are captured without it, and scores, targets and probabilities do not "
            "depend on it."
        )
    if not set(accepted).intersection(MAIN_KEYS):
        raise InvalidInputError(no_main_argument(accepted))
    unknown = [key for key in inputs if key not in accepted | BOOKKEEPING | LABELS]
    if unknown:
        pair = " Two texts are a tuple: (question, context)." if {"question", "context"} <= set(unknown) else ""
        raise InvalidInputError(
            f"inputs has keys {unknown} that this model does not know; it needs one of {', '.join(MAIN_KEYS)}.{pair}"
        )
    tensors: dict[str, Tensor] = {}
    for key, value in inputs.items():
        if value is None or key not in accepted or key in LABELS:
            continue
        try:
            tensor = value if isinstance(value, Tensor) else torch.tensor(value)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise InvalidInputError(
                f"inputs[{key!r}] must be a tensor or lists of equal length, not {type(value).__name__}: {error}."
            ) from error
        check_tensor(key, tensor)
        tensors[key] = tensor.clone() if tensor.is_inference() else tensor
    return tensors


def split_rows(tensors: dict[str, Tensor], model: nn.Module) -> list[EncodedInput]:
    """One encoded input for each row, as given, padding included.

    Arguments for each token are known by their names (`PER_TOKEN`); every other argument goes to the model row by row.

    Raises:
        InvalidInputError: no main input, shapes that disagree, or entries that are not finite.
    """
    main = next((key for key in MAIN_KEYS if key in tensors), None)
    if main is None:
        raise InvalidInputError(f"inputs has keys {list(tensors)}; one of {', '.join(MAIN_KEYS)} is needed.")
    if "input_ids" in tensors and "inputs_embeds" in tensors:
        raise InvalidInputError("inputs has both 'input_ids' and 'inputs_embeds'; pass one of them.")
    for key, value in tensors.items():
        if value.dim() == 0 and key != main:
            raise InvalidInputError(
                f"inputs[{key!r}] is a single value for all inputs, {value.item()!r}; each argument needs one row for "
                "each input. Fix the value in the model instead: pass a torch.nn.Module whose forward calls it with "
                f"this {key}=."
            )
    sequence = main in ("input_ids", "inputs_embeds", "inputs") and tensors[main].dim() <= 3
    dimensions = {"input_ids": 2, "inputs_embeds": 3}.get(main)
    if dimensions is not None and tensors[main].dim() == dimensions - 1:
        tensors = {key: value.unsqueeze(0) for key, value in tensors.items()}
    if dimensions is not None and tensors[main].dim() != dimensions:
        raise InvalidInputError(
            f"inputs[{main!r}] must have {dimensions} dimensions, batch first, not shape {tuple(tensors[main].shape)}."
        )
    if tensors[main].dim() == 0:
        raise InvalidInputError(f"inputs[{main!r}] is a single number; every tensor is batch first.")
    count = tensors[main].shape[0]
    if count == 0 or tensors[main].numel() == 0:
        raise InvalidInputError(f"inputs[{main!r}] is empty: shape {tuple(tensors[main].shape)}.")
    for key, value in tensors.items():
        if value.shape[0] != count:
            raise InvalidInputError(
                f"inputs[{key!r}] has {value.shape[0]} rows, inputs[{main!r}] has {count}; every tensor is batch first."
            )
    return [_one(tensors, i, main, sequence) for i in range(count)]


def _one(tensors: dict[str, Tensor], i: int, main: str, sequence: bool) -> EncodedInput:
    row = {key: value[i] for key, value in tensors.items()}
    if not sequence:
        return EncodedInput(tensors=row, length=None)
    length = row[main].shape[0]
    one = EncodedInput(tensors=row, length=length)
    check_lengths(one, main, i)
    return one


def padding_ends(one: EncodedInput) -> tuple[int, int]:
    """(start, end): the real tokens lie in one[start:end]; the whole input where there is no padding at its ends."""
    mask = one.tensors.get("attention_mask")
    if one.length is None or mask is None or mask.dim() != 1:
        return 0, one.token_count
    real = mask.nonzero()[:, 0]
    return int(real[0]), int(real[-1]) + 1


def with_positions(one: EncodedInput) -> EncodedInput:
    """The input with the position of each token counted from 0, unless it states its positions already."""
    return replace(one, tensors={"position_ids": torch.arange(one.token_count), **one.tensors})


def without_padding(one: EncodedInput, *, position_ids: bool) -> EncodedInput:
    """The input without the padding at its ends.

    Args:
        one: the input with padding.
        position_ids: state the positions that the tokens have in the padded row.
    """
    start, end = padding_ends(one)
    tensors = with_positions(one).tensors if position_ids else one.tensors

    def cut(values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        return None if values is None else values[start:end]

    length = one.token_count
    return replace(
        one,
        tensors={k: v[start:end] if per_token(k, v, length) else v for k, v in tensors.items()},
        length=end - start,
        start=start,
        tokens=cut(one.tokens),
        offsets=cut(one.offsets),
        sequence_ids=cut(one.sequence_ids),
        word_ids=cut(one.word_ids),
        special=cut(one.special),
    )
