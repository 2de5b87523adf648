"""What is known of a forward pass whose attention products were followed to W_O: a pass of the same call repeats it.

Following a product costs several Python calls for each operation of the model. Where a model computes attention by a
fused kernel and runs no code of the caller, a second pass with arguments of the same shapes runs the same operations on
the same weights, so only the kernels are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.capture.model_cache import PLAIN, cached, runs_own_code
from hf_attn_mi.capture.module_walk import modules_of
from hf_attn_mi.capture.records import Projection
from hf_attn_mi.capture.torch_ops import ProductRecord

MOST_PASSES = 256  # that are kept for a model; each is a few names and numbers


@dataclass(frozen=True, eq=False)
class FollowedCall:
    """A fused attention call that was followed.

    Attributes:
        module_name: the module that made it.
        shapes: of query, key and value.
        projection: makes the record of W_O; None where a step that is not linear comes before it.
    """

    module_name: str
    shapes: tuple[torch.Size, ...]
    projection: Callable[[], Projection] | None


@dataclass(frozen=True, eq=False)
class FollowedPass:
    """The attention calls of a pass, in their order; every one of them is a fused kernel."""

    calls: tuple[FollowedCall, ...]


class PassFollower:
    """Keeps what is followed in a pass, and compares the pass with one that was followed.

    Attributes:
        repeated: the pass that this one repeats as far as it has run; None where its operations are followed.
    """

    def __init__(self) -> None:
        self.repeated: FollowedPass | None = None
        self._calls: dict[int, FollowedCall] | None = None

    def start(self, repeated: FollowedPass | None, *, keeps: bool) -> None:
        """A new pass.

        Args:
            repeated: a pass of the same call.
            keeps: whether this one may be repeated.
        """
        self.repeated, self._calls = repeated, {} if keeps else None

    def differs(self) -> None:
        """It is another pass after all: it is followed from here on, and not repeated."""
        self.repeated = self._calls = None

    def known(self, index: int, module_name: str, shapes: tuple[torch.Size, ...]) -> FollowedCall | None:
        """The call of the repeated pass that this one is; None, and the pass differs, if it is none."""
        if self.repeated is None:
            return None
        call = self.repeated.calls[index] if index < len(self.repeated.calls) else None
        if call is not None and (call.module_name, call.shapes) == (module_name, shapes):
            return call
        self.differs()
        return None

    def keep(self, record: ProductRecord, projection: Callable[[], Projection] | None) -> None:
        """Keep that a product was followed; only those of fused kernels have shapes."""
        if self._calls is not None and record.shapes is not None:
            self._calls[record.index] = FollowedCall(record.module_name, record.shapes, projection)

    def has_repeated(self, count: int) -> bool:
        """Whether a pass with so many calls was the repeated one."""
        return self.repeated is not None and count == len(self.repeated.calls)

    def followed(self, count: int) -> FollowedPass | None:
        """The pass with so many calls; None where one of them is no fused kernel that was followed."""
        if self.has_repeated(count):
            return self.repeated
        if self.repeated is not None or self._calls is None or sorted(self._calls) != list(range(count)):
            return None
        return FollowedPass(tuple(self._calls[index] for index in range(count)))


@dataclass(frozen=True, eq=False)
class FollowedPasses:
    """What is known of the passes of a model in its present state.

    Attributes:
        repeat: whether arguments of the same shapes run the same operations: the model runs no code of the caller, and
            its weights stay where they are.
        passes: the passes that were followed, by their keys.
    """

    repeat: bool
    passes: dict[Hashable, FollowedPass]

    @classmethod
    def of(cls, model: nn.Module) -> FollowedPasses:
        """The passes of a model; none once it has changed."""
        return cached(model, "followed_passes", lambda: cls(not runs_own_code(model) and _in_place(model), {}))

    def keep(self, key: Hashable, followed: FollowedPass | None) -> None:
        """Keep a pass, or forget it."""
        if followed is None:
            self.passes.pop(key, None)
            return
        if len(self.passes) >= MOST_PASSES:
            self.passes.clear()
        self.passes[key] = followed


def pass_key(model: nn.Module, arguments: Mapping[Any, Any], settings: Hashable) -> Hashable | None:
    """What decides which operations a model without code of the caller runs; None where that is not known.

    Args:
        model: unwrapped.
        arguments: of its forward, by name or number.
        settings: the attention implementations of its configurations.
    """
    described: list[Hashable] = [settings, model.training, torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")]
    described.append(torch.is_autocast_enabled("cuda"))
    for name, value in arguments.items():
        if type(value) is Tensor:
            described.append((name, value.shape, value.dtype, value.device))
        elif isinstance(value, PLAIN):
            described.append((name, type(value), value))
        else:
            return None
    return tuple(described)


def _in_place(model: nn.Module) -> bool:
    """Whether no weight is brought to memory when it is used."""
    modules = modules_of(model)
    moved = any("_hf_hook" in module.__dict__ for module in modules)
    return not moved and not any(one is not None and one.is_meta for m in modules for one in m._parameters.values())
