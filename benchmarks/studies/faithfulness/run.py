"""Run `compare` on inputs of a data set, and the methods of other packages in their own interpreters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import Row, provenance
from benchmarks.studies.faithfulness.data import DataSet, Inputs
from hf_attn_mi.tasks.compare import compare

PLAUSIBILITY = ("auprc", "average_precision", "token_f1", "iou_f1")
FAITHFUL = ("comprehensiveness", "sufficiency")
NORMALIZED = ("normalized_aopc", "normalized_aopc_ascending")
CAPTUM = (
    "integrated_gradients",
    "input_x_gradient",
    "saliency",
    "deeplift",
    "gradient_shap",
    "feature_ablation",
    "occlusion",
    "lime",
    "kernel_shap",
    "shapley_sampling",
)
COSTLY = ("occlusion", "lime", "kernel_shap", "shapley_sampling")  # hundreds of passes an input, and more
MAIN = (
    "relevance",
    *(name for name in CAPTUM if name not in COSTLY),
    "attention",
    "rollout",
    "effective",
    "efficient",
    "value_norms",
    "random",
)
ADDED = ("attnlrp", "attnlrp_iterative")  # added after the first runs of MAIN, as rows of their own on the same inputs
PEERS = Path(__file__).resolve().parent / "peers"


def run(
    dataset: DataSet,
    inputs: Inputs,
    positions: Sequence[int],
    *,
    group: str,
    methods: Sequence[str],
    metrics: Sequence[str] = FAITHFUL,
    removal: str = "delete",
    scores: dict[str, list[Any]] | None = None,
) -> Row:
    """Run `compare` on some inputs and return one row of the results.

    Args:
        dataset: the data set.
        inputs: all inputs of it.
        positions: of the inputs that are run.
        group: kind of run; with data set and positions it identifies the row.
        methods: methods of this package.
        metrics: the metrics that are computed.
        removal: how tokens are removed.
        scores: the scores of peers, in the order of `positions`.
    """
    started = time.process_time()
    spans = [inputs.spans[i] for i in positions] if inputs.spans is not None else None
    targets = [inputs.targets[i] for i in positions] if inputs.targets is not None else None
    comparison = compare(
        inputs.model,
        [inputs.texts[i] for i in positions],
        methods=list(methods),
        rationales=spans,
        scores=scores,
        tokenizer=inputs.tokenizer,
        target=targets,
        metrics=metrics,
        removal=removal,
    )
    values = {m: {name: _rounded(column) for name, column in row.items()} for m, row in comparison.values.items()}
    costs = {
        name: {"forwards": cost.forwards, "backwards": cost.backwards, "wall_seconds": cost.seconds}
        for name, cost in comparison.costs.items()
    }
    return {
        "kind": "run",
        "set": dataset.name,
        "group": group,
        "removal": removal,
        "places": list(positions),
        "tokens": comparison.info["tokens"],
        "values": values,
        "costs": costs,
        "failures": dict(comparison.failures),
        "pooled": _plain(comparison.info["eraser"]),
        "cpu_seconds": round(time.process_time() - started, 2),
        **provenance(),
    }


def interpreter(script: str, peers: Path) -> Path:
    """Return the interpreter of a script's environment, or this one: the extra "bench" has some peers."""
    python = peers / script / "bin" / "python"
    return python if python.exists() else Path(sys.executable)


def run_peer(
    script: str,
    python: Path,
    dataset: DataSet,
    inputs: Inputs,
    positions: Sequence[int],
    only: Sequence[str],
    *,
    folder: Path = PEERS,
    checkout: Path | None = None,
) -> tuple[dict[str, list[Any]], Row]:
    """Run the methods of another package.

    Args:
        script: the name of the script in `folder`.
        python: interpreter of the environment that the package is installed in.
        dataset: the data set.
        inputs: all inputs of it.
        positions: of the inputs that are run.
        only: the methods that are run; empty for all.
        folder: the folder of the script.
        checkout: a folder that the script imports modules from.

    Returns:
        Scores of each method, one list an input (None where it has no scores), and a row about the run.
    """
    lines = []
    for i in positions:
        encoding = inputs.tokenizer(inputs.texts[i])
        lines.append({"id": i, "text": inputs.texts[i], "ids": encoding["input_ids"], "target": _predicted(inputs, i)})
    row: Row = {"kind": "peer", "set": dataset.name, "script": script, "places": list(positions)}
    command = [str(python), str(folder / f"{script}.py"), "--model", inputs.folder]
    command += ["--only", *only] if only else []
    stdin = "".join(json.dumps(line) + "\n" for line in lines)
    modules = [str(PEERS), *([] if checkout is None else [str(checkout)])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(modules)}
    process = subprocess.run(command, input=stdin, capture_output=True, text=True, env=environment)
    answers = [json.loads(line) for line in process.stdout.splitlines()]
    if not answers:
        last = (process.stderr.strip() or "no message").splitlines()[-1]
        return {}, row | {"reason": f"does not start: {last[:200]}"} | provenance()
    row |= {"peer_versions": answers[0]["versions"], "settings": answers[0]["settings"]}
    by_id = {answer["id"]: answer for answer in answers[1:]}
    names = {name: None for answer in answers[1:] for name in (*answer["scores"], *answer.get("reasons", {}))}
    scores = {name: [by_id.get(i, {"scores": {}})["scores"].get(name) for i in positions] for name in names}
    row["inputs"] = {name: sum(values is not None for values in column) for name, column in scores.items()}
    seconds = {name: [a["seconds"][name] for a in answers[1:] if name in a["seconds"]] for name in names}
    row["cpu_seconds"] = {name: _mean(column) for name, column in seconds.items()}
    row["reasons"] = {
        name: sorted({a["reasons"][name] for a in answers[1:] if name in a.get("reasons", {})}) for name in names
    }
    if process.returncode:
        row["reason"] = f"stopped with status {process.returncode}"
    useful = {name: column for name, column in scores.items() if any(values is not None for values in column)}
    return useful, row | provenance()


@torch.no_grad()
def _predicted(inputs: Inputs, i: int) -> int:
    batch = inputs.tokenizer(inputs.texts[i], return_tensors="pt")
    return int(inputs.model(**batch).logits[0].argmax())


def _rounded(column: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else round(value, 6) for value in column]


def _plain(pooled: Any) -> Any:
    return {method: {name: dict(row) for name, row in rows.items()} for method, rows in pooled.items()}


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
