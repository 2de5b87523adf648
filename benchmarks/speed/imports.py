"""Import time of hf_attn_mi over that of torch and transformers, in fresh processes, in seconds of CPU time."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from benchmarks.common import check, result_row
from benchmarks.speed.timed_model import Rows, TimedModel

BETWEEN = "passed = time.process_time()"  # the seconds of what stands before it are printed, too
DEPENDENCIES = "import torch, transformers"
PACKAGE = f"{DEPENDENCIES}; {BETWEEN}; import hf_attn_mi"
EXPLAIN = "from hf_attn_mi import explain"
MODEL_CLASS = "import torch; from transformers import AutoModelForSequenceClassification, AutoTokenizer"
INERT = """
import logging, os, sys, warnings
import torch, transformers
def state():
    return dict(os.environ), list(warnings.filters), logging.getLogger().level, len(logging.getLogger().handlers)
before, threads = state(), torch.get_num_threads()
import hf_attn_mi
assert before == state() and threads == torch.get_num_threads(), "the import changed the process"
heavy = [name for name in ("captum", "datasets", "evaluate", "matplotlib", "triton") if name in sys.modules]
assert not torch.cuda.is_initialized(), "the import started CUDA"
assert not heavy or heavy == ["triton"], heavy
"""
TIMED = "import time; t = passed = time.process_time(); {code}; print(passed - t, time.process_time() - t)"


def import_time(timed: TimedModel) -> Rows:
    """Measure import times, warm and without bytecode."""
    check_inert()
    statements = {"package": PACKAGE, "explain": EXPLAIN, "used": MODEL_CLASS}
    for cold in (False,) if timed.quick else (False, True):
        kind = "cold (no bytecode yet)" if cold else "warm"
        seconds, before = time_imports(statements, timed.turns(2 if cold else 5), cold=cold)
        fields = {} if cold else {"slowest": slowest_imports(12)}
        yield result_row(
            f"import/over torch and transformers, {kind}",
            f"{DEPENDENCIES}; import hf_attn_mi, over {DEPENDENCIES} in the same process",
            seconds["package"],
            before["package"],
            at_most=1.05 if cold else 1.02,
            **fields,
        )
        what = f"{EXPLAIN}, over {MODEL_CLASS}"
        yield result_row(f"import/over importing a model class, {kind}", what, seconds["explain"], seconds["used"])


def check_inert() -> None:
    """Check that the import prints nothing, changes nothing and does not load the optional packages."""
    process = subprocess.run([sys.executable, "-c", INERT], capture_output=True, text=True)
    printed = process.stdout + process.stderr
    check(process.returncode == 0 and not printed, f"import is not inert: {printed[-300:]}")


def time_imports(
    statements: dict[str, str], turns: int, *, cold: bool
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Time import statements, measured inside fresh interpreters.

    Args:
        statements: the statements by name.
        turns: how often each runs.
        cold: run with an empty folder for compiled bytecode, as on the first run after an installation that compiles
            nothing. Otherwise bytecode and files are in the caches, and a first round is not counted.

    Returns:
        Seconds of CPU time of each statement, and of its part before `BETWEEN`, one entry for each turn.
    """
    seconds: dict[str, list[float]] = {name: [] for name in statements}
    before: dict[str, list[float]] = {name: [] for name in statements}
    with tempfile.TemporaryDirectory() as kept:
        for turn in range(turns if cold else turns + 1):
            for name in list(statements)[:: -1 if turn % 2 else 1]:
                with tempfile.TemporaryDirectory() as empty:
                    changes = {"PYTHONPYCACHEPREFIX": empty if cold else kept, "PYTHONDONTWRITEBYTECODE": ""}
                    command = [sys.executable, "-c", TIMED.format(code=statements[name])]
                    environment = {**os.environ, **changes}
                    process = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
                if cold or turn:
                    part, whole = map(float, process.stdout.split())
                    before[name].append(part)
                    seconds[name].append(whole)
    return seconds, before


def slowest_imports(count: int) -> list[str]:
    """Return the modules that cost most beyond torch and transformers: cumulative milliseconds and name."""
    command = [sys.executable, "-X", "importtime", "-c", f"{DEPENDENCIES}; {EXPLAIN}"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    start = next(i for i, line in enumerate(lines) if line.rpartition("|")[2].strip() == "transformers")
    costs = []
    for line in lines[start + 1 :]:
        _, cumulative, name = line.removeprefix("import time:").split("|")
        costs.append((int(cumulative) / 1000, name.strip()))
    return [f"{cost:.0f} ms {name}" for cost, name in sorted(costs, reverse=True)[:count]]
