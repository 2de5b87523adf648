"""Which backend runs: one small place."""

from __future__ import annotations

import importlib.util
import os

from hf_attn_mi.errors import BackendUnavailable, InvalidInput
from hf_attn_mi.kernels.checks import Heads

BACKENDS = ("auto", "torch", "triton")


def choose_backend(backend: str, call: Heads) -> str:
    """Return "torch" or "triton". Only "auto" chooses; a backend asked for by name runs or raises.

    Raises:
        InvalidInput: an unknown name.
        BackendUnavailable: triton was asked for and is not there, or cannot do this call.
    """
    if backend not in BACKENDS:
        raise InvalidInput(f"backend is {backend!r}: one of {', '.join(BACKENDS)} is allowed")
    if backend == "torch":
        return backend
    missing = _missing(call)
    if backend == "triton" and missing is not None:
        raise BackendUnavailable(f'backend="triton": {missing}; use backend="torch" or "auto"')
    on_device = call.value.device.type == "cuda"
    return "triton" if missing is None and (backend == "triton" or on_device) else "torch"


def _missing(call: Heads) -> str | None:
    """What keeps triton from running this call, None if nothing does."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if call.value.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"the tensors are on {call.value.device}, and the kernels need CUDA"
    if call.query is None:
        return "the kernels form the rows themselves and need query and key"
    if call.by_row:
        return "queries see different keys (causal, window, a mask that differs by row), which only torch does"
    if "float64" in str(call.dtype):
        return "the kernels compute in float32, and the tensors are float64"
    return None
