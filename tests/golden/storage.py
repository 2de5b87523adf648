"""The file of the recorded numbers: groups of cases of fields, arrays in one block for each dtype."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

Records = dict[str, dict[str, dict[str, Any]]]  # group, case, field
Factors = dict[str, dict[str, dict[str, float]]]  # the same: how many times the tolerance is allowed
KINDS = ("float32", "float64", "int32", "bool")


def save(records: Records, path: Path, wider: Factors | None = None) -> None:
    """Write the records; every array becomes one of `KINDS`."""
    blocks: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    ends = dict.fromkeys(KINDS, 0)

    def plain(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        if not isinstance(value, np.ndarray):
            return value
        kind = "int32" if value.dtype.kind == "i" else str(value.dtype)
        blocks[kind].append(value.astype(kind).ravel())
        start, ends[kind] = ends[kind], ends[kind] + value.size
        return {"kind": kind, "start": start, "shape": value.shape}

    index = {
        group: {case: {field: plain(value) for field, value in record.items()} for case, record in cases.items()}
        for group, cases in records.items()
    }
    arrays = {kind: np.concatenate([*parts, np.zeros(0, kind)]).astype(kind) for kind, parts in blocks.items()}
    text = np.frombuffer(json.dumps({"records": index, "wider": wider or {}}).encode(), dtype=np.uint8)
    np.savez_compressed(path, index=text, **arrays)


def load(path: Path) -> tuple[Records, Factors]:
    """The records and the factors of their tolerances."""
    with np.load(path) as file:
        arrays = {kind: file[kind] for kind in KINDS}
        index = json.loads(file["index"].tobytes())

    def whole(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        start, shape = value["start"], tuple(value["shape"])
        return arrays[value["kind"]][start : start + int(np.prod(shape))].reshape(shape)

    records = {
        group: {case: {field: whole(value) for field, value in record.items()} for case, record in cases.items()}
        for group, cases in index["records"].items()
    }
    return records, index["wider"]
