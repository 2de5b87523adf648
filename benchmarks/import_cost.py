"""What `import hf_attn_mi` costs over what it stands on, each in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from measuring import check

OURS = "import hf_attn_mi"
LAZY = "import torch, transformers"
USED = "import torch; from transformers import AutoModelForSequenceClassification, AutoTokenizer"
CHECKED = """
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
TIMED = "import time; t = time.perf_counter(); {code}; print(time.perf_counter() - t)"


def check_inert() -> None:
    """Raise `RedCheck` unless the import prints nothing, changes nothing and leaves the optional packages alone."""
    done = subprocess.run([sys.executable, "-c", CHECKED], capture_output=True, text=True)
    printed = done.stdout + done.stderr
    check(done.returncode == 0 and not printed, f"import is not inert: {printed[-300:]}")


def import_turns(codes: dict[str, str], turns: int, *, cold: bool) -> dict[str, list[float]]:
    """Seconds of each import statement in each turn, measured inside a fresh interpreter.

    Args:
        codes: statements by name.
        turns: how often each runs.
        cold: with an empty folder for compiled bytecode, as on the first run after an installation that compiles
            nothing; otherwise bytecode and files are in the caches, and a first round is not counted.
    """
    found: dict[str, list[float]] = {name: [] for name in codes}
    for turn in range(turns if cold else turns + 1):
        for name in list(codes)[:: -1 if turn % 2 else 1]:
            with tempfile.TemporaryDirectory() as empty:
                place = {"PYTHONPYCACHEPREFIX": empty} if cold else {}
                seconds = _seconds(codes[name], {**os.environ, **place})
            if cold or turn:
                found[name].append(seconds)
    return found


def _seconds(code: str, environment: dict[str, str]) -> float:
    command = [sys.executable, "-c", TIMED.format(code=code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout)


def slowest_imports(count: int) -> list[str]:
    """The modules below hf_attn_mi that cost most beyond torch and transformers: cumulative milliseconds, name."""
    command = [sys.executable, "-X", "importtime", "-c", f"{LAZY}; {OURS}"]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    start = next(i for i, entry in enumerate(listing) if entry.rpartition("|")[2].strip() == "transformers")
    costs = []
    for entry in listing[start + 1 :]:
        _, cumulative, name = entry.removeprefix("import time:").split("|")
        costs.append((int(cumulative) / 1000, name.strip()))
    return [f"{cost:.0f} ms {name}" for cost, name in sorted(costs, reverse=True)[:count]]
