"""From what the caller passes to unpadded examples that this model can take."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.methods.relevance import input_embedding
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.loading import own_tokenizer
from hf_attn_mi.models.tensor_inputs import read_tensors, tensor_examples, with_names
from hf_attn_mi.models.text_inputs import encode_text, read_texts

POSITIONS = {  # tables with one row a position; `embed_positions` and `wpe` of BART and GPT-2
    "position_embeddings",
    "position_embedding",
    "positions_embed",
    "embed_positions",
    "wpe",
}


def read_inputs(
    inputs: Any, model: nn.Module, tokenizer: Any, truncation: bool
) -> tuple[list[EncodedInput], Any, bool]:
    """The examples, the tokenizer (None for tensors without one) and whether a single input was passed.

    Raises:
        InvalidInputError: empty, of the wrong type, too long, or with ids the model does not have.
    """
    limit = maximum_length(model, tokenizer)
    accepted = _argument_names(model)
    if isinstance(inputs, Mapping):
        tensors = read_tensors(inputs, accepted)
        examples = tensor_examples(tensors)
        single = len(examples) == 1
        for i, example in enumerate(examples):
            _check(example, i, model, limit)
        encodings = getattr(inputs, "encodings", None) or [None] * len(examples)
        examples = [with_names(example, encoding, tokenizer) for example, encoding in zip(examples, encodings)]
    else:
        texts, single = read_texts(inputs)
        tokenizer = own_tokenizer(model) if tokenizer is None else tokenizer
        limit = maximum_length(model, tokenizer)
        examples = []
        for i, text in enumerate(texts):
            example = encode_text(text, tokenizer, limit, truncation, i)
            _check(example, i, model, limit)
            known = {key: value for key, value in example.tensors.items() if key in accepted}
            examples.append(replace(example, tensors=known))
    return examples, tokenizer, single


def _argument_names(model: nn.Module) -> set[str]:
    """Every argument that the forward of this model, or of a module inside it, has a name for."""
    homes = {type(module): module for module in reversed(list(model.modules()))}
    return {name for module in homes.values() for name in inspect.signature(module.forward).parameters}


def maximum_length(model: nn.Module, tokenizer: Any) -> int | None:
    """Most tokens the model takes; None where nothing limits them."""
    limits = []
    stated = getattr(tokenizer, "model_max_length", None)
    if isinstance(stated, int) and stated < 1_000_000:
        limits.append(stated)
    for name, module in model.named_modules():
        seen = any(word in name for word in ("vision", "visual", "image"))  # a table of patches, not of tokens
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in POSITIONS and not seen:
            start = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - max(start, int(getattr(module, "offset", 0) or 0)))
    return min(limits) if limits else None


def _check(example: EncodedInput, index: int, model: nn.Module, limit: int | None) -> None:
    if example.length is None:
        return
    if limit is not None and example.length > limit:
        raise InvalidInputError(f"inputs[{index}] has {example.length} tokens, the model takes {limit}. Shorten it.")
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
