"""What benchmarks and studies share: timing in turns, result rows, JSON lines, and where a result was produced."""

from __future__ import annotations

import gzip
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"  # data sets and fine-tuned models; benchmarks that need them say so
EMBEDDED_MODEL = ROOT / "hf_attn_mi" / "embedded_model"
SHORTEST_TURN = 0.3  # seconds: a task that takes less is called several times in each turn

Row = dict[str, Any]


class CheckFailed(Exception):
    """A correctness check failed, so no figure is reported for this part of a benchmark."""


def check(passed: bool, message: str) -> None:
    """Raise `CheckFailed` with this message unless the check passed."""
    if not passed:
        raise CheckFailed(message)


def time_in_turns(
    tasks: dict[str, Callable[[], Any]], turns: int, *, warmed_up: bool = False
) -> dict[str, list[float]]:
    """Time several tasks in alternation, so that slow changes of the machine affect all of them alike.

    Args:
        tasks: functions by name.
        turns: number of measurements of each task. Every second turn runs the tasks in reverse order.
        warmed_up: skip the calls that warm a task up and estimate how often a turn must call it; for tasks that take
            seconds and have run before.

    Returns:
        Seconds per call of each task, one entry a turn.
    """
    calls = {}
    for name, task in tasks.items():
        seconds = SHORTEST_TURN if warmed_up else seconds_of(task)
        if seconds < SHORTEST_TURN:
            seconds = seconds_of(task)
        calls[name] = max(1, min(200, int(SHORTEST_TURN / max(seconds, 1e-6))))
    measured: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(turns):
        for name in list(tasks)[:: -1 if turn % 2 else 1]:
            measured[name].append(seconds_of(tasks[name], calls[name]))
    return measured


def seconds_of(task: Callable[[], Any], calls: int = 1) -> float:
    """Wall-clock seconds per call."""
    started = time.perf_counter()
    for _ in range(calls):
        task()
    return (time.perf_counter() - started) / calls


def cpu_seconds_in_turns(tasks: dict[str, Callable[[], Any]], turns: int, calls: int = 1) -> dict[str, list[float]]:
    """Processor seconds per call of each task, in alternation; every second turn in reverse order.

    Other programs on the machine change processor time less than the time on the clock. One thread is assumed: that of
    several adds up.
    """
    found: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(turns):
        for name in list(tasks)[:: -1 if turn % 2 else 1]:
            started = time.process_time()
            for _ in range(calls):
                tasks[name]()
            found[name].append((time.process_time() - started) / calls)
    return found


def ratio_of(numerators: list[float], denominators: list[float]) -> dict[str, float]:
    """Median, minimum and maximum of the ratio in each turn."""
    ratios = [a / b for a, b in zip(numerators, denominators)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def result_row(
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
) -> Row:
    """Make one row of the results.

    Args:
        name: short, and unique together with `threads`; the part before the first "/" names its table.
        what: a sentence that says what is compared.
        ours: one measurement a turn.
        peer: the same for what this package is compared with. Without a peer, the target applies to `ours`.
        unit: the unit of `ours` and `peer`.
        faster: the ratio is peer / ours (how many times faster) instead of ours / peer.
        at_most: target for the median ratio (for the median of `ours` without a peer).
        at_least: likewise.
        **more: further fields, such as the value of a check.
    """
    ratio = ratio_of(peer, ours) if faster and peer else ratio_of(ours, peer) if peer else None
    figure = statistics.median(ours) if ratio is None else ratio["median"]
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
        "ratio": ratio,
        "ratio_is": "peer / ours" if faster else "ours / peer",
        "turns": len(ours),
        "threads": torch.get_num_threads(),
        "target": target,
        "met": met,
        **more,
        **provenance(),
    }


def failed_row(part: str, reason: CheckFailed) -> Row:
    """Make the row of a part whose check failed: the reason instead of a figure."""
    name, threads = f"{part}/check failed", torch.get_num_threads()
    return {"name": name, "part": part, "failed_check": str(reason), "threads": threads, **provenance()}


def short(value: float) -> str:
    """Return a number for a table: three digits, or whole from a hundred on."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio_text(row: Row) -> str:
    """Return the median, smallest and largest ratio of a row for a table."""
    median, low, high = (short(row["ratio"][key]) for key in ("median", "min", "max"))
    return f"{median} ({low} to {high})"


def format_row(row: Row) -> str:
    """Format a row for the terminal."""
    figures = f"{row['ours']:.4g} {row['unit']}"
    if row["peer"] is not None:
        ratio = row["ratio"]
        figures += f" / {row['peer']:.4g} {row['unit']}  ratio {ratio['median']:.3g}"
        figures += f" ({ratio['min']:.3g} to {ratio['max']:.3g})"
    verdict = {None: "", True: "met", False: "MISSED"}[row["met"]]
    target = "" if row["target"] is None else f"  target {row['target']}: {verdict}"
    return f"{row['name']:<44} {row['threads']} thread(s)  {figures}{target}"


def run_parts(
    parts: Iterable[tuple[str, Callable[[], Iterable[Row]], Iterable[int]]],
    output: Path | None = None,
    **fields: Any,
) -> tuple[list[Row], int]:
    """Run the parts of a benchmark, print each row, and write the rows after each part.

    Args:
        parts: name, function and the numbers of threads to run it with.
        output: file for the rows; None to write nothing. Rows of other parts and those of other processors that are
            in it already are kept, and those of these parts until each has run.
        **fields: added to every row, beside `part`.

    Returns:
        The rows, and how many parts failed their checks.
    """
    parts, here = list(parts), {"hardware": hardware()}
    stored = [] if output is None else read_rows(output)
    rows: list[Row] = []
    failures = 0
    for place, (name, part, thread_counts) in enumerate(parts, start=1):
        begun = {name for name, *_ in parts[:place]}
        kept = [row for row in stored if row.get("part") not in begun or processor(row) != processor(here)]
        for threads in thread_counts:
            torch.set_num_threads(threads)
            try:
                for row in part():
                    rows.append({**row, "part": name, **fields})
                    print(format_row(row), flush=True)
            except CheckFailed as reason:
                failures += 1
                rows.append({**failed_row(name, reason), **fields})
                print(f"{name}: check failed, no figure: {reason}", flush=True)
            if output is not None:
                write_rows(kept + rows, output)
    return rows, failures


def read_rows(path: Path) -> list[Row]:
    """Read a JSON lines file, packed by gzip or not; an absent file has no rows."""
    if not path.exists():
        return []
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write_rows(rows: Iterable[Row], path: Path) -> None:
    """Write rows as JSON lines, packed by gzip where the path ends in .gz: the same bytes for the same rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0) if path.suffix == ".gz" else text.encode())


def append_row(row: Row, path: Path) -> None:
    """Append a row in a single write, so that two processes can share the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def provenance() -> Row:
    """Return commit, hardware and versions: stored with every result."""
    return {"commit": commit(), "hardware": hardware(), "versions": versions()}


@cache
def commit() -> str:
    """Return the commit, with "+changes" where the package differs from it; "unknown" outside a repository."""
    git = ["git", "--no-optional-locks", "-C", str(ROOT)]
    try:
        name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
        changed = subprocess.run([*git, "status", "--porcelain", "--", "hf_attn_mi"], capture_output=True, text=True)
        return name.strip() + ("+changes" if changed.stdout.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


@cache
def hardware() -> Row:
    """Return the processor and the number of cores that this process may use."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": name, "cores": cores, "capability": torch.backends.cpu.get_cpu_capability()}


def processor(row: Row) -> str:
    """Return the name of the processor that measured a row; "" if it is not stored."""
    name: str = row.get("hardware", {}).get("cpu", "")
    return name.replace("(R)", "").removesuffix(" Processor")


def processors(rows: Iterable[Row]) -> list[str]:
    """Return the names of the processors of all rows, in order of appearance."""
    return list(dict.fromkeys(name for name in map(processor, rows) if name))


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    packages = ("hf_attn_mi", "torch", "transformers", "captum", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
