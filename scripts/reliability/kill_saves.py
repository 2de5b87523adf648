"""`kill -9` during saves: the old or the new file loads, and the next save leaves nothing else in the folder.

python -m scripts.reliability.kill_saves --count 100 --seed 0

For every kind of record, and for results, figures and pages, a child process saves two contents in turns and is killed
at a random moment, `--count` times.
"""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_attn_mi.cli.output import write_text
from hf_attn_mi.figures import new_figure, save_figure
from hf_attn_mi.results import Results
from scripts.reliability.common import arguments, report
from tests.results.result_samples import SAMPLES

LONGEST = 0.05  # seconds until the child is killed


@dataclass(frozen=True)
class Writer:
    """How two contents of one kind are saved, and how what is there is read."""

    file: str
    save: Callable[[int, Path], None]
    load: Callable[[Path], Any]


def writers() -> dict[str, Writer]:
    """Everything that the package saves."""
    found: dict[str, Writer] = {}
    for name, record in SAMPLES.items():
        kind = type(record)
        variants = (record, _with_info(record))
        file = "saved" if record.FOLDER else "saved.json"
        found[name] = Writer(
            file, lambda i, path, v=variants: v[i].save(path, overwrite=True), lambda path, k=kind: k.load(path)
        )
    explanation = next(record for record in SAMPLES.values() if type(record).__name__ == "Explanation")
    lists = (Results([explanation] * 20), Results([_with_info(explanation)] * 20))
    found["results"] = Writer("saved.jsonl.gz", lambda i, path: lists[i].save(path, overwrite=True), Results.load)
    pages = ("old" * 9000, "new" * 9000)
    found["page"] = Writer("saved.html", lambda i, path: write_text(pages[i], path), lambda path: path.read_text())
    figures = (new_figure(3, 2), new_figure(2, 3))
    found["figure"] = Writer("saved.png", lambda i, path: save_figure(figures[i], path), lambda path: path.read_bytes())
    return found


def _with_info(record: Any) -> Any:
    """The record with another entry in its notes, or another name."""
    if hasattr(record, "info"):
        return dataclasses.replace(record, info={**record.info, "other": list(range(300))})
    return dataclasses.replace(record, name="other" * 300)


def run(count: int, seed: int) -> dict[str, Any]:
    """Kill the saves of each kind `count` times."""
    rng, failures, left, started = random.Random(seed), list[str](), 0, time.perf_counter()
    kinds = writers()
    for name, writer in kinds.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / writer.file
            contents = []
            for variant in (0, 1):
                writer.save(variant, path)
                contents.append(writer.load(path))
            for number in range(count):
                _kill_one(writer, path, rng.uniform(0, LONGEST))
                left += len(list(Path(folder).iterdir())) > 1
                try:
                    loaded = writer.load(path)
                except Exception as error:
                    failures.append(f"{name}, kill {number}: {type(error).__name__}: {error}")
                    continue
                if loaded not in contents:
                    failures.append(f"{name}, kill {number}: neither the old nor the new content")
                writer.save(number % 2, path)
                rest = [item.name for item in Path(folder).iterdir() if item != path]
                if rest or writer.load(path) != contents[number % 2]:
                    failures.append(f"{name}, kill {number}: after the next save there is {rest}")
    return {
        "count": count,
        "seed": seed,
        "kinds": list(kinds),
        "kills": count * len(kinds),
        "in_the_middle": left,
        "seconds": round(time.perf_counter() - started, 1),
        "failures": failures,
    }


def _kill_one(writer: Writer, path: Path, seconds: float) -> None:
    """Let a child save in turns, and kill it after this time."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, b"x")
            variant = 0
            while True:
                variant = 1 - variant
                writer.save(variant, path)
        finally:
            os._exit(1)  # a save that fails is seen by its status
    os.close(writing)
    os.read(reading, 1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reading)
    assert os.WIFSIGNALED(status), "a save failed in the child"


def main() -> int:
    """Run and report."""
    options = arguments("kill -9 during saves.", 100).parse_args()
    result = run(options.count, options.seed)
    for failure in result["failures"][:40]:
        print(failure, file=sys.stderr)
    sentence = (
        f"{result['count']} kill -9 during saves of each of {len(result['kinds'])} kinds ({result['in_the_middle']} of "
        f"{result['kills']} left a temporary file): {len(result['failures'])} files that were neither old nor new, or "
        "left something behind after the next save."
    )
    report("kill_saves", result, sentence, write=options.write)
    return int(bool(result["failures"]))


if __name__ == "__main__":
    sys.exit(main())
