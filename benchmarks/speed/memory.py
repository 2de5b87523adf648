"""Peak memory of a task above the loaded, warmed-up model.

Run as a script it prints the MiB of one task: load the model, run the task once on a tiny input, reset the kernel's
peak mark (VmHWM), run the task once, read the mark. Where the mark cannot be reset, that of the whole process counts
(ru_maxrss). `peak_memory` starts a fresh process for each task and turn.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # `benchmarks` is imported as a package

import torch
from torch import Tensor

from benchmarks.common import check, result_row
from benchmarks.inputs import load_classifier, load_tokenizer, read_texts, token_ids
from benchmarks.speed.timed_model import Rows, TimedModel, ignore

TASKS = {  # what is measured, and the largest ratio to a plain forward pass
    "capture": ("capture_attention, consumer does nothing", 2.0),
    "capture_states": ("capture with hidden states streamed", None),
    "explain_attention": ("explain(method='attention')", None),
    "explain_relevance": ("explain(method='relevance')", None),
    "output_attentions": ("for comparison: output_attentions=True of the eager implementation", None),
}
METHOD = "rise of the peak resident set (VmHWM) above the loaded, warmed-up model; a fresh process a task and turn"


def peak_memory(timed: TimedModel, model: Path, data: Path | None) -> Rows:
    """Measure the rise of the peak resident memory over that of one plain forward pass."""
    batch, tokens = (4, 128) if timed.quick else (16, 512)
    turns = timed.turns(2)
    rises: dict[str, list[float]] = {}
    for turn in range(turns):
        for name in ["forward", *TASKS][:: -1 if turn % 2 else 1]:
            command = [sys.executable, __file__, name, "--batch", str(batch), "--tokens", str(tokens)]
            command += ["--model", str(model), *(["--data", str(data)] if data else [])]
            process = subprocess.run(command, capture_output=True, text=True)
            check(process.returncode == 0, f"{name}: {process.stderr[-300:]}")
            rises.setdefault(name, []).append(float(process.stdout))
    for name, (what, limit) in TASKS.items():
        yield result_row(
            f"peak memory over one forward/{name}, {batch} x {tokens}",
            f"{what}, over one plain forward",
            rises[name],
            rises["forward"],
            unit="MiB",
            at_most=None if timed.quick else limit,
            method=METHOD,
        )


def main() -> None:
    """Print by how many MiB one task raises the peak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["forward", *TASKS])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=512)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    eager = {"attn_implementation": "eager"} if arguments.task == "output_attentions" else {}
    texts = read_texts(arguments.data, 100)
    timed = TimedModel(load_classifier(arguments.model, **eager), load_tokenizer(arguments.model), texts, 1)
    large = token_ids(texts, timed.tokenizer, arguments.batch, arguments.tokens)
    task = task_of(arguments.task, timed)
    task(token_ids(texts, timed.tokenizer, 1, 16))
    print(rise_of(lambda: task(large)))


def rise_of(task: Callable[[], Any]) -> float:
    """Return by how many MiB a task raises the peak of this process."""
    before = _status("VmRSS") or 0.0
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak mark
    task()
    peak = _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return peak - before


def task_of(name: str, timed: TimedModel) -> Callable[[Tensor], Any]:
    """Return the function of ids (batch, tokens) that is measured."""
    if name.startswith("explain_"):
        return lambda ids: timed.explain(ids, name.removeprefix("explain_"))
    if name.startswith("capture"):
        return lambda ids: timed.captured(ids, ignore, states=ignore if name == "capture_states" else False)

    @torch.no_grad()
    def forward(ids: Tensor) -> Any:
        return timed.model(input_ids=ids, output_attentions=True if name == "output_attentions" else None)

    return forward


def _status(field: str) -> float | None:
    """MiB of a field of /proc/self/status, None where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((float(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":")), None)


if __name__ == "__main__":
    main()
