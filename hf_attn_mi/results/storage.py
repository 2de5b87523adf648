"""The formats of saved results: strict JSON, JSON lines, and a folder of JSON with safetensors."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hf_attn_mi.atomic_files import as_path, new_folder, whole_folder, write_file
from hf_attn_mi.errors import InvalidInputError


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


def read_json(path: Path) -> Any:
    """Return the data of a strict JSON file, gzipped or not.

    Raises:
        InvalidInputError: the file is not strict JSON.
        OSError: it cannot be read (FileNotFoundError among them).
    """
    (data,) = _parse(path, [read_text(path)])
    return data


def read_json_lines(path: Path) -> list[Any]:
    """Return the data of each line of a JSON-lines file, gzipped or not. Raises as `read_json`."""
    return _parse(path, [line for line in read_text(path).split("\n") if line.strip()])


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, gzipped or not. Raises as `read_json`."""
    content = path.read_bytes()
    try:
        return (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("utf-8")
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidInputError(f"path={str(path)!r} is not a strict JSON file: {error}") from error


def write_folder(data: Any, tensors: Mapping[str, Tensor], path: str | Path, stem: str, *, overwrite: bool) -> None:
    """Write a folder with `stem`.json and `stem`.safetensors in one step. Raises as `new_folder`."""
    names = {f"{stem}.json", f"{stem}.safetensors"}
    with new_folder(path, names, stem, overwrite=overwrite) as folder:
        save_file(dict(tensors), folder / f"{stem}.safetensors")
        (folder / f"{stem}.json").write_bytes(_dump(data, indent=1))


def read_folder(path: Path, stem: str) -> tuple[Any, dict[str, Tensor]]:
    """Return the data and the tensors of a folder that `write_folder` wrote.

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
        return read_json(path / names[0]), load_file(path / names[1])
    except SafetensorError as error:
        raise InvalidInputError(f"path={str(path)!r} is damaged: SafetensorError: {error}") from error


def _write(content: bytes, path: Path, *, overwrite: bool) -> None:
    if path.name.endswith(".gz"):
        content = gzip.compress(content, mtime=0)  # no clock in the file: equal data, equal bytes
    write_file(content, path, overwrite=overwrite)


def _dump(data: Any, indent: int | None = None) -> bytes:
    return json.dumps(data, allow_nan=False, indent=indent).encode("ascii")


def _parse(path: Path, texts: list[str]) -> list[Any]:
    try:
        return [json.loads(text, parse_constant=_refuse_constant) for text in texts]
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"path={str(path)!r} is not a strict JSON file: {error}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not strict JSON")
