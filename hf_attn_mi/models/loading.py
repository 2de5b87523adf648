"""What the caller handed over: the model, its tokenizer, and whether they can be explained at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from hf_attn_mi.capture import unwrap
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.weights import refuse_unsound


def model_and_tokenizer(model: Any, tokenizer: Any = None) -> tuple[nn.Module, Any]:
    """The bare model and, if one was given or comes with a pipeline, the tokenizer.

    Raises:
        InvalidInputError: not a model or pipeline, weights on the meta device, or weights with NaN or infinite entries.
    """
    if isinstance(model, str):
        raise InvalidInputError(
            f"model must be a loaded model, not the name {model!r}: pass "
            "AutoModelForSequenceClassification.from_pretrained(name), or use the command hf-attn-mi explain --model."
        )
    if any(kind.__name__ == "Pipeline" for kind in type(model).__mro__):  # importing the class itself takes seconds
        tokenizer = model.tokenizer if tokenizer is None else tokenizer
        model = model.model
    inner = unwrap(model)
    offloaded = any(hasattr(module, "_hf_hook") for module in inner.modules())
    if not offloaded and any(p.is_meta for p in inner.parameters()):
        raise InvalidInputError(
            f"model: the weights of {type(inner).__name__} are on the meta device, so nothing can be computed. "
            "Load them with from_pretrained, or call model.to_empty(device=...) and load a state dict."
        )
    refuse_unsound(inner)
    return inner, tokenizer


def own_tokenizer(model: nn.Module) -> Any:
    """The tokenizer saved beside the model.

    Raises:
        InvalidInputError: the model does not say where it came from, or there is no tokenizer there.
    """
    path = getattr(getattr(model, "config", None), "_name_or_path", "") or getattr(model, "name_or_path", "")
    if not path:
        raise InvalidInputError(
            f"tokenizer: {type(model).__name__} does not name the folder or Hub repository it was loaded from; "
            "pass tokenizer=..., or a dict of tensors as inputs."
        )
    try:
        return transformers.AutoTokenizer.from_pretrained(path)
    except Exception as error:
        raise InvalidInputError(
            f"tokenizer: none could be loaded from the model's own path {path!r} ({type(error).__name__}: {error}); "
            "pass tokenizer=..., or a dict of tensors as inputs."
        ) from error


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Dropout off inside; every module gets its own training flag back."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


def device_of(model: nn.Module) -> torch.device:
    """Where the inputs go."""
    for parameter in model.parameters():
        if not parameter.is_meta:
            return parameter.device
    return torch.device("cpu")


def name_of(model: nn.Module) -> str:
    """What to call the model in a result: its Hub name or the last part of its path, else its class."""
    name = getattr(getattr(model, "config", None), "_name_or_path", "") or ""
    if Path(name).is_absolute() or Path(name).exists():
        name = Path(name).name
    return name or type(model).__name__
