"""Properties of a model that are read before it runs: tokenizer, table of token embeddings, maximum input length."""

from __future__ import annotations

from typing import Any

import transformers
from torch import nn

from hf_attn_mi.capture.model_cache import cached
from hf_attn_mi.capture.module_names import named_modules
from hf_attn_mi.errors import InvalidInputError, shown

POSITION_TABLES = {  # embeddings with one row for each position; `embed_positions` and `wpe` of BART and GPT-2
    "position_embeddings",
    "position_embedding",
    "positions_embed",
    "embed_positions",
    "wpe",
}


def input_embedding(model: nn.Module) -> nn.Embedding | None:
    """The table in which token ids are looked up; None if the model names none."""
    try:
        module = model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    return module if isinstance(module, nn.Embedding) else None


def check_tokenizer(tokenizer: Any) -> None:
    """Refuse an object that is not a tokenizer of transformers and lacks a tokenizer's methods.

    Raises:
        InvalidInputError: the value is refused; the message says what to pass.
    """
    if tokenizer is None or (callable(tokenizer) and hasattr(tokenizer, "convert_ids_to_tokens")):
        return
    way = "AutoTokenizer.from_pretrained(name)"
    if hasattr(tokenizer, "tokenizer"):
        way = "its attribute .tokenizer"
    elif hasattr(tokenizer, "encode_batch"):
        way = "PreTrainedTokenizerFast(tokenizer_object=tokenizer)"
    raise InvalidInputError(
        f"tokenizer must be a tokenizer of transformers, not {type(tokenizer).__name__}: {shown(tokenizer, 80)}; "
        f"pass {way}."
    )


def load_tokenizer(model: nn.Module, need: str = "") -> Any:
    """The tokenizer saved with the model.

    Args:
        model: the model.
        need: why it is needed for inputs that are tensors already, for the message; "" where texts are encoded.

    Raises:
        InvalidInputError: the model does not say where it came from, or there is no tokenizer there.
    """
    path = getattr(getattr(model, "config", None), "_name_or_path", "") or getattr(model, "name_or_path", "")
    way = f"pass tokenizer=...: {need}." if need else "pass tokenizer=..., or a dict of tensors as inputs."
    if not path:
        raise InvalidInputError(
            f"tokenizer: {type(model).__name__} does not name the folder or Hub repository it was loaded from; {way}"
        )
    try:
        return transformers.AutoTokenizer.from_pretrained(path)
    except Exception as error:
        raise InvalidInputError(
            f"tokenizer: none could be loaded from the model's own path {path!r} ({type(error).__name__}: {error}); "
            f"{way}"
        ) from error


def maximum_length(model: nn.Module, tokenizer: Any) -> int | None:
    """Maximum number of tokens that the model takes; None if there is no limit."""
    limits = []
    stated = getattr(tokenizer, "model_max_length", None)
    if isinstance(stated, int) and stated < 1_000_000:
        limits.append(stated)
    for size, start in position_tables(model):
        limits.append(size - start)
    return min(limits) if limits else None


def position_tables(model: nn.Module) -> list[tuple[int, int]]:
    """(number of positions, the position id of the first token) of each table of positions of a text.

    Position ids count from 0 in what is passed to the model; BART's tables have two rows more, which are not counted.
    """
    return cached(model, "position tables", lambda: _position_tables(model))


def _position_tables(model: nn.Module) -> list[tuple[int, int]]:
    tables = []
    for name, module in named_modules(model).items():
        of_patches = any(word in name for word in ("vision", "visual", "image"))
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in POSITION_TABLES and not of_patches:
            offset = int(getattr(module, "offset", 0) or 0)
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            tables.append((module.num_embeddings - offset, max(first - offset, 0)))
    return tables
