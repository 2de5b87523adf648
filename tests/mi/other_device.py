"""A device that is not the CPU, for machines that have no other: its tensors are computed on the CPU, and say "lazy:0".

As on a real device, an operation on tensors of two devices is refused, and so is a random draw on this device with a
generator of the CPU. Copies to the CPU are recorded with the functions that asked for them.
"""

import traceback
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("lazy:0")
PACKAGE = str(Path(__file__).parents[2] / "hf_attn_mi")
INDEXED = ("aten::index", "aten::index_put", "aten::index_put_")  # indices may be on the CPU


class OtherTensor(torch.Tensor):
    """A tensor of the other device."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )

    def __init__(self, inner):
        self.inner = inner

    def __repr__(self, **_):
        return f"OtherTensor({self.inner!r})"

    def tolist(self):
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise AssertionError(f"{function} outside of the context of the device")


class Constants(TorchFunctionMode):
    """What `torch.tensor` makes of numbers is on the device that is asked for: it is not an operation."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function in (torch.tensor, torch.as_tensor) and str(kwargs.get("device", "")) == str(DEVICE):
            made = function(*args, **{**kwargs, "device": "cpu"})
            return made if isinstance(made, OtherTensor) else OtherTensor(made)
        return function(*args, **kwargs)


class OtherDevice(TorchDispatchMode):
    """The context in which the device exists.

    Attributes:
        copies: (function of the package, number of elements) of each copy to the CPU.
    """

    def __init__(self):
        super().__init__()
        self.copies, self.constants = [], Constants()

    def __enter__(self):
        self.constants.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.constants.__exit__(*error)

    def put(self, tensor):
        """The tensor on the device."""
        return OtherTensor(tensor.clone())

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        ours = [one for one in given if isinstance(one, OtherTensor)]
        name = function._schema.name
        wanted = kwargs.get("device")
        wanted = None if wanted is None else torch.device(wanted)
        if wanted is not None and wanted.type == DEVICE.type:
            kwargs["device"] = torch.device("cpu")
            ours = ours or [None]  # the result is on the device
        elif wanted is not None and wanted.type == "cpu" and ours:
            self._record(ours[0])
            return function(*self._inner(args), **self._inner(kwargs))
        elif not ours:
            return function(*args, **kwargs)
        elif name != "aten::copy_" and any(
            one.dim() > 0 and not isinstance(one, OtherTensor) for one in (given[:1] if name in INDEXED else given)
        ):
            raise RuntimeError(f"{name}: tensors on {DEVICE} and on the CPU")
        elif name == "aten::copy_" and not isinstance(args[0], OtherTensor):
            self._record(args[1])
            return function(*self._inner(args), **self._inner(kwargs))
        if ours and kwargs.get("generator") is not None:
            raise RuntimeError(f"{name}: a generator of the CPU for a tensor on {DEVICE}")
        wrappers = {id(one.inner): one for one in ours if one is not None}
        result = function(*self._inner(args), **self._inner(kwargs))

        def outer(one):
            if not isinstance(one, torch.Tensor):
                return one
            return wrappers[id(one)] if id(one) in wrappers else OtherTensor(one)

        return tree_map(outer, result)

    @staticmethod
    def _inner(value):
        return tree_map(lambda one: one.inner if isinstance(one, OtherTensor) else one, value)

    def _record(self, tensor):
        frames = [one for one in traceback.extract_stack() if one.filename.startswith(PACKAGE)]
        self.copies.append((frames[-1].name if frames else "test", tensor.numel()))
