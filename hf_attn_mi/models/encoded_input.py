"""One encoded input, and how several of them become one batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.errors import HfAttnMiError, InvalidInputError

MAIN_KEYS = (
    "input_ids",
    "inputs_embeds",
    "pixel_values",
    "input_features",
    "input_values",
    "inputs",
    "pixel_values_videos",
)
ALLOWED = (
    "a text, a pair (tuple) of texts, a list of either, or a dict / BatchEncoding of tensors with one of "
    + ", ".join(MAIN_KEYS)
)
ORIGIN = "hf_attn_mi_origin"  # not an argument: the place of each token in the whole input, cut with the others
PER_TOKEN = frozenset(  # arguments with an entry for each token; every other argument is passed on as it is given
    {
        "input_ids",
        "inputs_embeds",
        "inputs",
        "attention_mask",
        "token_type_ids",
        "position_ids",
        "special_tokens_mask",
        "bbox",  # LayoutLM and relatives
        "global_attention_mask",  # Longformer
        "image_embeds_position_mask",  # Kosmos-2
        "input_mask",  # XLNet
        "input_pronunciation_ids",  # RoCBert
        "input_shape_ids",
        "langs",  # XLM
        "mm_token_type_ids",  # models of text and images
        "task_type_ids",  # ERNIE
        "xpath_subs_seq",  # MarkupLM
        "xpath_tags_seq",
        ORIGIN,
    }
)


@dataclass(frozen=True, eq=False)
class EncodedInput:
    """One input as the model takes it, without padding at its ends.

    Attributes:
        tensors: the model's arguments; each (tokens, ...) for token sequences, else one element of the batch.
        length: number of tokens; None if the model makes its own tokens (images, audio).
        start: columns of padding that were cut off on the left.
        texts: the original text, or both texts of a pair; () for tensors.
        tokens: the tokenizer's strings; None without a tokenizer.
        offsets: (start, end) characters of each token in its text, without blanks at its ends; None without a fast
            tokenizer.
        sequence_ids: the index of the text of each token, None for special tokens.
        word_ids: the number of the word of each token, within its text: the word segments of UAX #29 (see
            `models.words`), the words that the caller passed, or the tokenizer's own where the text is not known.
        special: whether each token is special; None if that is not known.
        grid: (rows, columns) of the positions that are not special, row by row; None if they do not form a grid.
        seconds: (start, end) of each position in a recording; None for other inputs.
        waveform: (samples,) of a recording, at `sampling_rate`; None for other inputs.
        sampling_rate: samples per second of `waveform`; None if it is not known.
        warnings: what the reader of a result should know about this input.
        alternatives: the inputs among which the model chooses (multiple choice); a target takes one of them.
        origin: in a variant, the position of each of its tokens in the whole input; None for the whole input.
    """

    tensors: dict[str, Tensor]
    length: int | None
    start: int = 0
    texts: tuple[str, ...] = ()
    tokens: tuple[str, ...] | None = None
    offsets: tuple[tuple[int, int], ...] | None = None
    sequence_ids: tuple[int | None, ...] | None = None
    word_ids: tuple[int | None, ...] | None = None
    special: tuple[bool, ...] | None = None
    grid: tuple[int, int] | None = None
    seconds: tuple[tuple[float, float], ...] | None = None
    waveform: Tensor | None = None
    sampling_rate: int | None = None
    warnings: tuple[str, ...] = field(default_factory=tuple)
    alternatives: tuple[EncodedInput, ...] = ()
    origin: tuple[int, ...] | None = None

    @property
    def token_count(self) -> int:
        """Number of tokens; of positions where the model makes its own (images, audio), 0 if it is not known."""
        return len(self.tokens or ()) if self.length is None else self.length

    @property
    def shape_key(self) -> tuple[Any, ...]:
        """The properties that inputs of one batch without padding share: the length, or the shape of every argument."""
        if self.length is not None:
            return (self.length,)
        return tuple((key, tuple(value.shape)) for key, value in sorted(self.tensors.items()))


@dataclass(frozen=True)
class FailedInput:
    """An input that cannot be encoded.

    Attributes:
        texts: its texts; () if it is not a text.
        error: the reason why it was refused.
    """

    texts: tuple[str, ...]
    error: HfAttnMiError


@dataclass(frozen=True)
class EncodedInputs:
    """The inputs that a caller passed as `inputs`.

    Attributes:
        inputs: those that can be encoded.
        places: the index of each of them among the caller's inputs.
        failures: index -> an input that cannot be encoded; empty unless these are to be skipped.
        single: whether one input was passed, and not a list.
    """

    inputs: list[EncodedInput]
    places: list[int]
    failures: dict[int, FailedInput]
    single: bool

    @property
    def count(self) -> int:
        """Number of inputs that the caller passed."""
        return len(self.inputs) + len(self.failures)


def per_token(key: str, value: Tensor, length: int) -> bool:
    """Whether this argument of one input has an entry for each of its `length` tokens: decided by its name.

    A mask with a row for each query is not one of them: it belongs to the whole input.
    """
    return key in PER_TOKEN and value.dim() > 0 and value.shape[0] == length and not is_query_mask(key, value)


def is_query_mask(key: str, value: Tensor) -> bool:
    """Whether this argument of one input is an attention mask by query, (queries, keys) or (heads, queries, keys)."""
    return key == "attention_mask" and value.dim() > 1


def collate(inputs: Sequence[EncodedInput], pad_id: int, device: torch.device) -> dict[str, Tensor]:
    """The model's arguments for these inputs: (batch, ...) tensors, padded on the right, with an attention mask.

    Args:
        inputs: inputs with the same argument names.
        pad_id: fills token ids; every other per-token argument is filled with 0.
        device: where the result is placed.
    """
    if inputs[0].length is None:
        return {key: torch.stack([one.tensors[key] for one in inputs]).to(device) for key in inputs[0].tensors}
    longest = max(one.token_count for one in inputs)
    batch: dict[str, Tensor] = {}
    for key in inputs[0].tensors:
        rows = []
        for one in inputs:
            value = one.tensors[key]
            missing = longest - one.token_count
            if missing and per_token(key, value, one.token_count):
                fill = value.new_full((missing, *value.shape[1:]), pad_id if key in ("input_ids", "inputs") else 0)
                value = torch.cat([value, fill])
            rows.append(value)
        if any(row.shape != rows[0].shape for row in rows):
            shapes = ", ".join(dict.fromkeys(str(tuple(row.shape)) for row in rows))
            raise InvalidInputError(
                f"inputs[{key!r}] has the shapes {shapes} for different inputs and is not known to have an entry for "
                "each token, so that it cannot be padded: pass batch_size=1, or one input at a time."
            )
        batch[key] = torch.stack(rows).to(device)
    if "attention_mask" not in batch:
        mask = [[1] * one.token_count + [0] * (longest - one.token_count) for one in inputs]
        batch["attention_mask"] = torch.tensor(mask, device=device)
    return batch


def real_tokens(arguments: Mapping[str, Tensor]) -> Tensor:
    """(batch, tokens) bool, True where a token is neither padding nor masked for every query.

    Raises:
        InvalidInputError: there are no tokens, and no mask of them.
    """
    mask = arguments.get("attention_mask")
    if mask is not None and mask.dim() == 2:
        return mask.bool()
    key = next((key for key in ("input_ids", "inputs_embeds", "inputs") if key in arguments), None)
    if key is None:
        shape = None if mask is None else tuple(mask.shape)
        raise InvalidInputError(f"inputs['attention_mask'] must be (batch, tokens) for this model, not {shape}.")
    main = arguments[key]
    return torch.ones(main.shape[:2], dtype=torch.bool, device=main.device)


def real_positions(inputs: Sequence[EncodedInput], arguments: Mapping[str, Tensor]) -> Tensor:
    """(batch, tokens) bool like `real_tokens`; all True where the model makes its own positions (images, audio)."""
    if inputs[0].length is not None:
        return real_tokens(arguments)
    device = next(iter(arguments.values())).device
    return torch.ones(len(inputs), inputs[0].token_count, dtype=torch.bool, device=device)


def special_tokens(inputs: Sequence[EncodedInput], real: Tensor) -> Tensor:
    """(batch, tokens) bool like `real`, True for special tokens; False if that is not known."""
    special = torch.zeros_like(real)
    for i, one in enumerate(inputs):
        if one.special is not None:
            special[i, : len(one.special)] = torch.tensor(one.special, device=real.device)
    return special


def batches_by_length(inputs: Sequence[EncodedInput], size: int, *, mixed: bool) -> Iterator[list[int]]:
    """Positions of the inputs of each batch, the shortest inputs first.

    Args:
        inputs: the inputs, in any order.
        size: maximum number of inputs in one batch.
        mixed: whether lengths may differ within a batch; False keeps to equal lengths.
    """
    order = sorted(range(len(inputs)), key=lambda i: (inputs[i].token_count, () if mixed else inputs[i].shape_key))
    start = 0
    while start < len(order):
        chunk = order[start : start + size]
        if not mixed:
            chunk = [i for i in chunk if inputs[i].shape_key == inputs[chunk[0]].shape_key]
        start += len(chunk)
        yield chunk
