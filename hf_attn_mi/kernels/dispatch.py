"""Which implementation of an operation runs: one table of operations and their backends.

A backend is added by one file, with a function that takes the arguments of the operation's other backends (the
docstring of the operation's folder lists them), and by one line in `TABLE`. `register_backend` adds one from outside of
the package. The entries name their functions as text, so that numba and Triton are imported when they first run.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import threading
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from hf_attn_mi.errors import BackendUnavailableError, InvalidInputError, shown

EXTRAS = {"numba": "fast", "triton": "gpu"}  # package: the extra of hf_attn_mi that installs it
DEVICES = {"cpu": "the CPU", "cuda": "CUDA"}
Implementation = Callable[..., Any]  # its arguments and result differ from operation to operation


@dataclass(frozen=True)
class Backend:
    """One implementation of an operation.

    Attributes:
        function: the function, or "module:name" of it.
        package: the package that it needs besides PyTorch.
        device: the only type of device that it runs on, where "auto" prefers it. None: it runs on any device, and
            "auto" never takes it (PyTorch, the last resort of "auto", is such a backend).
        checked: whether "auto" compares it with the operation's reference before its first use on a device.
    """

    function: str | Implementation
    package: str | None = None
    device: str | None = None
    checked: bool = True


def _torch(function: str) -> Backend:
    return Backend(f"hf_attn_mi.kernels.{function}", checked=False)


def _triton(function: str) -> Backend:
    return Backend(f"hf_attn_mi.kernels.{function}", package="triton", device="cuda")


def _numba(function: str) -> Backend:  # its rows are proved optimal in float64, and compiling it takes half a minute
    return Backend(f"hf_attn_mi.kernels.{function}", package="numba", device="cpu", checked=False)


TABLE: dict[str, dict[str, Backend]] = {
    "attention_statistics": {
        "torch": _torch("attention_statistics.torch:statistics_torch"),
        "triton": _triton("attention_statistics.triton:statistics_triton"),
    },
    "class_calibration": {
        "torch": _torch("calibration.torch:calibrate_torch"),
        "numba": Backend("hf_attn_mi.kernels.calibration.numba:calibrate_numba", package="numba", device="cpu"),
    },
    "class_moments": {
        "torch": _torch("moments.torch:moments_torch"),
        "triton": _triton("moments.triton:moments_triton"),
    },
    "efficient_rows": {
        "torch": _torch("efficient.torch:solve_torch"),
        "numba": _numba("efficient.numba:solve_numba"),
        "triton": _triton("efficient.triton:solve_triton"),
    },
    "neighbor_counts": {
        "torch": _torch("neighbors.torch:count_torch"),
        "numba": Backend("hf_attn_mi.kernels.neighbors.numba:count_numba", package="numba", device="cpu"),
        "triton": _triton("neighbors.triton:count_triton"),
    },
    "permuted_sums": {
        "torch": _torch("permutations.torch:sum_torch"),
        "numba": Backend("hf_attn_mi.kernels.permutations.numba:sum_numba", package="numba", device="cpu"),
    },
    "agreeing_neighbors": {
        "torch": _torch("permutations.torch:agree_torch"),
        "numba": Backend("hf_attn_mi.kernels.permutations.numba:agree_numba", package="numba", device="cpu"),
    },
    "probe_information": {
        "torch": _torch("probe.torch:score_torch"),
        "triton": _triton("probe.triton:score_triton"),
    },
}


def register_backend(
    operation: str,
    backend: str,
    function: str | Implementation,
    *,
    package: str | None = None,
    device: str | None = None,
) -> None:
    """Add a backend to an operation, or replace the one of the same name.

    It is called by its name, `probe_information(..., backend="mine")`. With `device`, backend="auto" prefers it on
    devices of this type, once it has agreed with the operation's reference on a small problem.

    Args:
        operation: a key of `TABLE`.
        backend: its name.
        function: the implementation, or "module:name" of it, imported when it first runs. It takes the arguments that
            the operation's other backends take: see the docstring of the operation's folder.
        package: the package that it needs besides PyTorch.
        device: the only type of device it runs on, such as "cuda"; None: it runs on any, and only by its name.

    Raises:
        InvalidInputError: an unknown operation, or one of the names "auto" and "torch".

    Example:
        >>> register_backend("probe_information", "mine", "my_package.probe:score", package="my_package")
        >>> del TABLE["probe_information"]["mine"]
    """
    if operation not in TABLE:
        raise InvalidInputError(f"operation is {shown(operation)}: one of {', '.join(TABLE)} is allowed")
    if backend in ("auto", "torch"):
        raise InvalidInputError(f"backend is {backend!r}, a name that is taken: choose another one")
    TABLE[operation][backend] = Backend(function, package, device)


def choose_backend(
    operation: str,
    backend: str,
    device: torch.device,
    *,
    refusals: Mapping[str, str | None] | None = None,
    avoid: Collection[str] = (),
) -> str:
    """Return the name of the backend that runs. Only "auto" chooses; a backend asked for by name runs or raises.

    "auto" takes the backend for the type of the device, the last one in the table first, if its package is installed,
    it can do this call and it has agreed with the reference on this device (see `agrees`); else "torch".

    Args:
        operation: a key of `TABLE`.
        backend: "auto" or the name of a backend of this operation.
        device: where the tensors are.
        refusals: why a backend cannot do this call, by its name; None or no entry where it can.
        avoid: backends that could do this call and that "auto" does not take, because they would be slower.

    Raises:
        InvalidInputError: an unknown name.
        BackendUnavailableError: the requested backend is not installed, or cannot do this call.

    Example:
        >>> choose_backend("probe_information", "auto", torch.device("cpu"))
        'torch'
    """
    entries = TABLE[operation]
    if not isinstance(backend, str):
        raise InvalidInputError(f"backend is {shown(backend)}: one of {', '.join(['auto', *entries])} is allowed")
    if backend == "auto":
        for name, entry in reversed(entries.items()):
            if entry.device != device.type or name in avoid:
                continue  # not even the package is looked for, which takes longer than many calls
            able = _obstacle(entry, device) is None and (refusals or {}).get(name) is None
            if able and (not entry.checked or agrees(operation, name, device)):
                return name
        return "torch"
    if backend not in entries:
        raise InvalidInputError(f"backend is {shown(backend)}: one of {', '.join(['auto', *entries])} is allowed")
    obstacle = _obstacle(entries[backend], device) or (refusals or {}).get(backend)
    if obstacle is not None:
        raise BackendUnavailableError(f'backend="{backend}": {obstacle}; use backend="torch" or "auto"')
    return backend


def implementation(operation: str, backend: str) -> Implementation:
    """Return the function of a backend, imported on its first use."""
    function = TABLE[operation][backend].function
    if callable(function):
        return function
    module, _, name = function.partition(":")
    implementation: Implementation = getattr(importlib.import_module(module), name)
    return implementation


_verdicts: dict[tuple[object, ...], bool] = {}
_lock = threading.RLock()


def agrees(operation: str, backend: str, device: torch.device) -> bool:
    """Return whether a backend agrees with the operation's reference on a small problem on this device.

    The problem is computed once for each device and each set of versions in a process. Where the backend disagrees or
    fails, one RuntimeWarning names it and the reason.

    Args:
        operation: a key of `TABLE`.
        backend: one of its backends.
        device: where the small problem is computed.
    """
    from hf_attn_mi.kernels.self_check import disagreement  # it imports the operations, which import this module

    entry = TABLE[operation][backend]
    key = (operation, backend, entry.function, str(device), _versions(entry.package))
    with _lock:
        if key not in _verdicts:
            reason = disagreement(operation, backend, device)
            _verdicts[key] = reason is None
            if reason is not None:
                warnings.warn(
                    f"the {backend} kernel of {operation} is not used on {device} ({key[-1]}): {reason}. "
                    'backend="auto" takes PyTorch instead.',
                    RuntimeWarning,
                    stacklevel=4,
                )
        return _verdicts[key]


def _versions(package: str | None) -> str:
    """The versions that a kernel's correctness depends on, for a message."""
    names = ["torch", "hf_attn_mi", *([package] if package else [])]
    return ", ".join(f"{name} {_version(name)}" for name in names)


@cache  # a call of `agrees` would read files for milliseconds
def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def _obstacle(entry: Backend, device: torch.device) -> str | None:
    """The reason why a backend cannot run on this device, None if it can."""
    if entry.package is not None and importlib.util.find_spec(entry.package) is None:
        extra = EXTRAS.get(entry.package)
        command = f'pip install "hf_attn_mi[{extra}]"' if extra else f"pip install {entry.package}"
        return f"the package {entry.package} is not installed ({command})"
    interpreted = entry.package == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
    if entry.device not in (None, device.type) and not interpreted:
        return f"the tensors are on {device}, and it needs {DEVICES.get(str(entry.device), entry.device)}"
    return None
