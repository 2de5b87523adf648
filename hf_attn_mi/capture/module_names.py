"""Which module is running, which layer it belongs to and which stacks of layers a model has."""

from __future__ import annotations

import inspect
import re
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import lru_cache
from types import FrameType
from typing import Any

from torch import nn

from hf_attn_mi.capture.model_cache import cached
from hf_attn_mi.capture.model_reading import read_once
from hf_attn_mi.capture.module_walk import modules_of

HEAD_ATTRIBUTES = (
    *("num_attention_heads", "num_heads", "n_heads", "n_head", "nhead"),
    *("num_attn_heads", "attention_heads", "heads", "encoder_attention_heads"),
)


@dataclass(frozen=True, eq=False)
class NameTable:
    """What follows from the names of a model's modules. It holds no module: it is kept for as long as the model is.

    Attributes:
        names: the first name of every module, in the order of `modules_of`.
        places: first name -> every name of a module; several where it stands in several places.
        layers: name -> number of its layer.
        sizes: name without digits -> how many modules stand there.
        alike: name without digits and class -> the first names of these modules.
    """

    names: list[str]
    places: dict[str, list[str]]
    layers: dict[str, int]
    sizes: dict[str, int]
    alike: dict[tuple[str, type], frozenset[str]]

    @classmethod
    def of(cls, model: nn.Module) -> NameTable:
        """Read the table off a model."""
        names: dict[int, str] = {}
        places: dict[str, list[str]] = defaultdict(list)
        alike: dict[tuple[str, type], set[str]] = defaultdict(set)
        everywhere: list[str] = []
        for name, module in model.named_modules(remove_duplicate=False):
            if id(module) not in names:  # in the order of `model.named_modules()`
                names[id(module)] = name
                alike[strip_digits(name), type(module)].add(name)
            places[names[id(module)]].append(name)
            everywhere.append(name)
        return cls(
            list(names.values()),
            dict(places),
            _layer_numbers(everywhere),
            dict(Counter(map(strip_digits, everywhere))),
            {key: frozenset(members) for key, members in alike.items()},
        )


def named_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return every module of a model by its first name, in the order of `model.named_modules()`; see `reading_once`."""
    return read_once(model, "named modules", lambda model: ModuleNames(model).modules)


class ModuleNames:
    """Names of a model's modules, the module now running, and the layer number of each attention module."""

    def __init__(self, model: nn.Module, table: NameTable | None = None) -> None:
        self.model = model
        self._table = cached(model, "module_names", lambda: NameTable.of(model)) if table is None else table
        self.modules: dict[str, nn.Module] = dict(zip(self._table.names, modules_of(model), strict=True))
        self.names = {id(module): name for name, module in self.modules.items()}

    def running(self) -> tuple[str, tuple[int, int]] | None:
        """Return the innermost running module of this model and the position of its code; None if none is running.

        The position (frame, instruction in it) distinguishes two steps of one call from two calls of the module.
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
        """Return the layer index of the attention module `name` at its `repeat`-th call in this forward pass."""
        places = self._table.places.get(name, [name])
        rounds, place = divmod(repeat, len(places))  # a module that stands in several places runs once in each
        size = self._table.sizes.get(strip_digits(name), 0) if name else 1
        return self._table.layers.get(places[place], 0) + rounds * size

    def head_count(self, name: str) -> int | None:
        """Return the number of query heads stated by the module, its config or the nearest parent with one."""
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
        """Return the query heads per key/value head that the module states, 1 where it states nothing."""
        return int(getattr(self.modules.get(name), "num_key_value_groups", 1) or 1)

    def siblings(self, name: str) -> frozenset[str]:
        """Return the modules of the same class at the same position of all layers."""
        return self._table.alike.get((strip_digits(name), type(self.modules[name])), frozenset((name,)))


def _self_of(frame: FrameType) -> nn.Module | None:
    if "self" not in frame.f_code.co_varnames[:1]:
        return None
    module = frame.f_locals.get("self")
    return module if isinstance(module, nn.Module) else None


@lru_cache(maxsize=65_536)
def strip_digits(name: str) -> str:
    """Return e.g. 'encoder.layer.*.attention' for 'encoder.layer.3.attention': the same for every layer of a stack."""
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


def layer_stacks(names: ModuleNames) -> dict[str, list[str]]:
    """Return the stacks of layers of a model: name of the owning module -> the names of its layers, in order.

    A stack is what the model class records as hidden states; else a `ModuleList` of layers with attention.
    """
    stacks: dict[str, list[str]] = {}
    for name, module in names.modules.items():
        kind = _recorded_class(module)
        if kind is None:
            continue
        inner = [n for n, m in names.modules.items() if n != name and _below(n, name) and _recorded_class(m)]
        layers = [
            n
            for n, m in names.modules.items()
            if isinstance(m, kind) and _below(n, name) and not any(_below(n, i) for i in inner)
        ]
        if layers:
            stacks[name] = layers
    covered = [layer for layers in stacks.values() for layer in layers]
    for name, module in names.modules.items():
        if not isinstance(module, nn.ModuleList) or len(module) == 0 or not any(map(is_attention, modules_of(module))):
            continue
        layers = [f"{name}.{i}" for i in range(len(module))]
        if any(isinstance(layer, nn.ModuleList) for layer in module):
            layers = [f"{name}.{i}.{j}" for i, block in enumerate(module) for j in range(len(block))]  # type: ignore[arg-type]
        if any(_below(c, layers[0]) or _below(layers[0], c) for c in covered):
            continue
        stacks[name.rpartition(".")[0]] = layers
        covered += layers
    return stacks


def is_attention(module: nn.Module) -> bool:
    """Whether the class name of the module contains "attention" or "attn"."""
    return _names_attention(type(module).__name__)


@lru_cache(maxsize=4096)
def _names_attention(class_name: str) -> bool:
    return "attention" in class_name.lower() or "attn" in class_name.lower()


def ties_last_state(module: nn.Module) -> bool:
    """Whether the last of the model's hidden states is its `last_hidden_state`, after a final normalization."""
    configured = getattr(getattr(module, "config", None), "tie_last_hidden_states", None)
    if configured is not None:
        return bool(configured)
    function: Any = type(module).forward
    while function is not None:
        closure = inspect.getclosurevars(function).nonlocals if inspect.isfunction(function) else {}
        if "tie_last_hidden_states" in closure:
            return bool(closure["tie_last_hidden_states"])
        function = getattr(function, "__wrapped__", None)
    return True


def _recorded_class(module: nn.Module) -> type | None:
    record = (getattr(type(module), "_can_record_outputs", None) or {}).get("hidden_states")
    kind = getattr(record, "target_class", record)
    return kind if isinstance(kind, type) else None


def _below(name: str, root: str) -> bool:
    return root == "" or name == root or name.startswith(root + ".")
