"""Compare the methods of rankings/ with the code of their authors, on the same model, token ids and classes.

    C=benchmarks/studies/faithfulness/check_rankings.py
    python $C --repositories FOLDER --peers FOLDER              # every method; 20 sentences of SST-2 dev
    python $C --repositories FOLDER --peers FOLDER --methods AttCAT

FOLDER of --repositories holds checkouts of the repositories that authors/registry.py names, called `name` or
`owner+name`. FOLDER of --peers holds environments called as the adapters in authors/ (without one, this interpreter is
used); the docstrings of the adapters say what they need. One row is written for each comparison to
results/authors.jsonl; rows of other methods stay. Then write the page again:

    python benchmarks/accuracy/faithfulness.py --report docs/studies
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[3])  # `benchmarks` is imported as a package

import numpy as np
import scipy.stats
import torch

from benchmarks.common import ROOT, Row, provenance, read_rows, write_rows
from benchmarks.studies.faithfulness.authors.registry import COMPARISONS, Comparison
from benchmarks.studies.faithfulness.data import SETS, Inputs, read_inputs
from benchmarks.studies.faithfulness.run import interpreter, run_peer

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "authors.jsonl"
TOP = 5
SAME_LOGITS = 1e-3  # largest difference of logits with which two programs are taken to run the same model


def agreement(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float | None]:
    """How far two lists of scores for the same tokens agree.

    Returns:
        difference: max |ours - theirs| / max |theirs|.
        spearman: the rank correlation; None where one of them is constant.
        top: share of the five tokens with the largest scores (all, for fewer than five) that are the same.
    """
    first, second = np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
    if first.shape != second.shape or not len(first):
        raise ValueError(f"ours has {len(first)} scores and theirs {len(second)}; the same number is needed")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("scores must be finite")
    largest = np.abs(second).max()
    gap = np.abs(first - second).max()
    count = min(TOP, len(first))
    best = [set(np.argsort(-scores, kind="stable")[:count].tolist()) for scores in (first, second)]
    constant = np.ptp(first) == 0 or np.ptp(second) == 0
    return {
        "difference": float(gap / largest) if largest else None,
        "spearman": None if constant else float(scipy.stats.spearmanr(first, second).statistic),
        "top": len(best[0] & best[1]) / count,
    }


def compare(comparison: Comparison, inputs: Inputs, scores: dict[str, list[list[float] | None]], row: Row) -> Row:
    """Return the row of a comparison.

    Args:
        comparison: what is compared.
        inputs: the inputs, the first of which were run.
        scores: the authors' scores and `logits`, a list an input.
        row: about the run of their code.
    """
    special = set(inputs.tokenizer.all_special_ids)
    columns: dict[str, list[float | None]] = {name: [] for name in ("difference", "spearman", "top", "all_tokens")}
    logits, counts = [], []
    for place, theirs in enumerate(scores.get(comparison.explainer, [])):
        if theirs is None:
            continue
        ids = inputs.tokenizer(inputs.texts[place], return_tensors="pt")["input_ids"]
        with torch.no_grad():
            values = inputs.model(input_ids=ids).logits[0]
        found = scores["logits"][place]
        if found is None:
            continue
        logits.append(float((values - torch.tensor(found)).abs().max()))
        ours = comparison.score(inputs.model, ids[0], int(values.argmax())).tolist()
        ordinary = [i for i, token in enumerate(ids[0].tolist()) if token not in special]
        counts.append(len(ordinary))
        for name, value in agreement([ours[i] for i in ordinary], [theirs[i] for i in ordinary]).items():
            columns[name].append(value)
        columns["all_tokens"].append(agreement(ours, theirs)["difference"])
    row |= {"method": comparison.method, "setting": comparison.setting, "repository": comparison.repository}
    row |= {"explainer": comparison.explainer, "difference_is": comparison.difference_is}
    if logits and max(logits) > SAME_LOGITS:
        return row | {"reason": f"not the same model: logits differ by {max(logits):.2g}"}
    return row | {"logits": max(logits, default=None), "tokens": counts, **columns}


def checkout_of(repository: str, folder: Path) -> Path | None:
    """Return the checkout of a repository, called `owner+name` or `name`."""
    candidates = (folder / repository.replace("/", "+"), folder / repository.split("/")[1])
    return next((path for path in candidates if path.exists()), None)


def commit_of(checkout: Path) -> str:
    """Return the commit of a checkout."""
    command = ["git", "--no-optional-locks", "-C", str(checkout), "rev-parse", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


def rows_of(comparisons: Sequence[Comparison], inputs: Inputs, count: int, arguments: argparse.Namespace) -> list[Row]:
    """Run the authors' code once for each adapter, then compare."""
    rows: list[Row] = []
    dataset = SETS[arguments.data]
    for script in dict.fromkeys(comparison.script for comparison in comparisons):
        entries = [comparison for comparison in comparisons if comparison.script == script]
        checkout = checkout_of(entries[0].repository, arguments.repositories)
        if checkout is None:
            print(f"{script}: no checkout of {entries[0].repository} in {arguments.repositories}", flush=True)
            continue
        python = interpreter(script, arguments.peers)
        options = {"folder": HERE / "authors", "checkout": checkout}
        scores, row = run_peer(script, python, dataset, inputs, range(count), (), **options)  # type: ignore[arg-type]
        row |= {"repository_commit": commit_of(checkout), "model": Path(inputs.folder).name} | provenance()
        row.pop("cpu_seconds", None)  # of no use here: nothing is timed
        if row.get("reason") or "logits" not in scores:
            why = [*row.get("reasons", {}).items(), row.get("reason")]
            print(f"{script}: no scores, no row written: {why}", flush=True)
            continue
        for entry in entries:
            rows.append(compare(entry, inputs, scores, dict(row)))
            print(line_of(rows[-1]), flush=True)
    return rows


def line_of(row: Row) -> str:
    """Return a row for the terminal: worst difference, lowest correlation and overlap, of the inputs."""
    name = f"{row['method']}, {row['setting']}"
    if "difference" not in row or not row["difference"]:
        return f"{name}: {row.get('reason', 'no scores: ' + str(row.get('reasons')))}"
    figures = {
        "difference": max(row["difference"]),
        "all tokens": max(row["all_tokens"]),
        "spearman": min(value for value in row["spearman"] if value is not None),
        "top 5": min(row["top"]),
        "logits": row["logits"],
    }
    return f"{name}: {len(row['difference'])} inputs, " + ", ".join(f"{k} {v:.3g}" for k, v in figures.items())


def main() -> int:
    """Run the comparisons and replace their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repositories", type=Path, required=True, help="folder of the authors' repositories")
    parser.add_argument(
        "--peers", type=Path, default=ROOT / "out" / "peers", help="environments, named as authors/*.py"
    )
    parser.add_argument("--data", choices=sorted(SETS), default="sst2", help="data set of data.py")
    parser.add_argument("--model", help="model of data.py, or a folder; default: that of the data set")
    parser.add_argument("--trained", type=Path, default=ROOT / "out" / "trained", help="folder of trained models")
    parser.add_argument("--inputs", type=int, default=20)
    parser.add_argument("--methods", nargs="+", choices=sorted({c.method for c in COMPARISONS}))
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = SETS[arguments.data]
    dataset = dataclasses.replace(dataset, model=arguments.model or dataset.model)
    inputs = read_inputs(dataset, arguments.trained)
    chosen = [c for c in COMPARISONS if arguments.methods is None or c.method in arguments.methods]
    rows = rows_of(chosen, inputs, min(arguments.inputs, len(inputs.texts)), arguments)
    new = {(row["method"], row["setting"]) for row in rows}
    kept = [row for row in read_rows(arguments.output) if (row["method"], row["setting"]) not in new]
    order = {comparison.key: place for place, comparison in enumerate(COMPARISONS)}
    both = sorted(kept + rows, key=lambda row: order.get((row["method"], row["setting"]), len(order)))
    write_rows(both, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
