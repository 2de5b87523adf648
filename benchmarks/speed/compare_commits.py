"""Time two commits in turns, on one machine in one run: what a change made faster, and that it made nothing slower.

    python benchmarks/speed/compare_commits.py HEAD~1 HEAD
    python benchmarks/speed/compare_commits.py v0.1.0 HEAD --turns 9 --tasks short list

Each commit is checked out into a folder of its own and runs in a process of its own, with the same interpreter and its
libraries. The processes are started once and take turns: one waits while the other measures. Seconds are those of the
processor in one thread. The exit status is 1 if a task takes more than `--most` times as long at the second commit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # `benchmarks` is imported as a package

from benchmarks.common import ROOT, format_row, result_row

# Runs at either commit, so that it uses nothing but the public names of the package.
WORKER = """
import json, sys, time
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from hf_attn_mi import attention_maps, compare, explain, mutual_information, report

torch.set_num_threads(1)
folder = sys.argv[1]
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
short = "A quietly moving film."
long = " ".join([short] * 20)
texts = [" ".join(short.split()[: 1 + i % 4]) for i in range(60)]
of_tokens = {n: " ".join(long.split() * 2).split()[:words] for n, words in ((30, 23), (128, 101))}
methods = ("relevance", "attnlrp", "attention", "effective", "rollout", "value_norms")
bare = {"token_set": False, "certificate": False, "subgraph": False}


def compared(tokens, **options):
    options |= {"methods": methods, "metrics": "sufficiency", "truncation": True, "tokenizer": tokenizer}
    return compare(model, [" ".join(of_tokens[tokens])], **options)


def reported(tokens):
    return report(model, " ".join(of_tokens[tokens]), tokenizer=tokenizer, truncation=True, **bare)


tasks = {
    "short": (lambda: explain(model, short, tokenizer=tokenizer), 5),
    "short, none": (lambda: explain(model, short, tokenizer=tokenizer, layers="none"), 5),
    "long": (lambda: explain(model, long, tokenizer=tokenizer), 3),
    "list": (lambda: explain(model, texts, tokenizer=tokenizer, layers="none"), 1),
    "attnlrp": (lambda: explain(model, long, tokenizer=tokenizer, method="attnlrp", layers="none"), 3),
    "maps": (lambda: attention_maps(model, short, tokenizer=tokenizer), 1),
}
classes = torch.arange(2000) % 4
states = torch.randn(2000, 384, generator=torch.Generator().manual_seed(0))
states[torch.arange(2000), classes] += 1.5
states = states.half().expand(17, -1, -1)  # as many as it takes to load numba
for estimator in ("gaussian", "auto"):  # with fast bounds and 200 permutations
    tasks[f"information {estimator}"] = (
        lambda estimator=estimator: mutual_information(states, classes, estimator=estimator),
        1,
    )
for n in of_tokens:  # tokens of MiniLM
    tasks[f"compare {n}"] = (lambda n=n: compared(n), 1)
    tasks[f"compare two targets {n}"] = (lambda n=n: compared(n, targets=[0, 1]), 1)
    tasks[f"report {n}"] = (lambda n=n: reported(n), 1)
print(json.dumps(list(tasks)), flush=True)
for line in sys.stdin:
    task, calls = tasks[line.strip()]
    started = time.process_time()
    for _ in range(calls):
        task()
    print((time.process_time() - started) / calls, flush=True)
"""


class Worker:
    """A process that measures the tasks of one commit, one at a time.

    Args:
        source: the folder of the commit.
        model: the folder of a classifier with its tokenizer.
    """

    def __init__(self, source: Path, model: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(source), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-W", "ignore", "-c", WORKER, str(model)]
        self.process = subprocess.Popen(
            command, cwd=source, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.tasks: list[str] = json.loads(self._line())

    def seconds(self, task: str) -> float:
        """Processor seconds of one call."""
        assert self.process.stdin is not None
        self.process.stdin.write(task + "\n")
        self.process.stdin.flush()
        return float(self._line())

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"The process of {self.process.args[-1]!r} ended: see its message above.")  # type: ignore[index]
        return line


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """The folder of a commit, removed afterwards."""
    git = ["git", "-C", str(ROOT)]
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "source"
        subprocess.run([*git, "worktree", "add", "--quiet", "--detach", str(folder), commit], check=True)
        try:
            yield folder
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", str(folder)], check=True)


def compare(before: str, after: str, *, turns: int, tasks: list[str] | None, model: Path) -> list[dict[str, Any]]:
    """A row for each task: seconds at the second commit over those at the first."""
    with ExitStack() as stack:
        workers = []
        for commit in (before, after):
            workers.append(Worker(stack.enter_context(checked_out(commit)), model))
            stack.callback(workers[-1].close)
        chosen = [task for task in workers[0].tasks if tasks is None or task in tasks]
        rows = []
        for task in chosen:
            found: list[list[float]] = [[], []]
            for worker in workers:
                worker.seconds(task)  # warms up
            for turn in range(turns):
                for place in (0, 1) if turn % 2 else (1, 0):
                    found[place].append(workers[place].seconds(task))
            rows.append(result_row(f"{after} over {before}/{task}", "the same task at two commits", found[1], found[0]))
    return rows


def main() -> int:
    """Print one line a task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="a commit")
    parser.add_argument("after", help="a commit")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--tasks", nargs="+", help="default: all")
    parser.add_argument("--model", type=Path, default=ROOT / "hf_attn_mi" / "embedded_model")
    parser.add_argument("--most", type=float, default=1.1, help="largest ratio that is no failure (default 1.1)")
    arguments = parser.parse_args()
    rows = compare(
        arguments.before, arguments.after, turns=arguments.turns, tasks=arguments.tasks, model=arguments.model.resolve()
    )
    for row in rows:
        print(format_row(row))
    return int(any(row["ratio"]["median"] > arguments.most for row in rows))


if __name__ == "__main__":
    sys.exit(main())
