"""Prints by how many MiB one task raises the peak resident memory above the loaded, warmed-up model.

A fresh process a task: load the model, run the task once on a tiny input, reset the kernel's peak mark (VmHWM), run
the task once, read the mark. Where it cannot be reset the mark of the whole process counts (ru_maxrss).
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from materials import load, load_tokenizer, read_texts, token_ids
from torch import Tensor, nn

import hf_attn_mi

TASKS = ("forward", "capture", "capture_states", "explain_relevance", "explain_attention", "output_attentions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=512)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    eager = {"attn_implementation": "eager"} if arguments.task == "output_attentions" else {}
    model, tokenizer = load(arguments.model, **eager), load_tokenizer(arguments.model)
    texts = read_texts(arguments.data, 100)
    large = token_ids(texts, tokenizer, arguments.batch, arguments.tokens)
    task = the_task(arguments.task, model, tokenizer)
    task(token_ids(texts, tokenizer, 1, 16))
    before = resident()
    reset_peak()
    task(large)
    print(peak() - before)


def the_task(name: str, model: nn.Module, tokenizer: Any) -> Callable[[Tensor], Any]:
    """What to run on (batch, tokens) ids."""

    def ignore(record: Any) -> None:
        """The consumer keeps nothing."""

    @torch.no_grad()
    def forward(ids: Tensor) -> Any:
        return model(input_ids=ids, output_attentions=True if name == "output_attentions" else None)

    @torch.no_grad()
    def capture(ids: Tensor) -> Any:
        with hf_attn_mi.capture_attention(model, ignore, states=ignore if name == "capture_states" else False):
            return model(input_ids=ids)

    def explain(ids: Tensor) -> Any:
        method = name.removeprefix("explain_")
        return hf_attn_mi.explain(
            model, {"input_ids": ids}, tokenizer=tokenizer, method=method, batch_size=ids.shape[0]
        )

    return explain if name.startswith("explain") else capture if name.startswith("capture") else forward


def resident() -> float:
    """Resident memory now, MiB."""
    return _status("VmRSS") or 0.0


def reset_peak() -> None:
    """Lower the kernel's peak mark to what is resident now."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """Greatest resident memory since the mark was reset, MiB."""
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _status(field: str) -> float | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((float(entry.split()[1]) / 1024 for entry in lines if entry.startswith(field + ":")), None)


if __name__ == "__main__":
    main()
