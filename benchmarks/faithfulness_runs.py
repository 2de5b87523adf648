"""Runs of `compare` on some of a data set's inputs, and the scores of peers from their own interpreters."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from faithfulness_data import DataSet, Inputs
from measuring import provenance

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
ADDED = ("attnlrp", "attnlrp_iterative")  # made after the first runs of MAIN: lines of their own, on the same inputs
PEERS = Path(__file__).resolve().parent / "peers"
Row = dict[str, Any]


def run(
    chosen: DataSet,
    inputs: Inputs,
    places: Sequence[int],
    *,
    group: str,
    methods: Sequence[str],
    metrics: Sequence[str] = FAITHFUL,
    removal: str = "delete",
    scores: dict[str, list[Any]] | None = None,
) -> Row:
    """One line of the results: `compare` on these inputs.

    Args:
        chosen: the data set.
        inputs: all that were drawn from it.
        places: numbers of the inputs that are run.
        group: name of the run's kind; with the data set and the places it says what is there already.
        methods: of the package.
        metrics: that are computed.
        removal: how tokens are taken out.
        scores: of peers, in the order of `places`.
    """
    started = time.process_time()
    mine = [inputs.spans[i] for i in places] if inputs.spans is not None else None
    targets = [inputs.targets[i] for i in places] if inputs.targets is not None else None
    found = compare(
        inputs.model,
        [inputs.texts[i] for i in places],
        methods=list(methods),
        rationales=mine,
        scores=scores,
        tokenizer=inputs.tokenizer,
        target=targets,
        metrics=metrics,
        removal=removal,
    )
    values = {m: {name: _rounded(column) for name, column in row.items()} for m, row in found.values.items()}
    costs = {
        name: {"forwards": cost.forwards, "backwards": cost.backwards, "wall_seconds": cost.seconds}
        for name, cost in found.costs.items()
    }
    return {
        "kind": "run",
        "set": chosen.name,
        "group": group,
        "removal": removal,
        "places": list(places),
        "tokens": found.info["tokens"],
        "values": values,
        "costs": costs,
        "failures": dict(found.failures),
        "pooled": _plain(found.info["eraser"]),
        "cpu_seconds": round(time.process_time() - started, 2),
        **provenance(),
    }


def peer_scores(
    script: str, python: Path, chosen: DataSet, inputs: Inputs, places: Sequence[int], only: Sequence[str]
) -> tuple[dict[str, list[Any]], Row]:
    """Scores of a peer's methods, one list for each input (None where it has none), and what is known of its run.

    Args:
        script: in benchmarks/peers.
        python: interpreter of the environment that the peer is installed in.
        chosen: the data set.
        inputs: all that were drawn from it.
        places: numbers of those that are run.
        only: the peer's methods that are run; none for all.
    """
    lines = []
    for i in places:
        words = inputs.tokenizer(inputs.texts[i])
        lines.append({"id": i, "text": inputs.texts[i], "ids": words["input_ids"], "target": _predicted(inputs, i)})
    about: Row = {"kind": "peer", "set": chosen.name, "script": script, "places": list(places)}
    command = [str(python), str(PEERS / f"{script}.py"), "--model", inputs.folder]
    command += ["--only", *only] if only else []
    given = "".join(json.dumps(line) + "\n" for line in lines)
    done = subprocess.run(command, input=given, capture_output=True, text=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if not answers:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        return {}, about | {"reason": f"does not start: {last[:200]}"} | provenance()
    about |= {"peer_versions": answers[0]["versions"], "settings": answers[0]["settings"]}
    found = {answer["id"]: answer for answer in answers[1:]}
    names = {name: None for answer in answers[1:] for name in (*answer["scores"], *answer.get("reasons", {}))}
    scores = {name: [found.get(i, {"scores": {}})["scores"].get(name) for i in places] for name in names}
    about["inputs"] = {name: sum(one is not None for one in column) for name, column in scores.items()}
    seconds = {name: [a["seconds"][name] for a in answers[1:] if name in a["seconds"]] for name in names}
    about["cpu_seconds"] = {name: _mean(column) for name, column in seconds.items()}
    about["reasons"] = {
        name: sorted({a["reasons"][name] for a in answers[1:] if name in a.get("reasons", {})}) for name in names
    }
    if done.returncode:
        about["reason"] = f"stopped with status {done.returncode}"
    useful = {name: column for name, column in scores.items() if any(one is not None for one in column)}
    return useful, about | provenance()


@torch.no_grad()
def _predicted(inputs: Inputs, i: int) -> int:
    words = inputs.tokenizer(inputs.texts[i], return_tensors="pt")
    return int(inputs.model(**words).logits[0].argmax())


def _rounded(column: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else round(value, 6) for value in column]


def _plain(pooled: Any) -> Any:
    return {method: {name: dict(row) for name, row in rows.items()} for method, rows in pooled.items()}


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
