"""The values of a record: checked against their annotations, made read-only, compared, written as strict JSON."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from itertools import chain
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown

Reader = Callable[[Any], Any]

_TENSOR, _FLOAT = "__tensor__", "__float__"
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool)
}


class MismatchError(Exception):
    """A value does not fit its annotation: `path` leads to it from the field, `problem` follows the field's name."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}{problem}")
        self.path, self.problem = path, problem

    def below(self, place: str) -> MismatchError:
        """Return the same mismatch as seen from one level further out."""
        return MismatchError(place + self.path, self.problem)


def read_field(record_type: type, name: str, value: object, *, saved: bool) -> Any:
    """Return the value of a dataclass field as its annotation says.

    Sequences become tuples, mappings read-only, numbers the plain Python type; tensors become copies on the CPU that
    share no storage and have no graph.

    Args:
        record_type: the dataclass.
        name: the name of the field.
        value: the value of the field; with `saved`, in the form that `encode` gives.
        saved: whether tensors, nested dataclasses and numbers that JSON lacks are to be decoded.

    Raises:
        InvalidInputError: the value does not fit; the message names the field and the place inside it.

    Example:
        >>> from hf_attn_mi.evaluation import Estimate
        >>> read_field(Estimate, "interval", [0, 1], saved=False)
        (0.0, 1.0)
    """
    try:
        return _field_readers(record_type, saved)[name](value)
    except MismatchError as error:
        raise InvalidInputError(f"{name}{error}") from error


def freeze(value: object) -> Any:
    """Return JSON-like data as read-only data: mappings as `MappingProxyType`, lists and tuples as tuples.

    Args:
        value: None, bool, int, float, str, sequences of these, mappings from str to these.

    Raises:
        MismatchError: any other type, a key that is not a string, or one of the two keys that `encode` uses.

    Example:
        >>> freeze({"layers": [1, 2]})["layers"]
        (1, 2)
    """
    if value is None or isinstance(value, bool):
        return value
    # Subclasses (torch's version string, numpy.float64, enumerations) become the plain type, as they would in JSON.
    for plain in (str, int, float):
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, list | tuple):
        return tuple(_at(f"[{index}]", freeze, item) for index, item in enumerate(value))
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or key in (_TENSOR, _FLOAT):
                raise MismatchError("", f": key {key!r} is not allowed; keys are strings other than the reserved ones")
        return MappingProxyType({str(key): _at(f"[{key!r}]", freeze, item) for key, item in value.items()})
    raise MismatchError(
        "",
        f" is a {type(value).__name__}; only None, bool, int, float, str, lists and dictionaries of these can be "
        "saved as JSON: convert it first (for example with .item(), .tolist() or str)",
    )


def thaw(value: object) -> Any:
    """Return the data with read-only mappings as dictionaries, which can be pickled and copied."""
    if isinstance(value, Mapping):
        return {key: thaw(item) for key, item in value.items()}
    return tuple(map(thaw, value)) if type(value) is tuple else value


def same(left: object, right: object) -> bool:
    """Return whether two pieces of data are equal: tensors by dtype, shape and value, dataclasses by their fields.

    NaN equals NaN.

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
    if is_dataclass(left):
        names = [item.name for item in fields(left)]
        return type(left) is type(right) and all(same(getattr(left, n), getattr(right, n)) for n in names)
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left) and math.isnan(right):
        return True
    return bool(left == right)


def encode(value: object, tensors: dict[str, Tensor] | None = None, place: str = "") -> Any:
    """Return data as `json.dumps(..., allow_nan=False)` takes it.

    A tensor becomes `{"__tensor__": dtype, "shape": [...], "values": [...]}` with the values in row order; a number
    that JSON lacks becomes `{"__float__": "nan" | "inf" | "-inf"}`, and the bare string among a tensor's values.

    Args:
        value: frozen data, tensors and dataclasses of these.
        tensors: where given, tensors are put here instead, and `{"__tensor__": key}` replaces them.
        place: the path to the value, with which these keys begin.

    Raises:
        InvalidInputError: a tensor whose dtype cannot be written.

    Example:
        >>> encode(torch.tensor([0.5, float("inf")]))
        {'__tensor__': 'float32', 'shape': [2], 'values': [0.5, 'inf']}
    """
    if isinstance(value, Tensor):
        if tensors is not None:
            tensors[place] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
            return {_TENSOR: place}
        dtype = str(value.dtype).removeprefix("torch.")
        if dtype not in _DTYPES:
            raise InvalidInputError(f"a tensor of dtype {dtype} cannot be saved; allowed: {', '.join(_DTYPES)}")
        numbers = [x if math.isfinite(x) else str(x) for x in value.detach().cpu().flatten().tolist()]
        return {_TENSOR: dtype, "shape": list(value.shape), "values": numbers}
    if isinstance(value, float):
        return value if math.isfinite(value) else {_FLOAT: str(value)}
    inside = f"{place}." if place else ""
    if is_dataclass(value):
        return {item.name: encode(getattr(value, item.name), tensors, inside + item.name) for item in fields(value)}
    if isinstance(value, Mapping):
        return {key: encode(item, tensors, inside + key) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item, tensors, f"{inside}{index}") for index, item in enumerate(value)]
    return value


def decode(value: Any, tensors: Mapping[str, Tensor] | None = None) -> Any:
    """Return what `encode` was given, lists as tuples and dataclasses as mappings.

    Raises:
        KeyError, TypeError, ValueError: data that `encode` did not write.

    Example:
        >>> decode({"__float__": "-inf"})
        -inf
    """
    if isinstance(value, Mapping):
        if _TENSOR in value:
            if tensors is not None:
                return tensors[value[_TENSOR]]
            dtype = _DTYPES[value[_TENSOR]]
            plain = float if dtype.is_floating_point else (bool if dtype == torch.bool else int)
            return torch.tensor([plain(x) for x in value["values"]], dtype=dtype).reshape(value["shape"])
        if _FLOAT in value:
            return float(value[_FLOAT])
        return {key: decode(item, tensors) for key, item in value.items()}
    return tuple(decode(item, tensors) for item in value) if isinstance(value, list | tuple) else value


@cache
def _field_readers(record_type: type, saved: bool) -> dict[str, Reader]:
    hints = get_type_hints(record_type)
    return {item.name: _reader(hints[item.name], saved) for item in fields(record_type)}


def _reader(annotation: Any, saved: bool) -> Reader:
    """Return the function that reads a value of this annotation."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        (inner,) = (_reader(item, saved) for item in arguments if item is not NoneType)
        return lambda value: None if value is None else inner(value)
    if origin is tuple:
        items = [_reader(item, saved) for item in arguments if item is not ...]
        return _tuple_reader(items, arguments[-1] is ..., _exact_types(arguments))
    if annotation is Mapping or origin is Mapping:
        item = arguments[1]
        return _mapping_reader(freeze if item is Any else _reader(item, saved))
    if is_dataclass(annotation):
        return _dataclass_reader(annotation, saved)
    return _PLAIN[annotation]


def _exact_types(items: tuple[Any, ...]) -> tuple[frozenset[type], int | None] | None:
    """Types whose values need no reading in a tuple of these items; None if each has to be read.

    The second result is None, or the number of entries of the tuples of one type that the items are.

    Example:
        >>> _exact_types((tuple[int, int], ...)) == (frozenset({int}), 2)
        True
    """
    if len(items) != 2 or items[1] is not ...:
        return None
    inner = get_args(items[0])
    if get_origin(items[0]) is tuple:
        plain = len(set(inner)) == 1 and inner[0] in _PLAIN and inner[0] is not Tensor
        return (frozenset({inner[0]}), len(inner)) if plain else None
    kinds = frozenset(inner if get_origin(items[0]) in (Union, UnionType) else items[:1])
    return (kinds, None) if kinds <= {NoneType, str, float, int, bool} else None


def _is_exact(values: tuple[Any, ...], exact: tuple[frozenset[type], int | None] | None) -> bool:
    """Whether every entry is what its reader would give, found without calling it: there may be thousands."""
    if exact is None:
        return False
    kinds, size = exact
    if size is not None:
        if set(map(type, values)) != {tuple} or set(map(len, values)) != {size}:
            return False
        values = tuple(chain.from_iterable(values))
    found = set(map(type, values))
    if not found <= kinds:
        return False
    numbers = [value for value in values if value is not None] if int in found else []
    return not numbers or bool(min(numbers) >= -(2**63) and max(numbers) < 2**63)


def _tuple_reader(
    items: list[Reader], repeated: bool, exact: tuple[frozenset[type], int | None] | None = None
) -> Reader:
    def read(value: Any) -> tuple[Any, ...]:
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise MismatchError("", f" must be a tuple, got {type(value).__name__}")
        values = tuple(value)
        if _is_exact(values, exact):
            return values
        readers = items * len(values) if repeated else items
        if len(values) != len(readers):
            raise MismatchError("", f" has {len(values)} entries; {len(readers)} are needed")
        try:
            return tuple(reader(item) for reader, item in zip(readers, values))
        except MismatchError:  # look for the place only now: there may be thousands of entries
            return tuple(_at(f"[{i}]", reader, item) for i, (reader, item) in enumerate(zip(readers, values)))

    return read


def _mapping_reader(item: Reader) -> Reader:
    def read(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise MismatchError("", f" must be a dictionary, got {type(value).__name__}")
        if item is freeze:
            return freeze(value)
        for key in value:
            if not isinstance(key, str):
                raise MismatchError("", f": key {key!r} must be a string")
        return MappingProxyType({key: _at(f"[{key!r}]", item, entry) for key, entry in value.items()})

    return read


def _dataclass_reader(kind: Any, saved: bool) -> Reader:
    def read(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        if not saved or not isinstance(value, Mapping):
            raise MismatchError("", f" must be a {kind.__name__}, got {type(value).__name__}")
        readers = _field_readers(kind, True)
        if value.keys() != readers.keys():
            names = ", ".join(sorted(map(str, value.keys() ^ readers.keys())))
            raise MismatchError("", f" is not a saved {kind.__name__}: {names} missing or unknown")
        return kind(**{name: _at(f".{name}", reader, value[name]) for name, reader in readers.items()})

    return read


def _at(place: str, reader: Reader, value: object) -> Any:
    """Read a value that is part of another; a mismatch names the place."""
    try:
        return reader(value)
    except MismatchError as error:
        raise error.below(place) from error


def _tensor(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise MismatchError("", f" must be a tensor, got {type(value).__name__}")
    return value.detach().cpu().clone(memory_format=torch.contiguous_format)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise MismatchError("", f" must be a string, got {type(value).__name__}")
    return str(value)


def _float(value: Any) -> float:
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise MismatchError("", f" must be a number, got {shown(value, 80)}") from None


def _integer(value: Any) -> int:
    try:
        number = int(operator.index(value))
    except (TypeError, RuntimeError):
        raise MismatchError("", f" must be a whole number, got {shown(value, 80)}") from None
    if not -(2**63) <= number < 2**63:
        raise MismatchError("", " must be a whole number of at most 64 bits")
    return number


def _boolean(value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    # Tokenizers give masks as 0 and 1, in lists, arrays and tensors.
    number = _integer(value)
    if number not in (0, 1):
        raise MismatchError("", f" must be True or False, got {shown(value)}")
    return number == 1


_PLAIN: dict[Any, Reader] = {Tensor: _tensor, str: _string, float: _float, int: _integer, bool: _boolean}
