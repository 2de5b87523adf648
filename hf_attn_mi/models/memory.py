"""Errors that say that memory ran out, and memory that is given back."""

from __future__ import annotations

import ctypes
import sys

import torch


def out_of_memory(error: BaseException) -> bool:
    """Whether an accelerator or the machine had no memory left.

    Example:
        >>> out_of_memory(torch.OutOfMemoryError()), out_of_memory(RuntimeError("shapes differ"))
        (True, False)
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "can't allocate memory" in str(error)  # the message of PyTorch on a CPU


def give_back_memory() -> None:
    """Give what the C library keeps of freed memory back to the system (glibc only).

    Tensors of ever new sizes leave gaps in its heap, so that a process that runs for days would grow.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
