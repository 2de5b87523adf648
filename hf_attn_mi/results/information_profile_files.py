"""A profile as two files in a folder: tensors as safetensors, everything else as strict JSON. No pickle."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.mi.probe import Probe
from hf_attn_mi.mi.result import MutualInformation
from hf_attn_mi.results.record import decode, encode, read_json

SCHEMA = 1
_KIND = "hf_attn_mi.InformationProfile"
_TENSORS, _DATA = "background.safetensors", "background.json"


def write_parts(profile: Any, path: Path, *, overwrite: bool) -> None:
    """Write the folder in one step: to a hidden neighbor, then by renaming.

    Raises:
        InvalidInputError: no parent folder, or something at `path` that may not be replaced.
    """
    if not path.absolute().parent.is_dir():
        raise InvalidInputError(f"path={str(path)!r}: the folder {str(path.parent)!r} does not exist; create it first")
    if path.exists() and not overwrite:
        raise InvalidInputError(f"path={str(path)!r} exists; choose another name or pass overwrite=True")
    if path.exists() and not (path.is_dir() and {item.name for item in path.iterdir()} <= {_TENSORS, _DATA}):
        raise InvalidInputError(f"path={str(path)!r} is not a saved profile and is not replaced; choose another name")
    tensors: dict[str, Tensor] = {}
    data: dict[str, Any] = {"kind": _KIND, "schema": SCHEMA, "halves": len(profile.halves)}
    for name, part in _parts(profile):
        values = {item.name: getattr(part, item.name) for item in fields(part)}
        held = {key for key, value in values.items() if isinstance(value, Tensor)}
        tensors |= {f"{name}.{key}": values[key].detach().cpu().clone().contiguous() for key in held}
        data[name] = {key: encode(value) for key, value in values.items() if key not in held}
    data["sites"] = [asdict(site) for site in profile.sites]
    data |= {name: encode(getattr(profile, name)) for name in ("labels", "fingerprint", "info")}
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    old = path.with_name(f".{path.name}.{uuid.uuid4().hex}.old")
    try:
        new.mkdir()
        save_file(tensors, new / _TENSORS)
        (new / _DATA).write_text(json.dumps(data, allow_nan=False, indent=1), encoding="ascii")
        if path.exists():
            path.rename(old)
        try:
            new.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
    finally:
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)


def read_parts(kind: Any, site: Any, path: Path) -> Any:
    """Return the `kind` that `write_parts` was given; `site` makes one site of its fields.

    Raises:
        InvalidInputError: no saved profile, a damaged one, or one of another schema.
    """
    if not all((path / name).is_file() for name in (_TENSORS, _DATA)):
        raise InvalidInputError(
            f"path={str(path)!r} is no saved profile: a folder with {_TENSORS} and {_DATA} is needed"
        )
    data = read_json(path / _DATA)
    if not isinstance(data, dict) or data.get("kind") != _KIND:
        raise InvalidInputError(f"path={str(path)!r} is no saved profile: its 'kind' must be {_KIND!r}")
    if data.get("schema") != SCHEMA:
        raise InvalidInputError(
            f"path={str(path)!r} has schema {data.get('schema')!r}; this version reads {SCHEMA} only"
        )
    try:
        tensors = load_file(path / _TENSORS)

        def part(made: Any, name: str) -> Any:
            held = {key.partition(".")[2]: value for key, value in tensors.items() if key.partition(".")[0] == name}
            return made(**{key: decode(value) for key, value in data[name].items()}, **held)

        return kind(
            sites=tuple(site(**values) for values in data["sites"]),
            information=part(MutualInformation, "information"),
            probe=part(Probe, "probe"),
            halves=tuple(part(Probe, f"half{i}") for i in range(data["halves"])),
            labels=tuple(map(str, data["labels"])),
            fingerprint=decode(data["fingerprint"]),
            info=decode(data["info"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, SafetensorError) as error:
        raise InvalidInputError(f"path={str(path)!r} is damaged: {type(error).__name__}: {error}") from error


def _parts(profile: Any) -> Iterator[tuple[str, Any]]:
    yield "information", profile.information
    yield "probe", profile.probe
    for i, half in enumerate(profile.halves):
        yield f"half{i}", half
