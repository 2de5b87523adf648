"""Fast walks over the modules of a model: they run several times for each batch, and most batches are small.

`nn.Module.modules()` resumes one generator for each level of every module, and `getattr(module, name, None)` searches
parameters, buffers and submodules, and raises, before it gives None. Both take longer than what is asked.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from hf_attn_mi.capture.model_reading import read_once


def modules_of(model: nn.Module) -> list[nn.Module]:
    """Return every module of a model once, in the order of `model.modules()`.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU()))
        >>> modules_of(model) == list(model.modules())
        True
    """
    return read_once(model, "modules", _walk)


def weights_of(model: nn.Module) -> list[Tensor]:
    """Return every parameter of a model once, in the order of `model.parameters()`.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
        >>> [one is other for one, other in zip(weights_of(model), model.parameters(), strict=True)]
        [True, True, True, True]
    """
    found: dict[int, Tensor] = {}
    for module in modules_of(model):
        for weight in module._parameters.values():
            if weight is not None:
                found.setdefault(id(weight), weight)
    return list(found.values())


def _walk(model: nn.Module) -> list[nn.Module]:
    found, seen, waiting = list[nn.Module](), set[int](), [model]
    while waiting:
        module = waiting.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        found.append(module)
        if module._modules:
            waiting += [child for child in reversed(module._modules.values()) if child is not None]
    return found


def plain_attribute(module: nn.Module, name: str) -> Any:
    """Return an attribute that is neither a parameter, a buffer nor a submodule; None if there is none.

    Example:
        >>> plain_attribute(nn.Linear(2, 3), "out_features"), plain_attribute(nn.Linear(2, 3), "weight")
        (3, None)
    """
    value = module.__dict__.get(name)
    if value is None and hasattr(type(module), name):  # a property, or an attribute of the class
        value = getattr(module, name, None)
    return value
