"""Which module is running, and which layer it belongs to: from the Python frames and the module names."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from functools import lru_cache
from types import FrameType

from torch import nn

HEAD_ATTRIBUTES = (
    "num_attention_heads",
    "num_heads",
    "n_heads",
    "n_head",
    "nhead",
    "num_attn_heads",
    "attention_heads",
    "heads",
    "encoder_attention_heads",
)


class ModuleNames:
    """Names of a model's modules, the module now running, and the layer number of each attention module."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.names = {id(module): name for name, module in model.named_modules(remove_duplicate=True)}
        self.modules: dict[str, nn.Module] = dict(model.named_modules())
        self._layers = _layer_numbers(list(self.modules))
        self._sizes: dict[str, int] = defaultdict(int)
        for name in self.modules:
            self._sizes[strip_digits(name)] += 1

    def running(self) -> tuple[str, tuple[int, int]] | None:
        """The innermost module of this model on the Python stack: its name and where its code stands.

        The second part (frame, position in it) tells two steps of one call from two calls. None when none runs.
        """
        frame = sys._getframe(2)
        while frame is not None:
            module = _self_of(frame)
            name = None if module is None else self.names.get(id(module))
            if module is not None and name is not None and not type(module).__module__.startswith("torch.nn."):
                outer = frame  # the module's own forward, not a method it calls
                while frame is not None and (_self_of(frame) is module):
                    if not frame.f_globals.get("__name__", "").startswith("torch."):
                        outer = frame
                    frame = frame.f_back  # type: ignore[assignment]
                return name, (id(outer), outer.f_lasti)
            frame = frame.f_back  # type: ignore[assignment]
        return None

    def layer(self, name: str, repeat: int) -> int:
        """Layer index of the attention module `name`, at its `repeat`-th call in this forward pass."""
        return self._layers.get(name, 0) + repeat * (self._sizes[strip_digits(name)] if name else 1)

    def head_count(self, name: str) -> int | None:
        """Number of query heads that the module, one of its parents or a config on the way states."""
        while True:
            module = self.modules.get(name)
            for holder in (module, getattr(module, "config", None)):
                for attribute in HEAD_ATTRIBUTES:
                    value = getattr(holder, attribute, None)
                    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                        return value
            if not name:
                return None
            name = name.rpartition(".")[0]

    def kv_groups(self, name: str) -> int:
        """Query heads per key/value head, as the module states it (1 where it states nothing)."""
        return int(getattr(self.modules.get(name), "num_key_value_groups", 1) or 1)

    def siblings(self, name: str) -> set[str]:
        """Modules that stand at the same place in other layers and are of the same class."""
        pattern, kind = strip_digits(name), type(self.modules[name])
        return {n for n, m in self.modules.items() if strip_digits(n) == pattern and type(m) is kind}


def _self_of(frame: FrameType) -> nn.Module | None:
    if "self" not in frame.f_code.co_varnames[:1]:
        return None
    module = frame.f_locals.get("self")
    return module if isinstance(module, nn.Module) else None


@lru_cache(maxsize=65_536)
def strip_digits(name: str) -> str:
    """'encoder.layer.3.attention' -> 'encoder.layer.*.attention': the same for every layer of a stack."""
    return re.sub(r"(?<=\.)\d+(?=\.|$)|^\d+(?=\.|$)", "*", name)


def _layer_numbers(names: list[str]) -> dict[str, int]:
    groups: dict[str, list[tuple[tuple[int, ...], str]]] = defaultdict(list)
    for name in names:
        digits = tuple(int(part) for part in name.split(".") if part.isdigit())
        groups[strip_digits(name)].append((digits, name))
    numbers: dict[str, int] = {}
    for members in groups.values():
        width = len(members[0][0])
        varying = [i for i in range(width) if len({digits[i] for digits, _ in members}) > 1]
        for rank, (digits, name) in enumerate(sorted(members)):
            numbers[name] = digits[varying[0]] if len(varying) == 1 else rank
    return numbers
