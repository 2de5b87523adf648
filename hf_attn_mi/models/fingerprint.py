"""Which model is this? SHA-256 of its configuration and of its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import chain
from weakref import WeakKeyDictionary

import torch
from torch import nn

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
_known: WeakKeyDictionary[nn.Module, tuple[tuple[tuple[int, int], ...], str]] = WeakKeyDictionary()


def fingerprint_of(model: nn.Module) -> dict[str, str]:
    """Return {"config": ..., "weights": ...}, each 64 hexadecimal digits.

    The weights are the model's class and the name, dtype, shape and bytes of every parameter and saved buffer, so that
    a model and its copy in half precision differ. They are not read again until one is replaced or changed in place.

    Example:
        >>> first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
        >>> fingerprint_of(first) == fingerprint_of(second)
        False
    """
    config = getattr(model, "config", None)
    settings = config.to_dict() if config is not None and hasattr(config, "to_dict") else {}
    kept = {key: value for key, value in settings.items() if key not in VOLATILE}
    text = json.dumps(_by_name(kept), sort_keys=True, default=str)
    return {"config": hashlib.sha256(text.encode()).hexdigest(), "weights": _weights(model)}


def _by_name(value: object) -> object:
    """Mappings with strings as keys, without the volatile ones at any depth: configurations nest."""
    if isinstance(value, Mapping):
        return {str(key): _by_name(item) for key, item in value.items() if key not in VOLATILE}
    return [_by_name(item) for item in value] if isinstance(value, (list, tuple)) else value


def _weights(model: nn.Module) -> str:
    held = list(chain(model.parameters(), model.buffers()))
    countable = not any(tensor.is_inference() for tensor in held)  # inference tensors keep no version
    state = tuple((tensor.data_ptr(), tensor._version) for tensor in held) if countable else ()
    if countable and model in _known and _known[model][0] == state:
        return _known[model][1]
    digest = hashlib.sha256(f"{type(model).__module__}.{type(model).__name__}".encode())
    for name, tensor in sorted(model.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):
            continue
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        if not tensor.is_meta:  # weights that accelerate keeps elsewhere are known by name and shape only
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    found = digest.hexdigest()
    if countable:
        _known[model] = state, found
    return found
