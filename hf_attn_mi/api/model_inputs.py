"""From what the caller passes to unpadded examples, and from examples to right-padded batches."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.api.loading import own_tokenizer
from hf_attn_mi.errors import InvalidInput

MAIN_KEYS = (
    "input_ids", "inputs_embeds", "pixel_values", "input_features", "input_values", "inputs", "pixel_values_videos",
)  # fmt: skip
ALLOWED = (
    "a text, a pair (tuple) of texts, a list of either, or a dict / BatchEncoding of tensors with one of "
    + ", ".join(MAIN_KEYS)
)


@dataclass(frozen=True, eq=False)
class Example:
    """One input, without padding at its ends."""

    tensors: dict[str, Tensor]  # each (tokens, ...) for sequences, else one element of the batch
    length: int | None  # number of tokens; None where the model decides (images, audio)
    texts: tuple[str, ...] = ()
    tokens: tuple[str, ...] | None = None
    offsets: tuple[tuple[int, int], ...] | None = None
    sequence_ids: tuple[int | None, ...] | None = None
    word_ids: tuple[int | None, ...] | None = None
    special: tuple[bool, ...] | None = None
    warnings: tuple[str, ...] = field(default_factory=tuple)


def read_inputs(
    inputs: Any, model: nn.Module, tokenizer: Any, truncation: bool
) -> tuple[list[Example], Any, bool]:
    """The examples, the tokenizer (None for tensors without one) and whether a single input was passed.

    Raises:
        InvalidInput: empty, of the wrong type, too long, or with ids the model does not have.
    """
    if isinstance(inputs, Mapping) or hasattr(inputs, "data") and isinstance(getattr(inputs, "data", None), Mapping):
        examples = _from_tensors(dict(inputs), tokenizer)
        single = len(examples) == 1
    else:
        texts, single = _texts(inputs)
        tokenizer = tokenizer or own_tokenizer(model)
        limit = maximum_length(model, tokenizer)
        examples = [_encode(text, tokenizer, limit, truncation, i) for i, text in enumerate(texts)]
    limit = maximum_length(model, tokenizer)
    for i, example in enumerate(examples):
        _check(example, i, model, limit)
    return examples, tokenizer, single


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
            raise InvalidInput(f"inputs[{i}] must be a text or a pair of texts, not {type(item).__name__}: {item!r:.80}.")
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
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in ("position_embeddings", "wpe", "embed_positions"):
            start = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - max(start, int(getattr(module, "offset", 0) or 0)))
    return min(limits) if limits else None


def _encode(text: str | tuple[str, str], tokenizer: Any, limit: int | None, truncation: bool, index: int) -> Example:
    parts = (text,) if isinstance(text, str) else text
    fast = bool(getattr(tokenizer, "is_fast", False))
    options: dict[str, Any] = dict(return_offsets_mapping=True) if fast else {}
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
        warnings.warn(notes[0], stacklevel=5)
    tensors = {k: torch.tensor(v) for k, v in full.items() if k not in ("offset_mapping", "special_tokens_mask")}
    sequence = tuple(full.sequence_ids(0)) if fast else None
    return Example(
        tensors=tensors,
        length=len(full["input_ids"]),
        texts=parts,
        tokens=tuple(tokenizer.convert_ids_to_tokens(full["input_ids"])),
        offsets=tuple(map(tuple, full["offset_mapping"])) if fast else None,
        sequence_ids=sequence,
        word_ids=tuple(full.word_ids(0)) if fast else None,
        special=tuple(map(bool, full["special_tokens_mask"])),
        warnings=notes,
    )


def _from_tensors(inputs: dict[str, Any], tokenizer: Any) -> list[Example]:
    if not inputs:
        raise InvalidInput(f"inputs is an empty dict; allowed is {ALLOWED}.")
    tensors: dict[str, Tensor] = {}
    for key, value in inputs.items():
        if value is None:
            continue
        try:
            tensors[key] = value if isinstance(value, Tensor) else torch.tensor(value)
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"inputs[{key!r}] must be a tensor, not {type(value).__name__}: {error}.") from error
    main = next((key for key in MAIN_KEYS if key in tensors), None)
    if main is None:
        raise InvalidInput(f"inputs has keys {sorted(tensors)}; one of {', '.join(MAIN_KEYS)} is needed.")
    sequence = main in ("input_ids", "inputs_embeds", "inputs") and tensors[main].dim() <= 3
    wanted = {"input_ids": 2, "inputs_embeds": 3}.get(main)
    if wanted is not None and tensors[main].dim() == wanted - 1:
        tensors = {key: value.unsqueeze(0) for key, value in tensors.items()}
    if wanted is not None and tensors[main].dim() != wanted:
        raise InvalidInput(f"inputs[{main!r}] must have {wanted} dimensions, batch first, not {tuple(tensors[main].shape)}.")
    count = tensors[main].shape[0]
    if count == 0 or tensors[main].numel() == 0:
        raise InvalidInput(f"inputs[{main!r}] is empty: shape {tuple(tensors[main].shape)}.")
    for key, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise InvalidInput(f"inputs[{key!r}] holds NaN or infinite entries; every entry must be finite.")
        if value.dim() and value.shape[0] != count:
            raise InvalidInput(f"inputs[{key!r}] has {value.shape[0]} rows, inputs[{main!r}] has {count}.")
    return [_one(tensors, i, main, sequence, tokenizer) for i in range(count)]


def _one(tensors: dict[str, Tensor], i: int, main: str, sequence: bool, tokenizer: Any) -> Example:
    own = {key: value[i] for key, value in tensors.items() if value.dim()}
    if not sequence:
        return Example(tensors=own, length=None)
    length = own[main].shape[0]
    mask = own.get("attention_mask")
    if mask is not None and mask.dim() == 1:
        if mask.shape[0] != length:
            raise InvalidInput(f"inputs['attention_mask'] has {mask.shape[0]} columns, {main!r} has {length}.")
        real = mask.nonzero()[:, 0]
        if real.numel() == 0:
            raise InvalidInput(f"inputs['attention_mask'] is zero for every token of input {i}; one must be real.")
        span = slice(int(real[0]), int(real[-1]) + 1)
        own = {k: v[span] if v.dim() and v.shape[0] == length else v for k, v in own.items()}
    length = own[main].shape[0]
    tokens = special = None
    if "input_ids" in own and tokenizer is not None:
        ids = own["input_ids"].tolist()
        tokens = tuple(str(token) for token in tokenizer.convert_ids_to_tokens(ids))
        special = tuple(token in set(tokenizer.all_special_ids) for token in ids)
    elif "input_ids" in own:
        tokens = tuple(str(token) for token in own["input_ids"].tolist())
    return Example(tensors=own, length=length, tokens=tokens, special=special)


def _check(example: Example, index: int, model: nn.Module, limit: int | None) -> None:
    ids = example.tensors.get("input_ids")
    if ids is None:
        return
    if limit is not None and ids.shape[0] > limit:
        raise InvalidInput(f"inputs[{index}] has {ids.shape[0]} tokens, the model takes {limit}.")
    rows = _vocabulary(model)
    if rows is not None and ids.numel() and (int(ids.max()) >= rows or int(ids.min()) < 0):
        raise InvalidInput(
            f"inputs[{index}] holds token id {int(ids.max())}, but {type(model).__name__} has {rows} embeddings: the tokenizer "
            "belongs to another model. Pass the tokenizer saved with this model."
        )


def _vocabulary(model: nn.Module) -> int | None:
    try:
        module = model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    return module.num_embeddings if isinstance(module, nn.Embedding) else None


def batches(examples: list[Example], size: int, *, mixed: bool) -> Iterator[list[int]]:
    """Positions in `examples` that share a forward pass, short inputs first.

    Args:
        examples: the inputs.
        size: most inputs in one pass.
        mixed: whether lengths may differ (padding on the right); False keeps to equal lengths.
    """
    order = sorted(range(len(examples)), key=lambda i: examples[i].length or 0)
    start = 0
    while start < len(order):
        chunk = order[start : start + size]
        if not mixed:
            chunk = [i for i in chunk if examples[i].length == examples[chunk[0]].length]
        start += len(chunk)
        yield chunk


def padding_id(model: nn.Module, tokenizer: Any) -> int | None:
    """The id to pad with; None where the model could not tell pads from tokens."""
    own = getattr(getattr(model, "config", None), "pad_token_id", None)
    given = getattr(tokenizer, "pad_token_id", None)
    return None if own is None else int(own if given is None else given)


def stack(examples: list[Example], pad: int, device: torch.device) -> dict[str, Tensor]:
    """Model arguments for these examples, padded on the right, with their attention mask."""
    lengths = [example.length for example in examples]
    if lengths[0] is None:
        keys = examples[0].tensors
        return {key: torch.stack([e.tensors[key] for e in examples]).to(device) for key in keys}
    longest = max(length for length in lengths if length is not None)
    batch: dict[str, Tensor] = {}
    for key in examples[0].tensors:
        rows = []
        for example in examples:
            value = example.tensors[key]
            missing = longest - int(example.length or 0)
            if value.dim() and value.shape[0] == example.length and missing:
                fill = value.new_full((missing, *value.shape[1:]), pad if key in ("input_ids", "inputs") else 0)
                value = torch.cat([value, fill])
            rows.append(value)
        batch[key] = torch.stack(rows).to(device)
    if "attention_mask" not in batch:
        mask = [[1] * int(n or 0) + [0] * (longest - int(n or 0)) for n in lengths]
        batch["attention_mask"] = torch.tensor(mask, device=device)
    return batch
