"""Files that are there whole or not at all: strict JSON, JSON lines, and a folder of JSON with safetensors."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import uuid
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError


def write_json(data: Any, path: Path, *, overwrite: bool) -> None:
    """Write strict JSON, gzipped for a name that ends in .gz.

    Raises:
        InvalidInputError: another suffix than .json or .json.gz, or a path as in `write_file`.
    """
    if not path.name.endswith((".json", ".json.gz")):
        raise InvalidInputError(f"path={str(path)!r}: the name must end in .json or .json.gz")
    write_file(_dump(data), path, overwrite=overwrite)


def write_json_lines(items: list[Any], path: Path, *, overwrite: bool) -> None:
    """Write one line of strict JSON for each item. Raises as `write_file`."""
    write_file(b"".join(_dump(item) + b"\n" for item in items), path, overwrite=overwrite)


def write_file(content: bytes, path: Path, *, overwrite: bool) -> None:
    """Write a file in one step: first under another name in the same folder, then by renaming.

    A name that ends in .gz is gzipped. Without `overwrite` the file is created exclusively: of two processes that write
    it at the same time, one is refused.

    Raises:
        InvalidInputError: a missing folder, a folder at `path`, or an existing file without `overwrite`.
    """
    _check_parent(path)
    if path.is_dir():
        raise InvalidInputError(f"path={str(path)!r} is a folder; name a file")
    if path.exists() and not overwrite:
        raise _exists(path)
    if path.name.endswith(".gz"):
        content = gzip.compress(content, mtime=0)  # no clock in the file: equal data, equal bytes
    temporary = _hidden(path, "tmp")  # not `tempfile`: its files are private (0600), and the saved one would stay so
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            os.replace(temporary, path)
        else:
            _create(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


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


def write_folder(data: Any, tensors: Mapping[str, Tensor], path: Path, stem: str, *, overwrite: bool) -> None:
    """Write a folder with `stem`.json and `stem`.safetensors in one step, by renaming.

    Raises:
        InvalidInputError: the parent folder is missing, or something stands at `path` and is not to be replaced.
    """
    names = {f"{stem}.json", f"{stem}.safetensors"}
    _check_parent(path.absolute())
    if path.exists() and not overwrite:
        raise _exists(path)
    if path.exists() and not (path.is_dir() and {item.name for item in path.iterdir()} <= names):
        raise InvalidInputError(f"path={str(path)!r} is not a saved {stem} and is not replaced; choose another name")
    new, old = _hidden(path, "tmp"), _hidden(path, "old")
    try:
        new.mkdir()
        save_file(dict(tensors), new / f"{stem}.safetensors")
        (new / f"{stem}.json").write_bytes(_dump(data, indent=1))
        for name in names:
            _sync(new / name)
        if path.exists():
            path.rename(old)
        try:
            new.rename(path)
        except OSError as error:
            if old.exists():
                old.rename(path)
            raise (_exists(path) if path.exists() and not overwrite else error) from error
    finally:
        for rest in (new, old):
            shutil.rmtree(rest, ignore_errors=True)
    _sync(path.absolute().parent)


def read_folder(path: Path, stem: str) -> tuple[Any, dict[str, Tensor]]:
    """Return the data and the tensors of a folder that `write_folder` wrote.

    Raises:
        InvalidInputError: a file is missing or damaged.
    """
    names = (f"{stem}.json", f"{stem}.safetensors")
    if not all((path / name).is_file() for name in names):
        raise InvalidInputError(
            f"path={str(path)!r} is not a saved {stem}: a folder with {' and '.join(names)} is needed"
        )
    try:
        return read_json(path / names[0]), load_file(path / names[1])
    except SafetensorError as error:
        raise InvalidInputError(f"path={str(path)!r} is damaged: SafetensorError: {error}") from error


def _dump(data: Any, indent: int | None = None) -> bytes:
    return json.dumps(data, allow_nan=False, indent=indent).encode("ascii")


def _parse(path: Path, texts: list[str]) -> list[Any]:
    try:
        return [json.loads(text, parse_constant=_refuse_constant) for text in texts]
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"path={str(path)!r} is not a strict JSON file: {error}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not strict JSON")


def _check_parent(path: Path) -> None:
    if not path.parent.is_dir():
        raise InvalidInputError(f"path={str(path)!r}: the folder {str(path.parent)!r} does not exist; create it first")


def _exists(path: Path) -> InvalidInputError:
    return InvalidInputError(f"path={str(path)!r} exists; choose another name or pass overwrite=True")


def _hidden(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.{suffix}")


def _create(temporary: Path, path: Path) -> None:
    """Give the file its name unless that name is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise _exists(path) from None
    except OSError:  # a file system without hard links: reserve the name, then replace the empty file
        try:
            path.open("xb").close()
        except FileExistsError:
            raise _exists(path) from None
        os.replace(temporary, path)


def _sync(path: Path) -> None:
    """Ask the system to write a file or a folder to the disk; where folders cannot be opened, it does so itself."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
