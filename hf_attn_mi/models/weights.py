"""Check the weights of a model (finite, not quantized) and compute their fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import chain

import torch
from torch import Tensor, nn

from hf_attn_mi.capture.model_cache import cached
from hf_attn_mi.capture.module_names import named_modules
from hf_attn_mi.capture.module_walk import weights_of
from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError

# What differs between two copies of the same model: where it came from, who wrote it, how it is run.
VOLATILE = (
    "_name_or_path",
    "_commit_hash",
    "_attn_implementation",
    "_attn_implementation_internal",
    "attn_implementation",
    "architectures",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "return_dict",
    "output_attentions",
    "output_hidden_states",
    "use_cache",
    "gradient_checkpointing",
)


def holds_meta_weights(model: nn.Module) -> bool:
    """Whether a weight has no values in memory."""
    return cached(model, "meta", lambda: any(weight.is_meta for weight in weights_of(model)))


def refuse_nonfinite_weights(model: nn.Module) -> None:
    """Raise `InvalidInputError` if a weight is NaN or infinite: fused attention may hide it behind finite logits.

    The weights are read once and again after one of them has changed.
    """
    name = cached(model, "nonfinite_weight", lambda: nonfinite_weight(model))
    if name is not None:
        raise InvalidInputError(f"model: weight {name} holds NaN or infinite entries; load sound weights.")


def nonfinite_weight(model: nn.Module) -> str | None:
    """Name of the first weight with NaN or infinite entries, None if there is none."""
    with torch.no_grad():
        sums: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for parameter in map(_values, weights_of(model)):
            if parameter is not None:  # one pass, and no mask is formed
                total = parameter.sum(dtype=torch.promote_types(parameter.dtype, torch.float32))
                sums.setdefault((total.device, total.dtype), []).append(total)
        if all(bool(torch.stack(group).isfinite().all()) for group in sums.values()):
            return None
        for name, parameter in model.named_parameters():  # a sum may overflow
            values = _values(parameter)
            if values is not None and not bool(torch.isfinite(values).all()):
                return name
    return None


def _values(parameter: Tensor) -> Tensor | None:
    """The entries of a weight in a type that can be added up; None if they are not in memory, or whole numbers."""
    if parameter.is_meta or not parameter.is_floating_point():
        return None
    return parameter.float() if parameter.dtype.itemsize == 1 else parameter


def nonfinite_reason(model: nn.Module) -> str:
    """A sentence that says which weights hold NaN or infinite entries, if any do."""
    name = nonfinite_weight(model)
    if name is not None:
        return f"Weight {name} holds NaN or infinite entries; load sound weights."
    return "The weights are finite, so the forward pass overflows: try float32 in place of half precision."


def refuse_quantized(model: nn.Module) -> None:
    """Raise `UnsupportedModelError` if weights are quantized: parts of the gradient would be missing unnoticed."""
    reason = cached(model, "quantized", lambda: _quantized(model))
    if reason is not None:
        raise UnsupportedModelError(reason)


def _quantized(model: nn.Module) -> str | None:
    """What is quantized, as an error message; None if nothing is."""
    for name, module in named_modules(model).items():
        home = type(module).__module__
        stored = [t.dtype for t in (*module._parameters.values(), *module._buffers.values()) if t is not None]
        packed = home.startswith("torch.nn") and any(t in (torch.int8, torch.uint8) for t in stored)
        if "quantized" in home or "bitsandbytes" in home or packed:
            return (
                f"{type(model).__name__}: {name or 'the model'} ({type(module).__name__}) has quantized weights, "
                "through which no exact gradient flows. Load the model in float32, bfloat16 or float16, or use a "
                "method without gradients (attention, rollout, effective, efficient)."
            )
    return None


def fingerprint(model: nn.Module) -> dict[str, str]:
    """Return the fingerprint of the model: {"config": ..., "weights": ...}, each 64 hexadecimal digits (SHA-256).

    The weights are the model's class and the name, dtype, shape and bytes of every parameter and saved buffer, so that
    a model and its copy in half precision differ. The digest is computed again once a weight or a checksum of the
    weights has changed: writing through `.data` is noticed, too.

    Example:
        >>> first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
        >>> fingerprint(first) == fingerprint(second)
        False
    """
    config = getattr(model, "config", None)
    settings = config.to_dict() if config is not None and hasattr(config, "to_dict") else {}
    kept = {key: value for key, value in settings.items() if key not in VOLATILE}
    text = json.dumps(_by_name(kept), sort_keys=True, default=str)
    key = ("weight_digest", _checksum(model))
    return {
        "config": hashlib.sha256(text.encode()).hexdigest(),
        "weights": cached(model, key, lambda: _weight_digest(model)),
    }


def _by_name(value: object) -> object:
    """Mappings with strings as keys, without the volatile ones at any depth: configurations nest."""
    if isinstance(value, Mapping):
        return {str(key): _by_name(item) for key, item in value.items() if key not in VOLATILE}
    return [_by_name(item) for item in value] if isinstance(value, (list, tuple)) else value


def _checksum(model: nn.Module) -> tuple[float, ...]:
    """Sums of the weights that nearly every change in place alters; one fast pass over the memory."""
    sums: list[float] = []
    with torch.no_grad():
        for tensor in chain(model.parameters(), model.buffers()):
            if tensor.is_meta or not tensor.is_floating_point() or tensor.dtype.itemsize == 1:
                continue
            flat = tensor.detach().reshape(-1)
            wide = torch.promote_types(flat.dtype, torch.float32)
            sums += [float(flat.sum(dtype=wide)), float(flat[::2].sum(dtype=wide)), float(flat.norm(dtype=wide))]
    return tuple(sums)


def _weight_digest(model: nn.Module) -> str:
    digest = hashlib.sha256(f"{type(model).__module__}.{type(model).__name__}".encode())
    for name, tensor in sorted(model.state_dict().items()):
        if not isinstance(tensor, Tensor):
            continue
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        if not tensor.is_meta:  # weights that accelerate keeps elsewhere are known by name and shape only
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
