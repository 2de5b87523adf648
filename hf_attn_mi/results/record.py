"""Plain data that can be frozen, compared and written as strict JSON without loss. Knows nothing of explanations."""

from __future__ import annotations

import gzip
import json
import math
import os
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError

Record = TypeVar("Record")
_TENSOR, _FLOAT = "__tensor__", "__float__"
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool)
}


def freeze(value: object, name: str) -> Any:
    """Return `value` as read-only plain data: mappings as `MappingProxyType`, lists and tuples as tuples.

    Args:
        value: JSON-like data: None, bool, int, float, str, sequences of these, mappings from str to these.
        name: where the value stands, for the message.

    Raises:
        InvalidInputError: for any other type, a key that is no string or one of the two reserved keys.

    Example:
        >>> freeze({"layers": [1, 2]}, "info")["layers"]
        (1, 2)
    """
    if value is None or isinstance(value, bool):
        return value
    # Subclasses (torch's version string, numpy.float64, enumerations) become the plain type, as they would in JSON.
    for plain in (str, int, float):
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, list | tuple):
        return tuple(freeze(item, f"{name}[{index}]") for index, item in enumerate(value))
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or key in (_TENSOR, _FLOAT):
                raise InvalidInputError(
                    f"{name}: key {key!r} is not allowed; keys are strings other than the reserved ones"
                )
        return MappingProxyType({str(key): freeze(item, f"{name}[{key!r}]") for key, item in value.items()})
    raise InvalidInputError(
        f"{name} is a {type(value).__name__}; only None, bool, int, float, str, lists and dictionaries of these "
        "can be saved as JSON: convert it first (for example with .item(), .tolist() or str)"
    )


def same(left: object, right: object) -> bool:
    """Return whether two pieces of data are equal: tensors by dtype, shape and value; NaN equals NaN.

    Example:
        >>> same((1, float("nan")), (1, float("nan")))
        True
    """
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        if left.dtype != right.dtype or left.shape != right.shape:
            return False
        return bool(((left == right) | ((left != left) & (right != right))).all())
    if isinstance(left, Tensor) or isinstance(right, Tensor):
        return False
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, tuple) and isinstance(right, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left) and math.isnan(right):
        return True
    return bool(left == right)


def same_fields(left: Any, right: Any) -> bool:
    """Return whether two dataclass instances of one type hold the `same` data."""
    return type(left) is type(right) and all(
        same(getattr(left, item.name), getattr(right, item.name)) for item in fields(left)
    )


def own_tensor(record: object, name: str, *, optional: bool = False) -> None:
    """Replace a frozen record's field by its own CPU copy: no graph, no view on a larger storage, nothing shared.

    Raises:
        InvalidInputError: where the field holds no tensor (None is fine when `optional`).
    """
    value = getattr(record, name)
    if isinstance(value, Tensor):
        object.__setattr__(record, name, value.detach().cpu().clone(memory_format=torch.contiguous_format))
    elif not (optional and value is None):
        raise InvalidInputError(f"{name} must be a tensor, got {type(value).__name__}")


def encode(value: object) -> Any:
    """Return frozen data and tensors as what `json.dumps(..., allow_nan=False)` takes; `decode` undoes it exactly.

    A tensor becomes `{"__tensor__": dtype, "shape": [...], "values": [...]}` with the values in row order; a number
    that JSON lacks becomes `{"__float__": "nan" | "inf" | "-inf"}`, and the bare string among a tensor's values.

    Raises:
        InvalidInputError: for a tensor whose dtype cannot be written.

    Example:
        >>> encode(torch.tensor([0.5, float("inf")]))
        {'__tensor__': 'float32', 'shape': [2], 'values': [0.5, 'inf']}
    """
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        if dtype not in _DTYPES:
            raise InvalidInputError(f"a tensor of dtype {dtype} cannot be saved; allowed: {', '.join(_DTYPES)}")
        numbers = value.detach().cpu().flatten().tolist()
        return {
            _TENSOR: dtype,
            "shape": list(value.shape),
            "values": [x if math.isfinite(x) else str(x) for x in numbers],
        }
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: str(value)}
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return value


def decode(value: Any) -> Any:
    """Return what `encode` was given, lists as tuples. Raises KeyError, TypeError or ValueError on other data.

    Example:
        >>> decode({"__float__": "-inf"})
        -inf
    """
    if isinstance(value, Mapping):
        if _TENSOR in value:
            dtype = _DTYPES[value[_TENSOR]]
            convert = float if dtype.is_floating_point else (bool if dtype == torch.bool else int)
            return torch.tensor([convert(x) for x in value["values"]], dtype=dtype).reshape(value["shape"])
        if _FLOAT in value:
            return float(value[_FLOAT])
        return {key: decode(item) for key, item in value.items()}
    return tuple(decode(item) for item in value) if isinstance(value, list | tuple) else value


def write_json(data: Any, path: Path, *, overwrite: bool) -> None:
    """Write strict JSON (gzip for a name ending in .gz) in one step: the file is there whole or not at all.

    Raises:
        InvalidInputError: for another suffix than .json or .json.gz, a missing folder, a folder at `path`, or an existing
            file without `overwrite=True`.
    """
    if not path.name.endswith((".json", ".json.gz")):
        raise InvalidInputError(f"path={str(path)!r}: the name must end in .json or .json.gz")
    if not path.parent.is_dir():
        raise InvalidInputError(f"path={str(path)!r}: the folder {str(path.parent)!r} does not exist; create it first")
    if path.is_dir():
        raise InvalidInputError(f"path={str(path)!r} is a folder; name a file")
    if path.exists() and not overwrite:
        raise InvalidInputError(f"path={str(path)!r} exists; choose another name or pass overwrite=True")
    content = json.dumps(data, allow_nan=False).encode("ascii")
    if path.name.endswith(".gz"):
        content = gzip.compress(content, mtime=0)  # no clock in the file: equal data, equal bytes
    # Not `tempfile`: its files are private (0600) and the saved one would stay so.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """Return the data of a strict JSON file, gzipped or not.

    Raises:
        InvalidInputError: where the file is no strict JSON.
        OSError: where it cannot be read (FileNotFoundError among them).
    """
    content = path.read_bytes()
    try:
        text = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        return json.loads(text.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, EOFError, RecursionError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidInputError(f"path={str(path)!r} is not a strict JSON file: {error}") from error


@contextmanager
def reading(data: object, noun: str, *, kind: str, schema: int) -> Iterator[None]:
    """Refuse data of another kind or schema; inside, whatever a damaged record makes fail is an `InvalidInputError`.

    Args:
        data: what `to_dict` of a record gave, or anything else.
        noun: what the record is called, for the message.
        kind: what its "kind" must be.
        schema: what its "schema" must be.

    Raises:
        InvalidInputError: as above.

    Example:
        >>> with reading({"kind": "a", "schema": 1}, "thing", kind="a", schema=1):
        ...     pass
    """
    if not isinstance(data, Mapping) or data.get("kind") != kind:
        raise InvalidInputError(f"data is no saved {noun}: its 'kind' must be {kind!r}")
    if type(data.get("schema")) is not int or data["schema"] != schema:
        raise InvalidInputError(f"data has schema {data.get('schema')!r}; this version reads schema {schema} only")
    try:
        yield
    except InvalidInputError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, OverflowError) as error:
        raise InvalidInputError(f"data is no saved {noun}: {type(error).__name__}: {error}") from error


def load_record(path: Path, from_dict: Callable[[Any], Record]) -> Record:
    """Return the record saved in this JSON file.

    Raises:
        InvalidInputError: where the file is no such record; the message names it.
        OSError: where it cannot be read.
    """
    try:
        return from_dict(read_json(path))
    except InvalidInputError as error:
        raise InvalidInputError(f"cannot load {str(path)!r}: {error}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not strict JSON")
