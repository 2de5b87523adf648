"""Seconds a text of LXT, transformers-interpret and shap beside explain, in turns, in processor seconds of one thread.

    python benchmarks/speed/peers.py --peer lxt_attnlrp=/path/to/python --peer interpret --peer shap_partition

Each peer runs in a process of its own, with the interpreter that is named (default: this one) and the adapter of the
study of faithfulness (`benchmarks/studies/faithfulness/peers`), which says what to install. A peer that cannot be
started gets no row. Both sides get the same texts and classes; the scores of a peer must be for the tokens that the
model reads.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # `benchmarks` is imported as a package

import torch

from benchmarks.common import ROOT, Row, check, result_row, run_parts
from benchmarks.inputs import load_classifier, load_tokenizer, model_folder
from hf_attn_mi import explain

RESULTS = Path(__file__).parent / "results" / "peers.jsonl"
ADAPTERS = ROOT / "benchmarks" / "studies" / "faithfulness" / "peers"
METHODS = {"lxt_attnlrp": "attnlrp", "interpret": "relevance", "shap_partition": "relevance"}
SHORT = "The plot is thin, but the two leads are a joy to watch."
TEXTS = {"short": SHORT, "long": " ".join([SHORT] * 8)}


class Peer:
    """A process that explains one text at a time; see `peers/exchange.py`."""

    def __init__(self, adapter: str, python: str, model: Path) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        environment.pop("PYTHONPATH", None)
        command = [python, str(ADAPTERS / f"{adapter}.py"), "--model", str(model)]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        first = self._line()
        self.versions: dict[str, str] = first["versions"]

    def answer(self, text: str, ids: list[int], target: int) -> dict[str, Any]:
        """The scores and processor seconds of each method."""
        assert self.process.stdin is not None
        given = {"id": 0, "text": text, "ids": ids, "target": target}
        self.process.stdin.write(json.dumps(given) + "\n")
        self.process.stdin.flush()
        return self._line()

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        check(bool(line), "its process ended; its message is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def against(adapter: str, python: str, folder: Path, turns: int) -> Iterator[Row]:
    """How many times faster explain is than the methods of a peer, text by text."""
    model, tokenizer = load_classifier(folder), load_tokenizer(folder)
    peer = Peer(adapter, python, folder)
    try:
        for label, text in TEXTS.items():
            batch = tokenizer(text, return_tensors="pt")
            with torch.no_grad():
                target = int(model(**batch).logits.argmax(1))
            ids = batch["input_ids"][0].tolist()
            ours: list[float] = []
            theirs: dict[str, list[float]] = {}
            for turn in range(turns + 1):  # the first one warms up
                started = time.process_time()
                explain(model, text, tokenizer=tokenizer, target=target, layers="none", method=METHODS[adapter])
                spent = time.process_time() - started
                answer = peer.answer(text, ids, target)
                check(bool(answer.get("scores")), f"no scores: {answer.get('reasons')}")
                if turn:
                    ours.append(spent)
                    for method, seconds in answer["seconds"].items():
                        theirs.setdefault(method, []).append(seconds)
            for method, column in theirs.items():
                yield result_row(
                    f"against other packages/{METHODS[adapter]} against {method}, {len(ids)} tokens ({label})",
                    "seconds of a text, each side in a process of its own, in turns",
                    ours,
                    column,
                    faster=True,
                    peer_versions=peer.versions,
                )
    finally:
        peer.close()


def main() -> int:
    """Run the peers, print and write the rows; the exit status is 1 where one of them gave no scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", action="append", metavar="NAME[=PYTHON]", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--model", type=Path, help="folder of a BERT classifier with its tokenizer")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    folder = model_folder(arguments.model)
    parts = []
    for one in arguments.peer or list(METHODS):
        name, _, python = one.partition("=")
        if name not in METHODS:
            parser.error(f"--peer {name!r}: allowed are {', '.join(METHODS)}")
        parts.append((name, partial(against, name, python or sys.executable, folder, arguments.turns), [1]))
    _, failures = run_parts(parts, arguments.output, model=folder.name)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
