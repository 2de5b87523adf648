"""Classifiers for the data sets with rationales that no stored model fits, by examples/train_attention_head.py.

toxic_spans: toxic against not toxic, balanced (7,920 posts against 594, so most toxic ones are left out).
hatexplain: its three classes, on half of val; the study uses the other half.
"""

from __future__ import annotations

import json
import random
import runpy
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from benchmarks.common import ROOT, Row, provenance
from benchmarks.inputs import ENCODER_PACKAGE, packaged_encoder
from benchmarks.studies.faithfulness.data import (
    DATA,
    SETS,
    MissingDataError,
    halves,
    read_data,
    sample,
    text_and_spans,
)

EXAMPLE = ROOT / "examples" / "train_attention_head.py"


def train(name: str, trained: Path, *, limit: int | None = None) -> Row:
    """Train the classifier of a data set.

    Args:
        name: the name of the data set.
        trained: parent of the folder that the classifier is saved in.
        limit: maximum number of rows for training and for evaluation.

    Returns:
        A row with accuracy and macro F1.

    Raises:
        MissingDataError: data or encoder are missing.
    """
    if not (DATA / f"{SETS[name].data}.jsonl.gz").exists():
        raise MissingDataError(f"{SETS[name].data}.jsonl.gz is missing")
    if find_spec(ENCODER_PACKAGE) is None:
        raise MissingDataError(f"the encoder {ENCODER_PACKAGE} is not installed")
    started = time.process_time()
    splits = [sample(rows, limit or len(rows)) for rows in (toxic_rows() if name == "toxic_spans" else hateful_rows())]
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for split, rows in zip(("train", "dev"), splits):
            files.append(Path(folder) / f"{split}.jsonl")
            lines = [json.dumps({"text": text_and_spans(row)[0], "label": row["label"]}) for row in rows]
            files[-1].write_text("\n".join(lines), encoding="utf-8")
        options = {
            "encoder": packaged_encoder(),
            "train": files[0],
            "dev": files[1],
            "output": trained / name,
            "epochs": 3,
            "lr": 1e-4,
            "warmup": 30,
            "max-length": 96,
        }
        arguments = [word for option, value in options.items() for word in (f"--{option}", str(value))]
        figures = runpy.run_path(str(EXAMPLE))["main"](arguments)
    seconds = round(time.process_time() - started, 1)
    counts = [len(rows) for rows in splits]
    return {"kind": "training", "set": name, "rows": counts, **figures, "cpu_seconds": seconds, **provenance()}


def toxic_rows() -> tuple[list[Row], list[Row]]:
    """Return training and test rows; a fifth of the posts that are not toxic is for testing, with as many toxic."""
    shuffle = random.Random(0).shuffle
    clean, toxic, trial = (read_data(DATA / f"toxic_spans/{part}.jsonl.gz") for part in ("not_toxic", "train", "trial"))
    for rows in (clean, toxic, trial):
        shuffle(rows)
    count = len(clean) // 5
    # A post that is not toxic occurs twice, beside twice as many toxic posts.
    return [*clean[count:], *clean[count:], *toxic[: 2 * (len(clean) - count)]], [*clean[:count], *trial[-count:]]


def hateful_rows() -> tuple[list[Row], list[Row]]:
    """Return half of val for training and, for the accuracy, the other half, which the study uses."""
    return halves(read_data(DATA / "hatexplain/val.jsonl.gz"))
