"""Faults during `explain_dataset`: processes that are killed, a full disk, damaged files, two runs into one folder.

python -m scripts.reliability.corpus_faults --count 50 --seed 0

A run of two processes (gloo) over `--rows` rows is killed with `kill -9` at a random moment: one of the processes
(the other then gets SIGTERM, as from a launcher) or both. The same call is made again until it ends, and the result is
compared with that of an undisturbed run. With `--launch N` the first N of them are started by `accelerate launch`, and
the launcher's processes are killed; the others are forked, which saves the seconds of the imports.
"""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hf_attn_mi import explain_dataset, load_results
from hf_attn_mi.tasks import corpus_run
from scripts.reliability.common import ROOT, TEXTS, arguments, bert, report, tokenizer

SHARD = 50
TOLERANCE = 1e-6
PAGE = 4096
PROCESSES = 2
LONGEST = 300  # seconds after which a forked process that has not ended counts as failed, rather than be waited for


def rows_of(count: int) -> list[dict[str, Any]]:
    """Rows of different length; every 97th fails."""
    return [
        {"id": f"r{i}", "text": "" if i % 97 == 96 else f"{TEXTS[i % 4]} {'very ' * (i % 13)}{i}", "label": i % 2}
        for i in range(count)
    ]


def call(rows: Any, output: Path, **options: Any) -> Any:
    """The call that is interrupted and made again."""
    return explain_dataset(bert(), rows, output=output, tokenizer=tokenizer(), **{"shard_size": SHARD, **options})


# --- processes --------------------------------------------------------------------------------------------------------


def fork_worker(rank: int, port: int, rows: Any, output: Path) -> int:
    """Start a process of a run as a launcher would; returns its number.

    A fork has the locks of all threads of this process and none of the threads: call it where there are no others.
    """
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        _end_in_time()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(PROCESSES),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        from accelerate import PartialState

        PartialState._reset_state()  # the state of the process that was forked
        call(rows, output)
        status = 0
    finally:
        os._exit(status)


def _end_in_time() -> None:
    """Let the system end this process after `LONGEST` seconds, whatever it waits for."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LONGEST)


def free_port() -> int:
    """A port of this machine that is free."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def run_forked(rows: Any, output: Path, kill: Callable[[list[int]], None] | None = None) -> bool:
    """Run two processes; returns whether both ended well."""
    port = free_port()
    workers = [fork_worker(rank, port, rows, output) for rank in range(PROCESSES)]
    if kill is not None:
        kill(workers)
    statuses = [os.waitpid(worker, 0)[1] for worker in workers]  # all statuses, also after one that failed
    return not any(statuses)


def killer(rng: random.Random, longest: float) -> Callable[[list[int]], None]:
    """Kills one worker, or all of them, after a random time."""
    seconds, victim = rng.uniform(0, longest), rng.choice([0, 1, None])

    def kill(workers: list[int]) -> None:
        time.sleep(seconds)
        for rank, worker in enumerate(workers):
            if victim in (None, rank):
                os.kill(worker, signal.SIGKILL)
        for worker in workers if victim is not None else ():
            os.kill(worker, signal.SIGTERM)

    return kill


def run_launched(file: Path, output: Path, model: Path, rng: random.Random | None, longest: float) -> bool:
    """The same by `accelerate launch`; with `rng` all of its processes are killed after a random time."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(PROCESSES)]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port"]
    launch += [str(free_port()), "-m", "hf_attn_mi", "explain-dataset", "--data", str(file), "--output", str(output)]
    launch += ["--model", str(model), "--shard-size", str(SHARD), "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(launch, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
    if rng is not None:
        while process.poll() is None and not list(output.glob("data/*.parquet")):  # imports take seconds
            time.sleep(0.05)
        time.sleep(rng.uniform(0, longest))
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        _kill_orphans(output)
    return process.wait() == 0


def _kill_orphans(output: Path) -> None:
    """The launcher's workers have a session of their own: kill those that name the folder."""
    for item in Path("/proc").iterdir():
        if item.name.isdigit() and int(item.name) != os.getpid():
            with suppress(OSError):
                words = (item / "cmdline").read_bytes().split(b"\0")
                if b"explain-dataset" in words and str(output).encode() in words:
                    os.kill(int(item.name), signal.SIGKILL)


# --- comparison -------------------------------------------------------------------------------------------------------


def differences(left: Path, right: Path) -> list[str]:
    """What is different between two finished folders."""
    first, second = (list(load_results(path).with_rows()) for path in (left, right))
    rows = [one.row for one in first]
    found = []
    if rows != [one.row for one in second]:
        found.append(f"{len(first)} rows instead of {len(second)}")
    if len(set(rows)) != len(rows):
        found.append("a row is there twice")
    pairs = zip(first, second)
    largest = max(
        (float((a.explanation.scores - b.explanation.scores).abs().max()) for a, b in pairs if a.row == b.row),
        default=0.0,
    )
    if largest > TOLERANCE:
        found.append(f"scores differ by {largest:.2g}")
    if not load_results(left).errors().equals(load_results(right).errors()):
        found.append("other errors")
    left_over = [item.name for item in (left / "data").iterdir() if not item.name.endswith(".parquet")]
    return found + ([f"left over: {left_over}"] if left_over else [])


# --- faults -----------------------------------------------------------------------------------------------------------


def kills(count: int, rows: int, seed: int, launched: int = 0) -> dict[str, Any]:
    """Kill runs of two processes at random moments, and resume each until it ends."""
    rng, failures, data = random.Random(seed), list[str](), rows_of(rows)
    unfinished = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file, model = folder / "rows.jsonl", folder / "model"
        file.write_text("".join(json.dumps(row) + "\n" for row in data), encoding="utf-8")
        bert().save_pretrained(model)
        tokenizer().save_pretrained(model)
        undisturbed = folder / "undisturbed"
        started = time.perf_counter()
        assert run_forked(str(file), undisturbed)
        longest = time.perf_counter() - started
        for number in range(count):
            output = folder / f"kill{number}"
            by_launcher = number < launched
            if by_launcher:
                run_launched(file, output, model, rng, longest)
            else:
                run_forked(str(file), output, killer(rng, longest))
            done = len(list(output.glob("data/*.parquet")))
            unfinished += done < -(-rows // SHARD)
            ended = run_launched(file, output, model, None, 0.0) if by_launcher else run_forked(str(file), output)
            found = differences(output, undisturbed) if ended else ["the second run failed"]
            failures += [f"kill {number} ({done} shards were done): {text}" for text in found]
            shutil.rmtree(output)
    return {"kills": count, "launched": launched, "unfinished": unfinished, "failures": failures}


def full_disks(count: int, rows: int, seed: int) -> dict[str, Any]:
    """Run with too little room, then with enough: on a tmpfs where one can be mounted, else with a limit of files."""
    rng, failures, data = random.Random(seed), list[str](), rows_of(rows)
    means = "a tmpfs" if _can_mount() else "a limit of the size of files"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        undisturbed = folder / "undisturbed"
        call(data, undisturbed)
        sizes = [path.stat().st_size for path in (undisturbed / "data").iterdir()]
        for number in range(count):
            with _little_room(folder / f"disk{number}", sizes, rng) as (output, make_room):
                text = ""
                try:
                    call(data, output)
                    text = "no error"
                except OSError as error:
                    if error.errno not in (errno.ENOSPC, errno.EFBIG) or "make room" not in str(error):
                        text = f"unclear error: {error}"
                make_room()
                call(data, output)
                found = [text] * bool(text) + differences(output, undisturbed)
                failures += [f"full disk {number}: {text}" for text in found]
    return {"full_disks": count, "disk": means, "failures": failures}


def _can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=False, capture_output=True
        )
        if done.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return done.returncode == 0


@contextmanager
def _little_room(folder: Path, sizes: list[int], rng: random.Random) -> Any:
    """A folder in which some but not all shards have room, and a function that makes room for all."""
    folder.mkdir()
    pages = sum(-(-size // PAGE) * PAGE for size in sizes)  # a tmpfs counts whole pages
    if _can_mount():
        room = 4 * PAGE + int(rng.uniform(0.1, 0.7) * pages)  # run.json and the lock have room
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(folder)], check=True)

        def more() -> None:
            subprocess.run(["mount", "-o", "remount,size=1g", str(folder)], check=True)

        try:
            yield folder / "out", more
        finally:
            subprocess.run(["umount", str(folder)], check=True)
        return
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(rng.uniform(0.3, 0.9) * max(sizes)), before[1]))
    try:
        yield folder / "out", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def damages(count: int, rows: int, seed: int) -> dict[str, Any]:
    """Cut, overwrite and remove shards, errors and `run.json` at random, and run again."""
    rng, failures, data = random.Random(seed), list[str](), rows_of(rows)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        undisturbed = folder / "undisturbed"
        call(data, undisturbed)
        for number in range(count):
            output = shutil.copytree(undisturbed, folder / "damaged")
            files = [path for path in output.rglob("*") if path.is_file() and path.stat().st_size]
            for path in rng.sample(files, rng.randint(1, 4)):
                content = path.read_bytes()
                kind = rng.choice(["cut", "removed", "zeros", "empty"])
                if kind == "removed":
                    path.unlink()
                else:
                    cut = content[: rng.randrange(len(content))]
                    path.write_bytes({"cut": cut, "zeros": bytes(len(content)), "empty": b""}[kind])
            try:
                call(data, output)
                found = differences(output, undisturbed)
            except Exception as error:
                found = [f"{type(error).__name__}: {error}"]
            failures += [f"damage {number}: {text}" for text in found]
            shutil.rmtree(output)
    return {"damages": count, "failures": failures}


def interrupts(count: int, rows: int, seed: int) -> dict[str, Any]:
    """SIGINT and SIGTERM at random moments: whole shards are left, and the next run completes them."""
    rng, failures, data = random.Random(seed), list[str](), rows_of(rows)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        undisturbed = folder / "undisturbed"
        started = time.perf_counter()
        call(data, undisturbed)
        longest = time.perf_counter() - started
        for number in range(count):
            output, which = folder / f"stop{number}", rng.choice([signal.SIGINT, signal.SIGTERM])
            child = os.fork()
            if child == 0:
                _run_until_stopped(data, output, grace=rng.choice([0.0, 15.0]))
            time.sleep(rng.uniform(0, longest))
            os.kill(child, which)
            os.waitpid(child, 0)
            call(data, output)
            failures += [f"stop {number}: {text}" for text in differences(output, undisturbed)]
            shutil.rmtree(output)
    return {"interrupts": count, "failures": failures}


def _run_until_stopped(data: Any, output: Path, *, grace: float) -> None:
    try:
        _end_in_time()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        corpus_run.GRACE = grace
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        call(data, output)
    finally:
        os._exit(0)


def two_runs(count: int, rows: int) -> dict[str, Any]:
    """Start a second run while the first lives, and one after the first was killed."""
    failures, data = list[str](), rows_of(rows)
    for number in range(count):
        with tempfile.TemporaryDirectory() as name:
            output = Path(name) / "out"
            child = os.fork()
            if child == 0:
                _run_until_stopped(data, output, grace=0.0)
            started = time.monotonic()
            while not (output / ".lock.owner").exists():
                assert time.monotonic() - started < LONGEST, "the first run has not begun"
                time.sleep(0.005)
            try:
                call(data, output)
                failures.append(f"two runs {number}: the second was not refused")
            except Exception as error:
                if "is being written by run" not in str(error):
                    failures.append(f"two runs {number}: {type(error).__name__}: {error}")
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            if not call(data, output).complete:
                failures.append(f"two runs {number}: not complete after the first was killed")
    return {"two_runs": count, "failures": failures}


def run(count: int, seed: int, *, rows: int = 3000, launched: int = 0) -> dict[str, Any]:
    """All faults: `count` kills, and a fifth as many of each other kind."""
    few, small, started = max(1, count // 5), min(rows, 400), time.perf_counter()
    parts = [
        kills(count, rows, seed, launched),
        full_disks(few, small, seed),
        damages(few, small, seed),
        interrupts(few, small, seed),
        two_runs(max(1, few // 2), small),
    ]
    result: dict[str, Any] = {"count": count, "seed": seed, "rows": rows, "processes": PROCESSES}
    for part in parts:
        result |= {name: value for name, value in part.items() if name != "failures"}
    failures = [text for part in parts for text in part["failures"]]
    return result | {"seconds": round(time.perf_counter() - started, 1), "failures": failures}


def main() -> int:
    """Run and report."""
    parser = arguments("Faults during explain_dataset.", 50)
    parser.add_argument("--rows", type=int, default=3000, help="rows of each run that is killed (default: %(default)s)")
    parser.add_argument("--launch", type=int, default=0, help="kills by accelerate launch (default: %(default)s)")
    options = parser.parse_args()
    result = run(options.count, options.seed, rows=options.rows, launched=options.launch)
    for failure in result["failures"][:40]:
        print(failure, file=sys.stderr)
    sentence = (
        f"{result['kills']} runs of {result['rows']} rows in {PROCESSES} processes killed with kill -9 at random "
        f"moments ({result['unfinished']} before the last shard), {result['full_disks']} full disks "
        f"({result['disk']}), {result['damages']} damaged folders, {result['interrupts']} signals, "
        f"{result['two_runs']} pairs of runs: {len(result['failures'])} results with a row missing, twice, or "
        f"different by more than {TOLERANCE:g} from an undisturbed run."
    )
    report("corpus_faults", result, sentence, write=options.write)
    return int(bool(result["failures"]))


if __name__ == "__main__":
    sys.exit(main())
