"""How the benchmarks measure: ours and the peer in turns within one run, a ratio for each turn, JSON lines."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
LONG_ENOUGH = 0.3  # seconds: shorter measurements are repeated within a turn


class RedCheck(Exception):
    """A correctness check failed: no figure is given for this part."""


def check(passed: bool, what: str) -> None:
    """Raise `RedCheck` unless the check passed."""
    if not passed:
        raise RedCheck(what)


def in_turns(tasks: dict[str, Callable[[], Any]], turns: int, *, warm: bool = False) -> dict[str, list[float]]:
    """Seconds a call of each task in each turn; every second turn goes through the tasks backwards.

    Each task runs before, to warm up and to see how often a turn must call it; not where it is known to be `warm`
    and to take seconds.
    """
    calls = {}
    for name, task in tasks.items():
        seconds = LONG_ENOUGH if warm else once(task)
        if seconds < LONG_ENOUGH:
            seconds = once(task)
        calls[name] = max(1, min(200, int(LONG_ENOUGH / max(seconds, 1e-6))))
    found: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(turns):
        for name in list(tasks)[:: -1 if turn % 2 else 1]:
            found[name].append(_seconds(tasks[name], calls[name]))
    return found


def once(task: Callable[[], Any]) -> float:
    """Seconds of one call."""
    return _seconds(task, 1)


def _seconds(task: Callable[[], Any], calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        task()
    return (time.perf_counter() - started) / calls


def ratio_of(over: list[float], under: list[float]) -> dict[str, float]:
    """Median, least and greatest of the ratio of each turn."""
    ratios = [a / b for a, b in zip(over, under)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def row(
    name: str,
    what: str,
    ours: list[float],
    peer: list[float] | None = None,
    *,
    unit: str = "s",
    faster: bool = False,
    at_most: float | None = None,
    at_least: float | None = None,
    **more: Any,
) -> dict[str, Any]:
    """One line of the results.

    Args:
        name: short and unique together with `threads`; the part before the first "/" is the table it stands in.
        what: a sentence that says what is compared.
        ours: one measurement a turn.
        peer: the same of what we compare with; None where there is none, then the target is on `ours`.
        unit: of `ours` and `peer`.
        faster: the ratio is peer / ours (how many times faster), not ours / peer.
        at_most: target of the median ratio (of the median of `ours` without a peer).
        at_least: likewise.
        **more: further fields, such as threads or a check's value.
    """
    judged = ratio_of(peer, ours) if faster and peer else ratio_of(ours, peer) if peer else None
    figure = statistics.median(ours) if judged is None else judged["median"]
    met, target = None, None
    if at_most is not None:
        met, target = figure <= at_most, f"<= {at_most:g}"
    elif at_least is not None:
        met, target = figure >= at_least, f">= {at_least:g}"
    return {
        "name": name,
        "what": what,
        "unit": unit,
        "ours": statistics.median(ours),
        "ours_min": min(ours),
        "ours_max": max(ours),
        "peer": statistics.median(peer) if peer else None,
        "ratio": judged,
        "ratio_is": "peer / ours" if faster else "ours / peer",
        "turns": len(ours),
        "threads": torch.get_num_threads(),
        "target": target,
        "met": met,
        **more,
        **provenance(),
    }


def provenance() -> dict[str, Any]:
    """What was measured, and where."""
    return {"commit": commit(), "hardware": hardware(), "versions": versions()}


def line(result: dict[str, Any]) -> str:
    """A row for the terminal."""
    verdict = {None: "", True: "met", False: "MISSED"}[result["met"]]
    figures = f"{result['ours']:.4g} {result['unit']}"
    if result["peer"] is not None:
        spread = result["ratio"]
        figures += f" / {result['peer']:.4g} {result['unit']}  ratio {spread['median']:.3g}"
        figures += f" ({spread['min']:.3g} to {spread['max']:.3g})"
    target = "" if result["target"] is None else f"  target {result['target']}: {verdict}"
    return f"{result['name']:<44} {result['threads']} thread(s)  {figures}{target}"


def write(rows: list[dict[str, Any]], output: Path) -> None:
    """The rows as JSON lines."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("".join(json.dumps(item) + "\n" for item in rows), encoding="utf-8")


@cache
def commit() -> str:
    """The commit that was measured; with "+changes" where the package differs from it."""
    try:
        git = ["git", "--no-optional-locks", "-C", str(ROOT)]
        name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
        changed = subprocess.run([*git, "status", "--porcelain", "--", "hf_attn_mi"], capture_output=True, text=True)
        return name.strip() + ("+changes" if changed.stdout.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


@cache
def hardware() -> dict[str, Any]:
    """Processor and number of cores this process may use."""
    name = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((entry.partition(":")[2].strip() for entry in lines if entry.startswith("model name")), name)
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": name, "cores": cores, "capability": torch.backends.cpu.get_cpu_capability()}


@cache
def versions() -> dict[str, str]:
    """Versions of what was measured."""
    packages = ("hf_attn_mi", "torch", "transformers", "captum", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
