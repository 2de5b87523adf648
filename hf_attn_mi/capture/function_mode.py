"""`FunctionMode`: a `TorchFunctionMode` that leaves the stack of modes as it found it, interruptions included."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack, _pop_mode, _push_mode


class FunctionMode(TorchFunctionMode):
    """Base of the modes of this package.

    PyTorch takes a mode off the stack while the mode handles a call. Ctrl-C between this and the following `try` loses
    the mode, or the one around it, and the end of the block fails with "trying to pop from empty mode stack". Here the
    end of the block puts the stack back that was there at the beginning.

    Example:
        >>> class Nothing(FunctionMode):
        ...     def __torch_function__(self, func, types, args=(), kwargs=None):
        ...         return func(*args, **(kwargs or {}))
        >>> with Nothing():
        ...     print(len(_get_current_function_mode_stack()))
        1
    """

    def __enter__(self) -> Self:
        around = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
        self._around = [*getattr(self, "_around", []), around]  # the same object may be entered again inside
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        *self._around, around = self._around
        if _get_current_function_mode_stack() == [*around, self]:  # type: ignore[no-untyped-call]
            super().__exit__(kind, error, traceback)  # type: ignore[no-untyped-call]
            return
        while _get_current_function_mode_stack():  # type: ignore[no-untyped-call]
            _pop_mode()  # type: ignore[no-untyped-call]
        for mode in around:
            _push_mode(mode)  # type: ignore[no-untyped-call]
