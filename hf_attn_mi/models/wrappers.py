"""Unwrap models: pipelines, sentence-transformers, accelerate's hooks, objects that hold a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from hf_attn_mi.capture.model_cache import cached
from hf_attn_mi.capture.module_walk import modules_of
from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError
from hf_attn_mi.models.pipelines import read_pipeline
from hf_attn_mi.models.sentence_models import read_cross_encoder, read_sentence_transformer, read_setfit
from hf_attn_mi.models.unwrapped import Unwrapped

READERS: dict[str, Callable[[Any], Unwrapped]] = {  # by the name of a class: importing the classes takes seconds
    "Pipeline": read_pipeline,
    "SentenceTransformer": read_sentence_transformer,
    "CrossEncoder": read_cross_encoder,
    "SetFitModel": read_setfit,
}


def unwrap_object(model: Any) -> Unwrapped:
    """The module inside the object that a caller passes as `model`, with the settings that belong to it.

    Raises:
        InvalidInputError: an object that holds a model without being one, or a pipeline for another task.
    """
    if isinstance(model, str):
        raise InvalidInputError(
            f"model must be a loaded model, not the name {model!r}: pass "
            "AutoModelForSequenceClassification.from_pretrained(name), or use the command hf-attn-mi explain "
            "--model."
        )
    for kind in type(model).__mro__:
        if kind.__name__ in READERS:
            return READERS[kind.__name__](model)
    if not isinstance(model, nn.Module):
        refuse_wrapper(model)
    return Unwrapped(model)


def refuse_wrapper(model: object) -> None:
    """Raise `InvalidInputError` for objects that hold a model, with the attribute to pass."""
    for attribute in ("model", "model_body", "transformers_model"):
        inner = getattr(model, attribute, None)
        if isinstance(inner, nn.Module):
            raise InvalidInputError(
                f"model is a {type(model).__name__}, which is not a torch.nn.Module; pass its attribute .{attribute} "
                f"({type(inner).__name__}), and tokenizer=..."
            )


def refuse_scripted(model: nn.Module) -> None:
    """Refuse TorchScript, whose operations are hidden.

    Raises:
        UnsupportedModelError: the model or a part of it is traced or scripted.
    """
    if cached(model, "scripted", lambda: any(isinstance(one, torch.jit.ScriptModule) for one in modules_of(model))):
        raise UnsupportedModelError(
            f"model: {type(model).__name__} is or holds TorchScript (torch.jit), whose operations cannot be followed. "
            "Pass the model that it was made from."
        )


def refuse_default_device() -> None:
    """Refuse a default device other than the CPU, on which everything that is made without a device would be.

    Raises:
        InvalidInputError: torch.set_default_device, or a surrounding `with torch.device(...)`, names another device.
    """
    device = torch.get_default_device()
    if device.type != "cpu":
        raise InvalidInputError(
            f"the default device of torch is {str(device)!r}, and results are made on the CPU, whatever the device of "
            "the model: call this inside `with torch.device('cpu'):`. The model stays where it is."
        )


def device_hook(model: nn.Module) -> object | None:
    """The hook with which accelerate runs this model or a part of it; None if there is none."""
    if not any("_hf_hook" in module.__dict__ for module in modules_of(model)):
        return None
    from accelerate.hooks import AlignDevicesHook, ModelHook, SequentialHook

    hooks: list[ModelHook] = []
    for module in model.modules():
        hook = getattr(module, "_hf_hook", None)
        hooks += hook.hooks if isinstance(hook, SequentialHook) else [hook] if isinstance(hook, ModelHook) else []
    aligned = [hook for hook in hooks if isinstance(hook, AlignDevicesHook) and hook.execution_device is not None]
    return next(iter([*aligned, *hooks]), None)
