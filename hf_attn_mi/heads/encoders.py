"""Which models can carry a head, and which of their arguments they take."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn
from transformers import AutoModel, AutoModelForTextEncoding, PreTrainedModel

from hf_attn_mi.errors import InvalidInputError

_AUTO = {"AutoModel": AutoModel, "AutoModelForTextEncoding": AutoModelForTextEncoding}


def build_encoder(config: Any, name: str) -> PreTrainedModel:
    """Return a fresh encoder of this configuration, made by "AutoModel" or "AutoModelForTextEncoding"."""
    return _AUTO[name].from_config(config)


def encoder_class(encoder: Any) -> str:
    """Return the name of the auto class that makes such an encoder from its configuration.

    Raises:
        InvalidInputError: not an encoder (no hidden_size, a head of its own, so no last_hidden_state), or none of the auto
            classes would make it again when the saved head is loaded.
    """
    kind, config = type(encoder).__name__, getattr(encoder, "config", None)
    if not isinstance(getattr(config, "hidden_size", None), int):
        raise InvalidInputError(f"{kind} has no config.hidden_size: pass an encoder such as BertModel")
    made = [name for name, auto in _AUTO.items() if type(config) in auto._model_mapping]
    for name in made:
        known = _AUTO[name]._model_mapping[type(config)]
        if any(isinstance(encoder, one) for one in (known if isinstance(known, tuple) else (known,))):
            return name
    if encoder.base_model is not encoder:
        raise InvalidInputError(
            f"{kind} has a head of its own and returns no last_hidden_state: pass its encoder "
            f"(model.{encoder.base_model_prefix})"
        )
    raise InvalidInputError(
        f"{kind} is not what {' or '.join(_AUTO)} makes of a {type(config).__name__}, so that a saved head could not "
        "be loaded: pass the encoder that they make, or register the class with AutoModel.register"
    )


def accepts(encoder: nn.Module, argument: str) -> bool:
    """Return whether the encoder's forward has an argument of this name."""
    return argument in inspect.signature(encoder.forward).parameters
