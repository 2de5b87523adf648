"""What the caller handed over: the model, its tokenizer, and whether they can be explained at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
import transformers
from torch import nn

from hf_attn_mi.capture import unwrap
from hf_attn_mi.errors import InvalidInput, UnsupportedModel

_sound: WeakKeyDictionary[nn.Module, tuple[tuple[int, int], ...]] = WeakKeyDictionary()


def model_and_tokenizer(model: Any, tokenizer: Any = None) -> tuple[nn.Module, Any]:
    """The bare model and, if one was given or comes with a pipeline, the tokenizer.

    Raises:
        InvalidInput: not a model or pipeline, weights on the meta device, or weights with NaN or infinite entries.
    """
    if isinstance(model, str):
        raise InvalidInput(
            f"model must be a loaded model, not the name {model!r}: pass "
            "AutoModelForSequenceClassification.from_pretrained(name), or use the command hf-attn-mi explain --model."
        )
    if any(kind.__name__ == "Pipeline" for kind in type(model).__mro__):  # importing the class itself takes seconds
        tokenizer = model.tokenizer if tokenizer is None else tokenizer
        model = model.model
    inner = unwrap(model)
    offloaded = any(hasattr(module, "_hf_hook") for module in inner.modules())
    if not offloaded and any(p.is_meta for p in inner.parameters()):
        raise InvalidInput(
            f"model: the weights of {type(inner).__name__} are on the meta device, so nothing can be computed. "
            "Load them with from_pretrained, or call model.to_empty(device=...) and load a state dict."
        )
    refuse_unsound(inner)
    return inner, tokenizer


def refuse_unsound(model: nn.Module) -> None:
    """Raise `InvalidInput` where a weight is NaN or infinite: fused attention may hide it behind finite logits.

    Weights that were found sound are not read again until one of them is replaced or changed in place.
    """
    state = tuple((p.data_ptr(), p._version) for p in model.parameters() if not p.is_meta and not p.is_inference())
    if _sound.get(model) == state:
        return
    name = unsound_weight(model)
    if name is not None:
        raise InvalidInput(f"model: weight {name} holds NaN or infinite entries; load sound weights.")
    _sound[model] = state


def unsound_weight(model: nn.Module) -> str | None:
    """Name of the first weight with NaN or infinite entries, None where there is none."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.is_meta or not parameter.is_floating_point():
                continue
            values = parameter.float() if parameter.dtype.itemsize == 1 else parameter
            total = values.sum(dtype=torch.promote_types(values.dtype, torch.float32))  # one pass, no mask formed
            if not bool(torch.isfinite(total)) and not bool(torch.isfinite(values).all()):  # a sum may overflow
                return name
    return None


def own_tokenizer(model: nn.Module) -> Any:
    """The tokenizer saved beside the model.

    Raises:
        InvalidInput: the model does not say where it came from, or there is no tokenizer there.
    """
    path = getattr(getattr(model, "config", None), "_name_or_path", "") or getattr(model, "name_or_path", "")
    if not path:
        raise InvalidInput(
            f"tokenizer: {type(model).__name__} does not name the folder or Hub repository it was loaded from; "
            "pass tokenizer=..., or a dict of tensors as inputs."
        )
    try:
        return transformers.AutoTokenizer.from_pretrained(path)
    except Exception as error:
        raise InvalidInput(
            f"tokenizer: none could be loaded from the model's own path {path!r} ({type(error).__name__}: {error}); "
            "pass tokenizer=..., or a dict of tensors as inputs."
        ) from error


def refuse_quantised(model: nn.Module) -> None:
    """Raise `UnsupportedModel` where weights are quantised: parts of the gradient would be missing unnoticed."""
    for name, module in model.named_modules():
        home = type(module).__module__
        stored = [t.dtype for t in (*module._parameters.values(), *module._buffers.values()) if t is not None]
        packed = home.startswith("torch.nn") and any(t in (torch.int8, torch.uint8) for t in stored)
        if "quantized" in home or "bitsandbytes" in home or packed:
            raise UnsupportedModel(
                f"{type(model).__name__}: {name or 'the model'} ({type(module).__name__}) has quantised weights, "
                "through which no exact gradient flows. Load the model in float32, bfloat16 or float16, or use a "
                "method without gradients (attention, rollout, effective, efficient)."
            )


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
