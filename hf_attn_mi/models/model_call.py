"""`call_model`: one call of a model, with what its own code raises named as the model's error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from hf_attn_mi.capture import forget_readings
from hf_attn_mi.errors import HfAttnMiError, UnsupportedModelError
from hf_attn_mi.models.memory import out_of_memory
from hf_attn_mi.models.multiple_choice import as_single_choices

REFUSALS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def call_model(model: nn.Module, arguments: Mapping[str, Any], compiled: nn.Module | None = None) -> Any:
    """The outputs of one pass, with names where the model can give them.

    Args:
        model: the model.
        arguments: keyword arguments of its forward.
        compiled: its compiled form, to be called instead.

    Raises:
        UnsupportedModelError: what the model's own code raises because of its arguments; memory that ran out is raised
            as it is.
    """
    if getattr(getattr(model, "config", None), "return_dict", True) is False:
        arguments = {**arguments, "return_dict": True}
    arguments = as_single_choices(model, arguments)
    try:
        return (model if compiled is None else compiled)(**arguments)
    except HfAttnMiError:
        raise
    except REFUSALS as error:
        if out_of_memory(error):
            raise
        name = type(model).__name__
        if isinstance(error, ValueError) and "batch sizes > 1" in str(error):
            reason = "takes one row in a pass, since it names no padding token: set model.config.pad_token_id."
            raise UnsupportedModelError(f"{name} {reason}") from error
        if "nference tensor" in str(error) and any(one.is_inference() for one in model.parameters()):
            reason = "has weights that were created in torch.inference_mode, of which no gradient can be taken."
            raise UnsupportedModelError(f"{name} {reason} Load the model outside of that mode.") from error
        first = (str(error).strip() or "no message").splitlines()[0]
        shapes = ", ".join(f"{key} {tuple(getattr(value, 'shape', ()))}" for key, value in arguments.items())
        raise UnsupportedModelError(
            f"{name}.forward raised {type(error).__name__}: {first} (arguments: {shapes}). Check the inputs by calling "
            "model(**inputs) yourself."
        ) from error
    finally:
        forget_readings()  # the model's own code may have changed the model


def has_hooks(module: nn.Module) -> bool:
    """Whether something runs before or after the forward of this module."""
    return bool(module._forward_hooks or module._forward_pre_hooks)
