"""Which backend runs: one small place."""

from __future__ import annotations

import importlib.util
import os

import torch

from hf_attn_mi.errors import BackendUnavailableError, InvalidInputError
from hf_attn_mi.kernels.checks import KernelInputs

BACKENDS = ("auto", "torch", "triton")


def choose_backend(backend: str, call: KernelInputs) -> str:
    """Return "torch" or "triton" for a call of `attention_statistics`.

    Raises:
        InvalidInputError: an unknown name.
        BackendUnavailableError: triton was asked for and is not there, or cannot do this call.
    """
    refused = None
    if call.query is None:
        refused = "the kernels form the rows themselves and need query and key"
    elif call.by_row:
        refused = "queries see different keys (causal, window, a mask that differs by row), which only torch does"
    elif "float64" in str(call.dtype):
        refused = "the kernels compute in float32, and the tensors are float64"
    return choose(backend, call.value.device, refused)


def choose(backend: str, device: torch.device, refused: str | None = None) -> str:
    """Return "torch" or "triton". Only "auto" chooses; a backend asked for by name runs or raises.

    Args:
        backend: "auto", "torch" or "triton".
        device: where the tensors are.
        refused: why the Triton kernels cannot do this call, None where they can.

    Raises:
        InvalidInputError: an unknown name.
        BackendUnavailableError: triton was asked for and is not there, or cannot do this call.

    Example:
        >>> choose("auto", torch.device("cpu"))
        'torch'
    """
    if backend not in BACKENDS:
        raise InvalidInputError(f"backend is {backend!r}: one of {', '.join(BACKENDS)} is allowed")
    if backend == "torch" or (backend == "auto" and device.type != "cuda"):
        return "torch"  # without looking for a package, which takes longer than many a call
    missing = _missing(device) or refused
    if backend == "triton" and missing is not None:
        raise BackendUnavailableError(f'backend="triton": {missing}; use backend="torch" or "auto"')
    return "triton" if missing is None and (backend == "triton" or device.type == "cuda") else "torch"


def _missing(device: torch.device) -> str | None:
    """What keeps any Triton kernel from running, None if nothing does."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"the tensors are on {device}, and the kernels need CUDA"
    return None
