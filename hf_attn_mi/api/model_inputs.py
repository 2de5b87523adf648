"""From what the caller passes to unpadded examples."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.api.loading import own_tokenizer
from hf_attn_mi.errors import InvalidInput

MAIN_KEYS = (
    "input_ids", "inputs_embeds", "pixel_values", "input_features", "input_values", "inputs", "pixel_values_videos",
)  # fmt: skip
BOOKKEEPING = {  # what tokenizers return beside the model's arguments
    "offset_mapping", "special_tokens_mask", "overflow_to_sample_mapping", "overflowing_tokens", "length",
    "num_truncated_tokens",
}  # fmt: skip
POSITIONS = {  # tables with one row a position; `embed_positions` and `wpe` of BART and GPT-2
    "position_embeddings", "position_embedding", "positions_embed", "embed_positions", "wpe",
}  # fmt: skip
ALLOWED = (
    "a text, a pair (tuple) of texts, a list of either, or a dict / BatchEncoding of tensors with one of "
    + ", ".join(MAIN_KEYS)
)


@dataclass(frozen=True, eq=False)
class Example:
    """One input, without padding at its ends."""

    tensors: dict[str, Tensor]  # each (tokens, ...) for sequences, else one element of the batch
    length: int | None  # number of tokens; None where the model decides (images, audio)
    start: int = 0  # columns of padding cut off on the left
    texts: tuple[str, ...] = ()
    tokens: tuple[str, ...] | None = None
    offsets: tuple[tuple[int, int], ...] | None = None
    sequence_ids: tuple[int | None, ...] | None = None
    word_ids: tuple[int | None, ...] | None = None
    special: tuple[bool, ...] | None = None
    warnings: tuple[str, ...] = field(default_factory=tuple)


def read_inputs(inputs: Any, model: nn.Module, tokenizer: Any, truncation: bool) -> tuple[list[Example], Any, bool]:
    """The examples, the tokenizer (None for tensors without one) and whether a single input was passed.

    Raises:
        InvalidInput: empty, of the wrong type, too long, or with ids the model does not have.
    """
    limit = maximum_length(model, tokenizer)
    accepted = _argument_names(model)
    if isinstance(inputs, Mapping):
        tensors = _tensors(inputs, accepted)
        examples = _from_tensors(tensors)
        single = len(examples) == 1
        for i, example in enumerate(examples):
            _check(example, i, model, limit)
        encodings = getattr(inputs, "encodings", None) or [None] * len(examples)
        examples = [_named(example, encoding, tokenizer) for example, encoding in zip(examples, encodings)]
    else:
        texts, single = _texts(inputs)
        tokenizer = own_tokenizer(model) if tokenizer is None else tokenizer
        limit = maximum_length(model, tokenizer)
        examples = []
        for i, text in enumerate(texts):
            example = _encode(text, tokenizer, limit, truncation, i)
            _check(example, i, model, limit)
            known = {key: value for key, value in example.tensors.items() if key in accepted}
            examples.append(replace(example, tensors=known))
    return examples, tokenizer, single


def _argument_names(model: nn.Module) -> set[str]:
    """Every argument that the forward of this model, or of a module inside it, has a name for."""
    homes = {type(module): module for module in reversed(list(model.modules()))}
    return {name for module in homes.values() for name in inspect.signature(module.forward).parameters}


def _texts(inputs: Any) -> tuple[list[str | tuple[str, str]], bool]:
    if isinstance(inputs, str) or _is_pair(inputs):
        items, single = [inputs], True
    elif isinstance(inputs, (list, tuple)):
        items, single = list(inputs), False
    else:
        raise InvalidInput(f"inputs must be {ALLOWED}; not {type(inputs).__name__}.")
    if not items:
        raise InvalidInput(f"inputs is an empty {type(inputs).__name__}; allowed is {ALLOWED}.")
    for i, item in enumerate(items):
        if isinstance(item, list) and len(item) == 2 and all(isinstance(part, str) for part in item):
            items[i] = item = tuple(item)
        if not isinstance(item, str) and not _is_pair(item):
            raise InvalidInput(
                f"inputs[{i}] must be a text or a pair of texts, not {type(item).__name__}: {repr(item)[:80]}; "
                "pass token ids as a dict: inputs={'input_ids': [[...]]}."
            )
        for part in (item,) if isinstance(item, str) else item:
            if not part.strip():
                raise InvalidInput(f"inputs[{i}] is an empty text ({part!r}); pass at least one visible character.")
    return items, single


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(part, str) for part in value)


def maximum_length(model: nn.Module, tokenizer: Any) -> int | None:
    """Most tokens the model takes; None where nothing limits them."""
    limits = []
    stated = getattr(tokenizer, "model_max_length", None)
    if isinstance(stated, int) and stated < 1_000_000:
        limits.append(stated)
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in POSITIONS:
            start = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - max(start, int(getattr(module, "offset", 0) or 0)))
    return min(limits) if limits else None


def _encode(text: str | tuple[str, str], tokenizer: Any, limit: int | None, truncation: bool, index: int) -> Example:
    parts = (text,) if isinstance(text, str) else text
    fast = bool(getattr(tokenizer, "is_fast", False))
    options = {"return_offsets_mapping": True} if fast else {}
    full = tokenizer(*parts, return_special_tokens_mask=True, verbose=False, **options)
    notes: tuple[str, ...] = ()
    length = len(full["input_ids"])
    if limit is not None and length > limit:
        if not truncation:
            raise InvalidInput(
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
        raise InvalidInput(
            f"inputs[{index}] has no token of its own ({text!r}): the tokenizer drops all of it. Pass a text with at "
            "least one visible character."
        )
    return Example(
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


def _tensors(inputs: Mapping[str, Any], accepted: set[str]) -> dict[str, Tensor]:
    """The model's arguments as tensors, outside of inference mode, in which no gradient can be taken."""
    if not inputs:
        raise InvalidInput(f"inputs is an empty {type(inputs).__name__}; allowed is {ALLOWED}.")
    unknown = [key for key in inputs if key not in accepted | BOOKKEEPING]
    if unknown:
        raise InvalidInput(
            f"inputs has keys {unknown} that this model does not know; it needs one of {', '.join(MAIN_KEYS)}."
        )
    tensors: dict[str, Tensor] = {}
    for key, value in inputs.items():
        if value is None or key not in accepted:
            continue
        try:
            tensor = value if isinstance(value, Tensor) else torch.tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidInput(
                f"inputs[{key!r}] must be a tensor or lists of equal length, not {type(value).__name__}: {error}."
            ) from error
        tensors[key] = tensor.clone() if tensor.is_inference() else tensor
    return tensors


def _from_tensors(tensors: dict[str, Tensor]) -> list[Example]:
    main = next((key for key in MAIN_KEYS if key in tensors), None)
    if main is None:
        raise InvalidInput(f"inputs has keys {list(tensors)}; one of {', '.join(MAIN_KEYS)} is needed.")
    sequence = main in ("input_ids", "inputs_embeds", "inputs") and tensors[main].dim() <= 3
    wanted = {"input_ids": 2, "inputs_embeds": 3}.get(main)
    if wanted is not None and tensors[main].dim() == wanted - 1:
        tensors = {key: value.unsqueeze(0) for key, value in tensors.items()}
    if wanted is not None and tensors[main].dim() != wanted:
        raise InvalidInput(
            f"inputs[{main!r}] must have {wanted} dimensions, batch first, not shape {tuple(tensors[main].shape)}."
        )
    if main == "input_ids" and (tensors[main].is_floating_point() or tensors[main].dtype == torch.bool):
        raise InvalidInput(f"inputs['input_ids'] must be whole numbers, not {tensors[main].dtype}.")
    count = tensors[main].shape[0]
    if count == 0 or tensors[main].numel() == 0:
        raise InvalidInput(f"inputs[{main!r}] is empty: shape {tuple(tensors[main].shape)}.")
    for key, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise InvalidInput(f"inputs[{key!r}] holds NaN or infinite entries; every entry must be finite.")
        if value.dim() and value.shape[0] != count:
            raise InvalidInput(
                f"inputs[{key!r}] has {value.shape[0]} rows, inputs[{main!r}] has {count}; every tensor is batch first."
            )
    return [_one(tensors, i, main, sequence) for i in range(count)]


def _one(tensors: dict[str, Tensor], i: int, main: str, sequence: bool) -> Example:
    own = {key: value[i] for key, value in tensors.items() if value.dim()}
    if not sequence:
        return Example(tensors=own, length=None)
    length = own[main].shape[0]
    start = 0
    mask = own.get("attention_mask")
    if mask is not None and mask.dim() == 1:
        if mask.shape[0] != length:
            raise InvalidInput(f"inputs['attention_mask'] has {mask.shape[0]} columns, {main!r} has {length}.")
        real = mask.nonzero()[:, 0]
        if real.numel() == 0:
            raise InvalidInput(f"inputs['attention_mask'] is zero for every token of input {i}; one must be real.")
        start, end = int(real[0]), int(real[-1]) + 1
        own = {k: v[start:end] if per_token(k, v, length) else v for k, v in own.items()}
    return Example(tensors=own, length=own[main].shape[0], start=start)


def per_token(key: str, value: Tensor, length: int) -> bool:
    """Whether this argument has an entry for each token (a decoder's own tokens are others)."""
    return value.dim() > 0 and value.shape[0] == length and not key.startswith(("decoder_", "labels"))


def _named(example: Example, encoding: Any, tokenizer: Any) -> Example:
    """The example with its tokens' names: from a fast tokenizer's encoding, else from the tokenizer, else ids."""
    if example.length is None or "input_ids" not in example.tensors:
        return example
    ids = example.tensors["input_ids"].tolist()
    span = slice(example.start, example.start + example.length)
    if encoding is not None and encoding.ids[span] == ids:
        return replace(
            example, tokens=tuple(encoding.tokens[span]), special=tuple(map(bool, encoding.special_tokens_mask[span])),
            word_ids=tuple(encoding.word_ids[span]), sequence_ids=tuple(encoding.sequence_ids[span]),
        )  # fmt: skip
    if tokenizer is None:
        return replace(example, tokens=tuple(map(str, ids)))
    in_text = {getattr(tokenizer, "unk_token_id", None), getattr(tokenizer, "mask_token_id", None)}
    special = set(tokenizer.all_special_ids) - in_text
    tokens = tuple(str(token) for token in tokenizer.convert_ids_to_tokens(ids))
    return replace(example, tokens=tokens, special=tuple(token in special for token in ids))


def _check(example: Example, index: int, model: nn.Module, limit: int | None) -> None:
    if example.length is None:
        return
    if limit is not None and example.length > limit:
        raise InvalidInput(f"inputs[{index}] has {example.length} tokens, the model takes {limit}. Shorten it.")
    table = _embedding(model)
    ids, embeds = example.tensors.get("input_ids"), example.tensors.get("inputs_embeds")
    if table is None:
        return
    if embeds is not None and embeds.shape[-1] != table.embedding_dim:
        raise InvalidInput(
            f"inputs['inputs_embeds'] has width {embeds.shape[-1]}, the embeddings of {type(model).__name__} have "
            f"{table.embedding_dim}."
        )
    if ids is not None and (int(ids.max()) >= table.num_embeddings or int(ids.min()) < 0):
        wrong = int(ids.min()) if int(ids.min()) < 0 else int(ids.max())
        raise InvalidInput(
            f"inputs[{index}] holds token id {wrong}, but {type(model).__name__} has embeddings for ids 0 to "
            f"{table.num_embeddings - 1} only: the tokenizer is another model's. Pass the one saved with this model."
        )


def _embedding(model: nn.Module) -> nn.Embedding | None:
    try:
        module = model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    return module if isinstance(module, nn.Embedding) else None
