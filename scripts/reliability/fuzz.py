"""Random inputs through the API and the command line: each is answered or refused with a documented error.

python -m scripts.reliability.fuzz --count 10000 --seed 0
python -m scripts.reliability.fuzz --only 4711        # one case again, with its traceback
"""

from __future__ import annotations

import faulthandler
import functools
import gzip
import importlib
import io
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

import hf_attn_mi
from hf_attn_mi import HfAttnMiError, Results
from hf_attn_mi.cli import main as run_command_line
from hf_attn_mi.cli.exit_codes import FAULT, REFUSED
from hf_attn_mi.results import Record
from scripts.reliability import fuzz_inputs as draw
from scripts.reliability.common import (
    ROOT,
    arguments,
    bert,
    changes,
    locks_free,
    media_models,
    model_state,
    models,
    process_state,
    quick_collections,
    report,
    resident_mib,
    tokenizer,
)
from scripts.reliability.fuzz_commands import commands

SLOWEST = 120  # seconds: a call that takes longer hangs
STATE_EVERY = 200  # cases
ANSWERED, DOCUMENTED, RAW, HANG = "answered", "documented errors", "raw exceptions", "hangs"
ARGUMENTS: dict[str, dict[str, tuple[Any, ...]]] = {  # of each task: values that are right
    "explain": {
        "target": (None, 0, 1, "LABEL_1", [0], "predicted", "token(position=1)", "similarity('fine')", "mask()"),
        "method": ("relevance", "attnlrp", "attention", "rollout", "effective", "efficient", "random", "occlusion"),
        "options": (None, None, None, {}, {"steps": 2}),
        "layers": ("full", "summary", "none"),
        "profile": (None,),
        "batch_size": (1, 2, 16),
        "truncation": (True, True, False),
        "targets": (None, None, None, [0, 1], "all"),
        "processor": (None,),
        "sampling_rate": (None, 16000),
        "stride": (None, None, None, None, 8),
        "aggregation": ("mean", "max"),
        "is_split_into_words": (False, False, False, True),
        "errors": ("raise", "skip"),
        "candidate_labels": (None,),
    },
    "certify": {
        "target": (None, 0, "LABEL_1"),
        "form": ("efficient", "effective", "effective_affine"),
        "tolerance": (0.0, 0.1, 0.5),
        "layers": (None, [0], [1, 0]),
        "checked_rows": (1, 4),
        "truncation": (True, False),
        "seed": (0, 7),
        "is_split_into_words": (False, False, False, True),
        "errors": ("raise", "skip"),
    },
    "minimal_tokens": {
        "target": (None, 1),
        "keep": (0.9, 0.5, 1.0),
        "strict": (True, False),
        "ranking": ("relevance", "random", "attention"),
        "second_ranking": ("random", None),
        "budget": (5.0, 20.0),
        "batch_size": (1, 16),
        "truncation": (True, False),
        "seed": (0,),
        "errors": ("raise", "skip"),
    },
    "compare": {
        "methods": (["random"], ["attention", "random"], ["relevance"]),
        "metrics": (["sufficiency"], ["comprehensiveness", "completeness_gap"], "all"),
        "rationales": (None, [[(0, 2)]]),
        "scores": (None,),
        "target": (None, 0),
        "removal": ("delete", "mask", "attention_mask"),
        "by": ("signed", "absolute"),
        "options": (None, {"random": {}}),
        "truncation": (True, False),
        "seed": (0,),
    },
    "minimal_attention": {
        "target": (None, 1, "LABEL_0"),
        "unit": ("edge", "head", "layer", "token"),
        "keep": (0.9, 0.5, 1.0),
        "strict": (True, False),
        "ranking": ("gradient", "relevance", "attention", "random"),
        "others": (0, 1),
        "removals": (("renormalized",), ("missing",), ("mean", "renormalized")),
        "reference": (None, "A text that is long enough for all of these inputs, and a bit longer."),
        "deeper": (False, False, True),
        "budget": (5.0, 20.0),
        "batch_size": (1, 16),
        "truncation": (True, False),
        "is_split_into_words": (False, False, True),
        "errors": ("raise", "skip"),
        "seed": (0,),
    },
    "report": {
        "target": (None, 1),
        "method": ("relevance", "attention", "random"),
        "options": (None, {}),
        "methods": ((), ("attention",), ("random", "rollout")),
        "classes": (1, 2),
        "labels": (None, [0], [1]),
        "token_set": (False, False, True),
        "certificate": (False, False, True),
        "subgraph": (False,),
        "attention": (None, "none", "rows"),
        "comparison": (None,),
        "profile": (None,),
        "batch_size": (1, 16),
        "truncation": (True, False),
        "is_split_into_words": (False, False, True),
        "seed": (0,),
    },
    "fit_information": {
        "layers": (None, [0], [2]),
        "sites": ("tokens", "first", ("first", "positions")),
        "batch_size": (1, 16),
        "estimator": ("gaussian", "gaussian", "discriminant"),
        "effort": ("fast",),
        "permutations": (1, 3),
        "limit": (None, 60),
        "memory": (2**20,),
        "seed": (0,),
    },
    "attention_maps": {
        "kind": ("efficient", "raw", "effective"),
        "layers": (None, [0], [1]),
        "heads": (None, [0], [3, 1]),
        "truncation": (True, False),
    },
}
AREAS = {
    "tensors": 8,
    "explain": 30,
    "certify": 8,
    "minimal_tokens": 8,
    "compare": 6,
    "attention_maps": 10,
    "minimal_attention": 4,
    "report": 4,
    "fit_information": 3,
    "images": 6,
    "audio": 6,
    "load": 16,
    "command line": 18,
}


class HangError(BaseException):
    """A call took too long."""


class Fuzzer:
    """Runs numbered cases; a case depends on the seed and its number only."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed, self.folder = seed, folder
        self.models = models()
        self.cli_model = bert()
        self.of_media = media_models()
        self.saved = saved_files(folder)
        self.counts: Counter[str] = Counter()
        self.by_area: dict[str, Counter[str]] = {area: Counter() for area in AREAS}
        self.failures: list[str] = []
        self.show = False

    def case(self, number: int) -> tuple[str, Callable[[], Any]]:
        """The area of a case and the call to make."""
        rng = random.Random(f"{self.seed} {number}")
        torch.manual_seed(rng.randrange(2**32))
        area = rng.choices(list(AREAS), weights=list(AREAS.values()))[0]
        if area == "load":
            return area, self.load(rng)
        if area == "tensors":
            return area, draw.function(rng)
        if area == "command line":
            return area, functools.partial(self.command_line, commands(rng, self.folder))
        if area in ("images", "audio"):
            return area, self.media(rng, area)
        return area, self.task(rng, area)

    def task(self, rng: random.Random, name: str) -> Callable[[], Any]:
        """A call of a task with right and wrong values."""
        kind = rng.choices(list(self.models), weights=(5, 2, 2, 2, 1))[0]
        inputs = draw.texts(rng) if rng.random() < 0.4 and kind != "vit" else draw.tensors(rng, kind)
        values = {key: rng.choice(right) for key, right in ARGUMENTS[name].items() if rng.random() < 0.4}
        if rng.random() < 0.2:
            values[rng.choice(list(ARGUMENTS[name]))] = draw.value(rng)
        if name == "fit_information":
            inputs = draw.data(rng)
            values = {"estimator": "gaussian", "permutations": 3} | values
        if name == "minimal_attention":
            values.setdefault("budget", 20.0)
        if name == "report":
            values = {"token_set": False, "certificate": False, "subgraph": False, "attention": "none"} | values
        if name == "compare":
            values.setdefault("methods", ["random"])  # the default ones take a second
        if kind == "encoder" and name in ("explain", "compare") and rng.random() < 0.9:
            values.setdefault("target", first_unit)
        values["tokenizer"] = draw.value(rng) if rng.random() < 0.03 else tokenizer()
        model = draw.value(rng) if rng.random() < 0.02 else self.models[kind]

        def call() -> Any:
            result = getattr(hf_attn_mi, name)(model, inputs, **values)
            if rng.random() < 0.3:
                use(result)

        return call

    def media(self, rng: random.Random, area: str) -> Callable[[], Any]:
        """A call of a task with images or recordings, right and nearly right."""
        inputs = draw.picture(rng) if area == "images" else draw.recording(rng)
        name = rng.choice(("explain", "explain", "explain", "certify", "attention_maps", "minimal_attention"))
        values = {key: rng.choice(right) for key, right in ARGUMENTS[name].items() if rng.random() < 0.2}
        if name == "minimal_attention":
            values |= {"budget": 5.0, "unit": "layer"}
        if rng.random() < 0.2:
            values[rng.choice([*ARGUMENTS[name], "processor", "sampling_rate"])] = draw.value(rng)
        model, processor = self.of_media[area]
        values.setdefault("processor", processor if rng.random() < 0.95 else draw.value(rng))
        if area == "audio" and rng.random() < 0.7:
            values.setdefault("sampling_rate", rng.choice([16000, 8000, 16000, 0, -1]))

        def call() -> Any:
            result = getattr(hf_attn_mi, name)(model, inputs, **values)
            if rng.random() < 0.3:
                use(result)

        return call

    def load(self, rng: random.Random) -> Callable[[], Any]:
        """Load a result whose file was damaged or edited, and use it."""
        name = rng.choice(sorted(self.saved))
        content, data = self.saved[name]
        suffix = "".join(Path(name).suffixes) or ".json"
        path = self.folder / f"loaded{suffix}"
        if data is not None and rng.random() < 0.6:
            for _ in range(rng.choice([1, 1, 2])):
                data = draw.edited(rng, data)
            content = draw.as_json(data)
            content = gzip.compress(content) if name.endswith(".gz") else content
        else:
            content = draw.damaged(rng, content)
        wrong = draw.value(rng) if rng.random() < 0.02 else path

        def call() -> None:
            if name.endswith(".safetensors"):
                folder = self.folder / "loaded_folder"
                folder.mkdir(exist_ok=True)
                stem = Path(name).stem.partition("-")[2]
                (folder / f"{stem}.safetensors").write_bytes(content)
                (folder / f"{stem}.json").write_bytes(self.saved[name.replace(".safetensors", ".json")][0])
                kind = {"profile": hf_attn_mi.InformationProfile, "maps": hf_attn_mi.AttentionMaps}
                loaded: Any = next(one for key, one in kind.items() if stem == one.FOLDER).load(folder)
            else:
                path.write_bytes(content)
                loaded = (Results if "list" in name else Record).load(wrong)
            use(loaded)

        return call

    def command_line(self, line: list[str]) -> None:
        """Run a command in this process."""
        from hf_attn_mi.cli import loading

        def load_model(name: str | None, **options: Any) -> Any:
            return (self.cli_model, tokenizer()) if name is None else loading.load_model(name, **options)

        names = ("certify", "compare", "media", "mi", "minimal", "recheck", "subgraph")
        loaders = [importlib.import_module(f"hf_attn_mi.cli.{name}") for name in names]
        for module in loaders:
            module.load_model = load_model  # type: ignore[attr-defined]
        output, errors = io.StringIO(), io.StringIO()
        try:
            with redirect_stdout(output), redirect_stderr(errors):
                status = run_command_line(line)
        finally:
            for module in loaders:
                module.load_model = loading.load_model  # type: ignore[attr-defined]
        if status == FAULT:
            raise AssertionError(errors.getvalue())
        if "Traceback" in errors.getvalue():
            raise AssertionError(errors.getvalue())
        if status == REFUSED:
            raise HfAttnMiError(errors.getvalue())

    def run(self, number: int) -> None:
        """Run one case and count what became of it."""
        area, call = self.case(number)
        signal.signal(signal.SIGALRM, _hangs)
        signal.setitimer(signal.ITIMER_REAL, SLOWEST)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                call()
            outcome = ANSWERED
        except HfAttnMiError as error:
            outcome = DOCUMENTED
            if self.show:
                print(number, area, " ".join(str(error).split())[:200])
        except HangError:
            outcome = HANG
            self.failures.append(f"case {number} ({area}) hangs")
        except BaseException as error:
            documented = (isinstance(error, OSError) and area == "load") or _of_the_caller(error)
            outcome = DOCUMENTED if documented else RAW
            if not documented:
                self.failures.append(f"case {number} ({area}): {_place(error)}")
                if self.show:
                    print(self.failures[-1], file=sys.stderr, flush=True)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        self.counts[outcome] += 1
        self.by_area[area][outcome] += 1


def _hangs(*_: Any) -> None:
    raise HangError


def _of_the_caller(error: BaseException) -> bool:
    """Whether a function that was passed as target raised this: it is passed on as it is."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/hf_attn_mi/" in frame.filename]
    return bool(frames) and "self.function(outputs" in (frames[-1].line or "")


def _place(error: BaseException) -> str:
    """The type of an error, its message, and the last line of the package that it went through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/hf_attn_mi/" in frame.filename]
    last = f"{Path(frames[-1].filename).relative_to(ROOT)}:{frames[-1].lineno}" if frames else "outside of the package"
    try:
        message = " ".join(str(error).split())[:160]
    except Exception:
        message = "no message"
    return f"{type(error).__name__} at {last}: {message}"


def first_unit(outputs: Any) -> torch.Tensor:
    """A target for a model without classes."""
    state: torch.Tensor = outputs.last_hidden_state
    return state[:, 0, 0]


def use(result: Any) -> None:
    """Everything that a result offers."""
    result.to_text(color="truecolor")
    result.to_text(color="none")
    result.to_html()
    result.to_pandas()
    repr(result)
    assert result == result
    for item in result if isinstance(result, Results) else [result]:
        assert type(item).from_dict(item.to_dict()) == item
        if isinstance(item, hf_attn_mi.Explanation):
            item.top(3)


def saved_files(folder: Path) -> dict[str, tuple[bytes, Any]]:
    """The bytes and the data of a saved result of each kind."""
    from tests.results.result_samples import SAMPLES

    files: dict[str, tuple[bytes, Any]] = {}
    for name, record in SAMPLES.items():
        slug = name.replace(" ", "_")
        if record.FOLDER:
            record.save(folder / slug)
            for suffix in ("json", "safetensors"):
                content = (folder / slug / f"{record.FOLDER}.{suffix}").read_bytes()
                files[f"{slug}-{record.FOLDER}.{suffix}"] = (content, record.to_dict() if suffix == "json" else None)
            continue
        record.save(folder / f"{slug}.json.gz")
        files[f"{slug}.json"] = (draw.as_json(record.to_dict()), record.to_dict())
        files[f"{slug}.json.gz"] = ((folder / f"{slug}.json.gz").read_bytes(), record.to_dict())
        Results([record, record]).save(folder / f"{slug}_list.jsonl")
        files[f"{slug}_list.jsonl"] = ((folder / f"{slug}_list.jsonl").read_bytes(), None)
        files[f"{slug}_list.json"] = (draw.as_json([record.to_dict()] * 2), [record.to_dict()] * 2)
    return files


def run(count: int, seed: int, *, first: int = 0, progress: bool = False, show: bool = False) -> dict[str, Any]:
    """Run the cases `first` to `first + count` and return the figures."""
    faulthandler.enable()
    torch.set_num_threads(1)
    started, before_folder = time.perf_counter(), os.getcwd()
    with tempfile.TemporaryDirectory() as name, quick_collections():
        folder = Path(name)
        fuzzer = Fuzzer(seed, folder)
        fuzzer.show = show
        os.chdir(folder)
        try:
            warm = min(count // 5 + 1, 500)
            media = {kind: model for kind, (model, _) in fuzzer.of_media.items()}
            watched = {**fuzzer.models, **media, "command line": fuzzer.cli_model}
            states: dict[str, Any] = {key: model_state(model) for key, model in watched.items()}
            process, memory = process_state(), resident_mib()
            for number in range(first, first + count):
                fuzzer.run(number)
                done = number - first + 1
                if done == warm:  # what libraries import and cache for good
                    process = process_state()
                if done == (count + 1) // 2:
                    memory = resident_mib()
                if done % STATE_EVERY == 0 or done == count:
                    for key, model in watched.items():
                        for changed in changes(states[key], model_state(model)):
                            fuzzer.failures.append(f"cases up to {number}: {changed} of the model {key} changed")
                        states[key] = model_state(model)
                if progress and done % 500 == 0:
                    print(
                        done, dict(fuzzer.counts), f"{time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True
                    )
            fuzzer.failures += [f"state of the process changed: {item}" for item in changes(process, process_state())]
            growth = resident_mib() - memory
            if not locks_free(watched):
                fuzzer.failures.append("a lock of a model was left locked")
        finally:
            os.chdir(before_folder)
    return {
        "count": count,
        "seed": seed,
        **{key: fuzzer.counts[key] for key in (ANSWERED, DOCUMENTED, RAW, HANG)},
        "crashes": 0,  # a crash ends this process: see `run_in_processes`
        "areas": {area: dict(counts) for area, counts in fuzzer.by_area.items()},
        "memory_growth_mib": round(growth, 1),
        "seconds": round(time.perf_counter() - started, 1),
        "failures": fuzzer.failures,
    }


def run_in_processes(count: int, seed: int, workers: int) -> dict[str, Any]:
    """The figures of `run` over all cases, divided among processes; one that dies is a crash."""
    started, size = time.perf_counter(), -(-count // workers)
    parts: list[dict[str, Any]] = []
    crashes: list[str] = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [
            pool.submit(run, min(size, count - first), seed, first=first, progress=True)
            for first in range(0, count, size)
        ]
        for number, future in enumerate(futures):
            try:
                parts.append(future.result())
            except BrokenProcessPool as error:
                crashes.append(f"process {number} of {workers}: {error}")
    outcomes = (ANSWERED, DOCUMENTED, RAW, HANG)
    return {
        "count": count,
        "seed": seed,
        **{key: sum(part[key] for part in parts) for key in outcomes},
        "crashes": len(crashes),
        "areas": {
            area: {key: sum(part["areas"][area].get(key, 0) for part in parts) for key in outcomes} for area in AREAS
        },
        "memory_growth_mib": max(part["memory_growth_mib"] for part in parts),
        "seconds": round(time.perf_counter() - started, 1),
        "failures": [*crashes, *(failure for part in parts for failure in part["failures"])],
    }


def main() -> int:
    """Run and report."""
    parser = arguments("Random inputs through the API and the command line.", 10_000)
    parser.add_argument("--only", type=int, help="run this case alone, with its traceback")
    parser.add_argument("--workers", type=int, default=1, help="processes that share the cases (default: 1)")
    parser.add_argument("--show", action="store_true", help="print every documented error")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.only is not None:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            area, call = Fuzzer(options.seed, Path(folder)).case(options.only)
            print(area, flush=True)
            call()
            os.chdir(ROOT)
        return 0
    if options.workers > 1:
        result = run_in_processes(options.count, options.seed, options.workers)
    else:
        result = run(options.count, options.seed, progress=True, show=options.show)
    kinds = Counter(failure.partition(": ")[2] for failure in result["failures"])
    for kind, times in kinds.most_common(60):
        example = next(failure for failure in result["failures"] if failure.partition(": ")[2] == kind)
        print(f"{times:4d}  {example}", file=sys.stderr)
    sentence = (
        f"{result['count']} inputs: {result[ANSWERED]} answered, {result[DOCUMENTED]} documented errors, "
        f"{result[RAW]} raw exceptions, {result[HANG]} hangs, {result['crashes']} crashes; state of the models and of "
        f"the process {'as before' if not result['failures'] else 'NOT as before, or errors'}; memory of the second "
        f"half {result['memory_growth_mib']:+} MiB."
    )
    report("fuzz", result, sentence, write=options.write)
    return int(bool(result["failures"]))


if __name__ == "__main__":
    sys.exit(main())
