"""Check tensors before the model runs; errors name the argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.capture.model_cache import cached
from hf_attn_mi.capture.module_names import named_modules
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.encoded_input import PER_TOKEN, EncodedInput, is_query_mask
from hf_attn_mi.models.loading import input_embedding, position_tables

DTYPES = {
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
}
INDEX_DTYPES = {torch.int32, torch.int64}
INDICES = ("input_ids", "token_type_ids", "position_ids", "decoder_input_ids", "decoder_position_ids")


def check_tensor(key: str, value: Tensor) -> None:
    """Refuse a tensor without plain values in memory, or of a type that no model takes under this name.

    Raises:
        InvalidInputError: the message says how to convert it.
    """
    kinds = {
        "on the meta device, so that it has no values: pass a tensor with data": value.is_meta,
        "nested: pass a padded tensor, nested.to_padded_tensor(0), and its attention_mask": value.is_nested,
        "sparse: pass it with .to_dense()": value.layout != torch.strided,
        "quantized: pass it with .dequantize()": value.is_quantized,
    }
    for kind, applies in kinds.items():
        if applies:
            raise InvalidInputError(f"inputs[{key!r}] is {kind}.")
    if value.dtype not in DTYPES:
        raise InvalidInputError(f"inputs[{key!r}] has the dtype {value.dtype}; pass it with .long() or .float().")
    if key in INDICES and value.dtype not in INDEX_DTYPES:
        raise InvalidInputError(f"inputs[{key!r}] must be whole numbers, not {value.dtype}: pass it with .long().")
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        raise InvalidInputError(f"inputs[{key!r}] holds NaN or infinite entries; every entry must be finite.")


def plain_values(value: Any, name: str) -> Any:
    """A tensor or an array as (lists of) plain numbers; anything else as it is.

    Raises:
        InvalidInputError: a tensor without values in memory; names the argument.
    """
    if not hasattr(value, "tolist"):
        return value
    try:
        return value.tolist()
    except (RuntimeError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"{name} must hold plain numbers; this {type(value).__name__} gives none: {error}"
        ) from error


def check_lengths(one: EncodedInput, main: str, index: int) -> None:
    """Refuse arguments for each token that do not have one entry for each.

    Raises:
        InvalidInputError: a wrong length, or a mask without any real token.
    """
    for key, value in one.tensors.items():
        wrong = key in PER_TOKEN and not is_query_mask(key, value) and (not value.dim() or value.shape[0] != one.length)
        if wrong:
            columns = value.shape[0] if value.dim() else "no"
            raise InvalidInputError(f"inputs[{key!r}] has {columns} columns, {main!r} has {one.length}.")
    mask = one.tensors.get("attention_mask")
    if mask is not None and not bool(mask.any()):
        raise InvalidInputError(f"inputs['attention_mask'] is zero for every token of input {index}; one must be real.")


@dataclass(frozen=True)
class InputRanges:
    """How long an input of a model may be, and which ids its tables have. Read once for all inputs of a call.

    Attributes:
        model_class: name of the model's class, for messages.
        limit: the maximum number of tokens; None for no limit.
        vocabulary: number of token embeddings; None if the model names no table.
        width: width of these embeddings.
        rows: argument -> number of rows of the smallest table that it is looked up in.
    """

    model_class: str
    limit: int | None
    vocabulary: int | None
    width: int | None
    rows: Mapping[str, int]

    @classmethod
    def of(cls, model: nn.Module, limit: int | None) -> InputRanges:
        """The ranges of a model.

        Args:
            model: the model that takes the inputs.
            limit: the maximum number of tokens; None for no limit.
        """
        table = input_embedding(model)
        positions = [size for size, _ in position_tables(model)]
        types = cached(model, "token types", lambda: _token_type_rows(model))
        found = {"token_type_ids": types, "position_ids": positions}
        return cls(
            type(model).__name__,
            limit,
            None if table is None else table.num_embeddings,
            None if table is None else table.embedding_dim,
            {key: min(rows) for key, rows in found.items() if rows},
        )

    def check(self, one: EncodedInput, real: int, index: int) -> None:
        """Refuse an input with more tokens than the model takes, or ids that its tables do not have.

        Args:
            one: the input.
            real: the number of its tokens that are not padding.
            index: its place in the caller's inputs, for messages.

        Raises:
            InvalidInputError: names the input and the entry.
        """
        if one.length is None:
            return
        if self.limit is not None and real > self.limit:
            raise InvalidInputError(f"inputs[{index}] has {real} tokens, the model takes {self.limit}. Shorten it.")
        ids, embeds = one.tensors.get("input_ids"), one.tensors.get("inputs_embeds")
        if self.width is not None and embeds is not None and embeds.shape[-1] != self.width:
            raise InvalidInputError(
                f"inputs['inputs_embeds'] has width {embeds.shape[-1]}, the embeddings of {self.model_class} have "
                f"{self.width}."
            )
        if self.vocabulary is not None and ids is not None and (wrong := _outside(ids, self.vocabulary)) is not None:
            raise InvalidInputError(
                f"inputs[{index}] holds token id {wrong}, but {self.model_class} has embeddings for ids 0 to "
                f"{self.vocabulary - 1} only: the tokenizer is another model's. Pass the one saved with this model."
            )
        for key, count in self.rows.items():
            value = one.tensors.get(key)
            if value is not None and value.dim() == 1 and (wrong := _outside(value, count)) is not None:
                raise InvalidInputError(
                    f"inputs[{key!r}] holds {wrong} in input {index}, but {self.model_class} has embeddings for 0 to "
                    f"{count - 1} only."
                )


def _token_type_rows(model: nn.Module) -> list[int]:
    return [
        module.num_embeddings
        for name, module in named_modules(model).items()
        if name.rpartition(".")[2] == "token_type_embeddings" and isinstance(module, nn.Embedding)
    ]


def _outside(values: Tensor, count: int) -> int | None:
    """An entry that is below zero or not below `count`; None if there is none."""
    least, most = (int(value) for value in torch.aminmax(values))
    return least if least < 0 else most if most >= count else None
