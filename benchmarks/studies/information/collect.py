"""The stored rows of the study: figures of each head, and of each test text as means over seeds.

Rows, one JSON object a line, packed by gzip:

    {"row": "run", ...}       where and how long
    {"row": "tuning", "dataset", "kind", "rates", "accuracy" (rate, epochs), "rate", "epochs"}
    {"row": "head", "dataset", "seed", "kind", "means", "mi"}
    {"row": "texts", "dataset", "kind", "measure", "seeds", "values" (texts,): means over these seeds, null for none}

Only seeds that have all kinds of the group "main" are stored, and of the other groups only those that are complete, so
that all kinds have the same seeds. Seeds with the same groups make one block of `texts` rows.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ROOT, Row, read_rows
from benchmarks.studies.information.kinds import FROZEN, GROUPS, PAIRS, SCORES, UNIFORM, Cell, Kind

STORED = ROOT / "benchmarks" / "studies" / "information" / "results" / "information.jsonl.gz"
DIGITS = 3  # of a text's values
SHAPES = ("spread", "gini", "largest")
GROUP_NAMES = tuple(f"{name}_{group}" for name in ("pairs", "halves") for group in range(4))


def stored_measures(kind: Kind) -> tuple[str, ...]:
    """Return the measures whose values of each text a table needs."""
    if kind == UNIFORM:
        return ("correct",)
    if kind == FROZEN:
        return ("correct", "tau")
    if kind.entropy is not None:
        return ()
    if kind.recurrence != "none":
        return ("tau",)
    if kind not in PAIRS:
        return SHAPES
    more = ("correct", "correct_permuted", "average") if kind.score == SCORES[0] else ()
    return (*SHAPES, "tau", "attended", *GROUP_NAMES, "far_less_near", *more)


def collect(folder: Path, stored: Path) -> str:
    """Add the complete seeds of a run's folder to the stored rows; return what is stored, in a sentence.

    Seeds that are stored already are replaced, so that a run that goes on in its folder can be collected again.
    """
    old = read_rows(stored)
    rows = [row for row in old if row["row"] in ("run", "tuning")]
    known = {json.dumps(row, sort_keys=True) for row in rows}
    fresh = [{"row": "run", **row} for row in read_rows(folder / "runs.jsonl")]
    fresh += [{"row": "tuning", **row} for row in read_rows(folder / "tuning.jsonl")]
    rows += [row for row in fresh if json.dumps(row, sort_keys=True) not in known]
    new = {(row["dataset"], row["seed"], row["kind"]): row for row in read_rows(folder / "measured.jsonl")}
    blocks = blocks_of(new)
    replaced = {(dataset, seed) for (dataset, _), seeds in blocks.items() for seed in seeds}
    heads = {(row["dataset"], row["seed"], row["kind"]): row for row in old if row["row"] == "head"}
    heads = {key: row for key, row in heads.items() if key[:2] not in replaced}
    texts = []
    for row in (row for row in old if row["row"] == "texts"):
        inside = [(row["dataset"], seed) in replaced for seed in row["seeds"]]
        if any(inside) and not all(inside):
            raise SystemExit(f"seeds {row['seeds']} of {row['dataset']} are stored together: run all of them again")
        if not any(inside):
            texts.append(row)
    for (dataset, groups), seeds in sorted(blocks.items()):
        for kind in (kind for group in groups for kind in GROUPS[group]):
            for seed in seeds:
                heads[dataset, seed, kind.name] = rounded({"row": "head", **new[dataset, seed, kind.name]})
            texts += text_rows(folder, dataset, kind, seeds)
    write_packed([*rows, *(heads[key] for key in sorted(heads)), *texts], stored)
    counts: dict[str, set[int]] = defaultdict(set)
    for dataset, seed, _ in heads:
        counts[dataset].add(seed)
    sets = ", ".join(f"{name} {len(seeds)}" for name, seeds in sorted(counts.items()))
    return f"{len(heads)} heads stored; seeds: {sets}"


def blocks_of(heads: dict[tuple[str, int, str], Row]) -> dict[tuple[str, tuple[str, ...]], list[int]]:
    """Return the seeds of each data set that have the same complete groups, "main" among them."""
    blocks: dict[tuple[str, tuple[str, ...]], list[int]] = defaultdict(list)
    for dataset, seed in sorted({key[:2] for key in heads}):
        groups = tuple(
            name for name, kinds in GROUPS.items() if all((dataset, seed, kind.name) in heads for kind in kinds)
        )
        if "main" in groups:
            blocks[dataset, groups].append(seed)
    return blocks


def text_rows(folder: Path, dataset: str, kind: Kind, seeds: list[int]) -> list[Row]:
    """Return the rows of the means over these seeds, one for each measure."""
    arrays: dict[str, list[np.ndarray]] = {name: [] for name in stored_measures(kind)}
    for seed in seeds:
        with np.load(folder / "texts" / f"{Cell(dataset, seed, kind).key}.npz") as file:
            for name, columns in arrays.items():
                columns.append(file[name].astype(float))
    fields = {"row": "texts", "dataset": dataset, "kind": kind.name, "seeds": seeds}
    return [fields | {"measure": name, "values": means_of(np.array(columns))} for name, columns in arrays.items()]


def means_of(values: np.ndarray) -> list[float | None]:
    """Return the mean over seeds of each text (seeds, texts), of the seeds that have a value."""
    finite = np.isfinite(values)
    counts, sums = finite.sum(0), np.where(finite, values, 0.0).sum(0)
    return [round(float(s / n), DIGITS) if n else None for s, n in zip(sums, counts)]


def rounded(value: Any, digits: int = 6) -> Any:
    """Return the row with its numbers rounded."""
    if isinstance(value, dict):
        return {name: rounded(item, digits) for name, item in value.items()}
    return round(value, digits) if isinstance(value, float) else value


def write_packed(rows: list[Row], path: Path) -> None:
    """Write the rows packed by gzip, the same bytes for the same rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
