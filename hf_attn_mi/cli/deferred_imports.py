"""Parts of torch and scipy that transformers imports at its start, and that no command needs.

`transformers.modeling_utils` imports the compiler of torch (for decorators, and a class that few models use),
distributed tensors (to ask of each weight whether it is one) and `scipy.optimize` (for the losses of object detection).
This is a large part of the time that a command takes to start. Here each of them is loaded when it is first used.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import wraps
from importlib import import_module
from types import ModuleType
from typing import Any

FUNCTIONS = {  # module -> what transformers imports of it, and calls
    "scipy.optimize": ("linear_sum_assignment",),
    "torch._dynamo._trace_wrapped_higher_order_op": ("TransformGetItemToIndex",),
}
COMPILER = "torch._dynamo"
SHAPES = "torch.fx.experimental.symbolic_shapes"


@contextmanager
def unused_parts_deferred() -> Iterator[None]:
    """Inside, transformers and its models are imported and loaded without these parts.

    For a process that ends with its command:

    - The functions and classes in `FUNCTIONS` are loaded when they are called; whatever else is asked of their modules
      loads these at once.
    - `torch.compiler.disable` takes effect when the decorated function is first called, as inside of torch. The
      decorators that only tell the compiler about a function have no effect: no command compiles a model.
    - Where models are built without memory for their weights, PyTorch runs code that loads the compiler and symbolic
      sizes. `torch.nn.init` does nothing to such tensors, `torch.empty_like` makes a tensor of the same shape, and a
      check that holds is not looked at further.
    - transformers works as on a torch that was built without support for several processes: a command that starts
      processes does not connect them by torch.
    """
    torch: Any = import_module("torch")
    stand_ins = [_StandIn(name, {one: _called_later(name, one) for one in names}) for name, names in FUNCTIONS.items()]
    stand_ins.append(_StandIn(SHAPES, {"expect_true": _expect_true}))
    stand_ins = [one for one in stand_ins if one.__name__ not in sys.modules]
    sys.modules.update({one.__name__: one for one in stand_ins})
    try:
        with ExitStack() as stack:
            if COMPILER not in sys.modules:
                marks = dict.fromkeys(("allow_in_graph", "assume_constant_result"), _without_effect)
                compiler = _StandIn(COMPILER, {**marks, "disable": _disabled_later})
                stand_ins.append(compiler)
                torch.__dict__["_dynamo"] = compiler
                stack.enter_context(_replaced(torch.compiler, "disable", _disabled_later))
                stack.enter_context(_replaced(torch.compiler, "allow_in_graph", _without_effect))
            for name, function in _initializers().items():
                stack.enter_context(_replaced(torch.nn.init, name, _unless_on_meta(function)))
            stack.enter_context(_replaced(torch, "empty_like", _empty_like(torch.empty_like)))
            _answer_that_torch_is_alone()
            yield
    finally:
        for one in stand_ins:
            one.give_way()


class _StandIn(ModuleType):
    """Stands in for a module while others are imported.

    Args:
        name: of the module.
        members: what can be had of it without loading it.
    """

    def __init__(self, name: str, members: Mapping[str, Callable[..., Any]]) -> None:
        super().__init__(name)
        self.__dict__.update(members)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # `inspect` asks every module for its file
            raise AttributeError(attribute)
        self.give_way()
        return getattr(import_module(self.__name__), attribute)

    def give_way(self) -> None:
        """From now on this name means the module itself."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        package, _, name = self.__name__.rpartition(".")
        holder = sys.modules.get(package)
        if holder is not None and holder.__dict__.get(name) is self:
            del holder.__dict__[name]


def _called_later(module: str, name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        stand_in = sys.modules.get(module)
        if isinstance(stand_in, _StandIn):
            stand_in.give_way()
        return getattr(import_module(module), name)(*args, **kwargs)

    call.__name__ = name
    return call


def _expect_true(condition: Any) -> Any:
    return condition if type(condition) is bool else _called_later(SHAPES, "expect_true")(condition)


def _without_effect(function: Any) -> Any:
    return function


def _disabled_later(function: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    return import_module("torch")._disable_dynamo(function, recursive)


def _initializers() -> dict[str, Callable[..., Any]]:
    functions = {name: one for name, one in vars(import_module("torch.nn.init")).items() if callable(one)}
    return {name: one for name, one in functions.items() if name.endswith("_") and not name.startswith("_")}


def _unless_on_meta(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def initialize(tensor: Any, *args: Any, **kwargs: Any) -> Any:
        return tensor if tensor.is_meta else function(tensor, *args, **kwargs)

    return initialize


def _empty_like(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def empty_like(tensor: Any, *args: Any, **kwargs: Any) -> Any:
        if not args and set(kwargs) == {"device"} and tensor.is_meta and tensor.is_contiguous():
            return import_module("torch").empty(tensor.shape, dtype=tensor.dtype, **kwargs)
        return function(tensor, *args, **kwargs)

    return empty_like


@contextmanager
def _replaced(owner: object, name: str, value: object) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _answer_that_torch_is_alone() -> None:
    """Let transformers ask once whether torch supports several processes: it keeps the answer."""
    asks = getattr(import_module("transformers.utils.import_utils"), "is_torch_distributed_available", None)
    if asks is not None:
        with _replaced(import_module("torch.distributed"), "is_available", lambda: False):
            asks()
