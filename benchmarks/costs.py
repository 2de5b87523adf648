"""Peak memory, import time, and the time of efficient attention for a whole encoder."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import torch
from bench import Bench, Rows
from import_cost import LAZY, OURS, USED, check_inert, import_turns, slowest_imports
from materials import cut_texts
from measuring import ROOT, check, once, row

from hf_attn_mi import attention_maps

METHOD = "rise of the peak resident set (VmHWM) above the loaded, warmed-up model; a fresh process a task and turn"


def efficient_encoder(bench: Bench) -> Rows:
    """Efficient attention of a whole encoder: all layers, all heads."""
    tokens = 40 if bench.arguments.quick else 186
    ids = cut_texts(bench.texts, bench.tokenizer, 1, tokens)[0]
    seconds: list[float] = []
    kept: list[Any] = []
    for _ in range(1 if torch.get_num_threads() > 1 else bench.turns(2)):
        seconds.append(once(lambda: kept.append(attention_maps(bench.model, {"input_ids": ids}))))
    found = kept[-1]
    worst = max(float(residual.max()) for residual in found.residual)
    check(worst <= 1e-5, f"efficient attention misses its outputs: {worst:.1e}")
    for rows in found.matrices:
        check(bool((rows >= 0).all()) and float((rows.sum(-1) - 1).abs().max()) <= 1e-5, "rows are no distributions")
    limit = 20.0 if torch.get_num_threads() == 1 and not bench.arguments.quick else None
    what = f"attention_maps(kind='efficient'), all {len(found.layers)} layers and {len(found.heads)} heads"
    yield row(f"efficient attention/{tokens} tokens", what, seconds, at_most=limit, residual=worst)


def peak_memory(bench: Bench) -> Rows:
    """Rise of the peak resident memory, each task in fresh processes."""
    batch, tokens = (4, 128) if bench.arguments.quick else (16, 512)
    names = {
        "capture": ("capture_attention, consumer does nothing", 2.0),
        "capture_states": ("capture with hidden states streamed", None),
        "explain_attention": ("explain(method='attention')", None),
        "explain_relevance": ("explain(method='relevance')", None),
        "output_attentions": ("for comparison: output_attentions=True of the eager implementation", None),
    }
    turns = bench.turns(2)
    found: dict[str, list[float]] = {}
    for turn in range(turns):
        for name in ["forward", *names][:: -1 if turn % 2 else 1]:
            command = [sys.executable, str(ROOT / "benchmarks" / "peak_memory.py"), name, "--batch", str(batch)]
            command += ["--tokens", str(tokens), "--model", str(bench.arguments.model)]
            command += ["--data", str(bench.arguments.data)] if bench.arguments.data else []
            done = subprocess.run(command, capture_output=True, text=True)
            check(done.returncode == 0, f"{name}: {done.stderr[-300:]}")
            found.setdefault(name, []).append(float(done.stdout))
    for name, (what, limit) in names.items():
        yield row(
            f"peak memory over one forward/{name}, {batch} x {tokens}",
            f"{what}, over one plain forward",
            found[name],
            found["forward"],
            unit="MiB",
            at_most=None if bench.arguments.quick else limit,
            method=METHOD,
        )


def imports(bench: Bench) -> Rows:
    """Import times in fresh processes."""
    check_inert()
    statements = {"ours": OURS, "lazy": LAZY, "used": USED}
    for cold in (False,) if bench.arguments.quick else (False, True):
        kind = "cold (no bytecode yet)" if cold else "warm"
        seconds = import_turns(statements, bench.turns(2 if cold else 5), cold=cold)
        more = {"slowest": slowest_imports(12)} if not cold else {}
        over = f"{OURS}, over "
        yield row(
            f"import/over torch and transformers, {kind}",
            over + LAZY,
            seconds["ours"],
            seconds["lazy"],
            at_most=1.1,
            **more,
        )
        yield row(f"import/over importing a model class, {kind}", over + USED, seconds["ours"], seconds["used"])
