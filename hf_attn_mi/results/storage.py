"""The formats of saved results: strict JSON, JSON lines, and a folder of JSON with safetensors."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hf_attn_mi.atomic_files import as_path, new_folder, whole_folder, write_file
from hf_attn_mi.errors import InvalidInputError, shown

MAX_BYTES = 512 * 2**20  # largest size of a file when unpacked
BYTES_OF_A_VALUE = 32  # a file may hold one list, dictionary or entry of these for so many bytes of the limit
MAX_DEPTH = 32  # lists and dictionaries inside of one another; results need eight


def write_json(data: Any, path: str | Path, *, overwrite: bool) -> None:
    """Write strict JSON, gzipped for a name that ends in .gz.

    Raises:
        InvalidInputError: another suffix than .json or .json.gz, or a path as in `write_file`.
    """
    path = as_path(path)
    if not path.name.endswith((".json", ".json.gz")):
        raise InvalidInputError(f"path={str(path)!r}: the name must end in .json or .json.gz")
    _write(_dump(data), path, overwrite=overwrite)


def write_json_lines(items: list[Any], path: str | Path, *, overwrite: bool) -> None:
    """Write one line of strict JSON for each item. Raises as `write_file`."""
    _write(b"".join(_dump(item) + b"\n" for item in items), as_path(path), overwrite=overwrite)


def read_json(path: Path, *, max_bytes: int = MAX_BYTES) -> Any:
    """Return the data of a strict JSON file, gzipped or not.

    A small file may unpack to any size, and short values take many times their bytes in memory. So the unpacked text
    has at most `max_bytes` bytes and `max_bytes` / 32 values, and lists and dictionaries stand at most 32 deep.

    Args:
        path: the file.
        max_bytes: the limit.

    Raises:
        InvalidInputError: the file is not strict JSON, or exceeds a limit, which the message names.
        OSError: it cannot be read (FileNotFoundError among them).
    """
    (data,) = _parse(path, [read_text(path, max_bytes=max_bytes)])
    return data


def read_json_lines(path: Path, *, max_bytes: int = MAX_BYTES) -> list[Any]:
    """Return the data of each line of a JSON-lines file, gzipped or not. Arguments and errors as `read_json`."""
    return _parse(path, [line for line in read_text(path, max_bytes=max_bytes).split("\n") if line.strip()])


def read_text(path: Path, *, max_bytes: int = MAX_BYTES) -> str:
    """Return the text of a UTF-8 file, gzipped or not. Arguments and errors as `read_json`."""
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1:
        raise InvalidInputError(f"max_bytes must be a positive whole number, not {shown(max_bytes)}.")
    way = "pass a larger max_bytes to load it if you trust the file"
    with open(path, "rb") as file:
        content = _read_at_most(file, max_bytes + 1)
    try:
        if content[:2] == b"\x1f\x8b" and len(content) <= max_bytes:
            with gzip.GzipFile(fileobj=BytesIO(content)) as unpacked:
                content = _read_at_most(unpacked, max_bytes + 1)
        if len(content) > max_bytes:
            raise InvalidInputError(f"path={str(path)!r} holds more than max_bytes={max_bytes} bytes of text; {way}")
        values = sum(map(content.count, (b",", b"[", b"{")))
        if values > max(max_bytes // BYTES_OF_A_VALUE, 1):
            raise InvalidInputError(
                f"path={str(path)!r} holds {values} values, more than max_bytes / {BYTES_OF_A_VALUE} = "
                f"{max_bytes // BYTES_OF_A_VALUE}; {way}"
            )
        return content.decode("utf-8")
    except InvalidInputError:
        raise
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidInputError(f"path={str(path)!r} is not a strict JSON file: {error}") from error


def write_folder(data: Any, tensors: Mapping[str, Tensor], path: str | Path, stem: str, *, overwrite: bool) -> None:
    """Write a folder with `stem`.json and `stem`.safetensors in one step. Raises as `new_folder`."""
    names = {f"{stem}.json", f"{stem}.safetensors"}
    with new_folder(path, names, stem, overwrite=overwrite) as folder:
        save_file(dict(tensors), folder / f"{stem}.safetensors")
        (folder / f"{stem}.json").write_bytes(_dump(data, indent=1))


def _read_at_most(file: BinaryIO | gzip.GzipFile, count: int) -> bytes:
    """The first `count` bytes, read in pieces: one read of so many would set aside that much memory beforehand."""
    pieces, left = [], count
    while left and (piece := file.read(min(left, 2**20))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def read_folder(path: Path, stem: str, *, max_bytes: int = MAX_BYTES) -> tuple[Any, dict[str, Tensor]]:
    """Return the data and the tensors of a folder that `write_folder` wrote.

    Args:
        path: the folder.
        stem: the common file name without its extension.
        max_bytes: limit of the JSON file; see `read_json`. The tensors take the memory that their file has.

    Raises:
        InvalidInputError: a file is missing or damaged.
    """
    names = (f"{stem}.json", f"{stem}.safetensors")
    path = whole_folder(path)
    if not all((path / name).is_file() for name in names):
        raise InvalidInputError(
            f"path={str(path)!r} is not a saved {stem}: a folder with {' and '.join(names)} is needed"
        )
    try:
        return read_json(path / names[0], max_bytes=max_bytes), load_file(path / names[1])
    except SafetensorError as error:
        raise InvalidInputError(f"path={str(path)!r} is damaged: SafetensorError: {error}") from error


def _write(content: bytes, path: Path, *, overwrite: bool) -> None:
    if path.name.endswith(".gz"):
        content = gzip.compress(content, mtime=0)  # without the time, so that equal data give equal bytes
    write_file(content, path, overwrite=overwrite)


def dump_json(data: Any) -> str:
    """Return strict JSON in one line of ASCII."""
    return _dump(data).decode("ascii")


def parse_json(text: str, name: str, kind: str = "strict JSON") -> Any:
    """Return the data of a text of strict JSON.

    Args:
        text: the JSON.
        name: the name of the text in the message.
        kind: what it should be, for the message.

    Raises:
        InvalidInputError: the text is not strict JSON, or lists and dictionaries stand more than 32 deep.
    """
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
        _check_depth(data)
        return data
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{name} is not {kind}: {error}") from error


def _dump(data: Any, indent: int | None = None) -> bytes:
    return json.dumps(data, allow_nan=False, indent=indent).encode("ascii")


def _parse(path: Path, texts: list[str]) -> list[Any]:
    return [parse_json(text, f"path={str(path)!r}", "a strict JSON file") for text in texts]


def _check_depth(data: Any) -> None:
    level = [data] if isinstance(data, list | dict) else []
    for _ in range(MAX_DEPTH):
        inner = (item for one in level for item in (one.values() if isinstance(one, dict) else one))
        level = [item for item in inner if isinstance(item, list | dict)]
        if not level:
            return
    raise ValueError(f"its lists and dictionaries stand more than {MAX_DEPTH} deep")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not strict JSON")
