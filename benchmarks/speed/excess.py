"""Where the time of explain above forward + backward goes, part by part, beside the same part of the peer.

    python benchmarks/speed/excess.py            # writes benchmarks/speed/results/excess.jsonl
    python benchmarks/speed/excess.py --quick    # one layer, one shape, one turn, writes nothing

Four tables: the parts of one call on short texts; the multiplications that relevance and attnlrp need, counted by
PyTorch; the first call of a process and its parts; commands on the embedded model. Weights are random, except for the
last two tables, and seconds are those of the processor in one thread. Functions are timed from outside, so the parts of
a call take a little longer than the call does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # `benchmarks` is imported as a package

import torch
import transformers
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import EMBEDDED_MODEL, Row, check, result_row, run_parts
from benchmarks.inputs import load_classifier, load_tokenizer, model_folder
from benchmarks.speed.over_backward import IMAGES, TASKS, Measured
from benchmarks.speed.subgraph import ALONE, SENTENCE, seconds_of_process
from hf_attn_mi import explain
from hf_attn_mi.capture import module_names, tracer, validation
from hf_attn_mi.methods.layer_statistics import LayerStatistics
from hf_attn_mi.methods.relevance import gradient_times_input, scorer
from hf_attn_mi.models import model_probe, runner, token_origins, weights

RESULTS = Path(__file__).parent / "results" / "excess.jsonl"
TEXT = "A quietly moving film."
SHAPES = ((1, 16), (1, 32), (1, 128))  # batch, tokens
MODELS = ("MiniLM", "BERT", "RoBERTa", "DeBERTa-v2", "ModernBERT", "ViT")
PARTS = {  # of a call: the functions that are timed
    "forward": ((runner.EncoderRunner, "forward"),),
    "backward": ((gradient_times_input, "gradients_of"),),
    "statistics": ((LayerStatistics, "__call__"), (LayerStatistics, "finish")),
    "relevance": ((scorer, "relevances"),),
}
FIRST_PARTS = {  # of the first call; what belongs to none of them is the rest
    "weights read, to find NaN": ((weights, "nonfinite_weight"),),
    "probe: passes of its own": ((model_probe, "_probe"),),
    "probe: state of the model and of random numbers": ((model_probe, "_state"), (model_probe, "_holds_functions")),
    "probe: ids followed to tables": ((token_origins.TokenOrigins, "observe"), (model_probe, "token_tables")),
    "names of modules and layers": ((module_names.NameTable, "of"), (model_probe, "layer_stacks")),
    "products followed to W_O": ((tracer.AttentionTracer, "_project"),),
    "rank of W_O": ((validation, "deficient_heads"),),
    "sum over heads compared": ((tracer, "head_sum_error"),),
    "layer statistics": ((LayerStatistics, "__call__"), (LayerStatistics, "finish")),
    "tokens": ((runner, "encode_texts"),),
    "forward, its operations followed": ((runner.EncoderRunner, "forward"),),
    "backward": ((gradient_times_input, "gradients_of"),),
}
FIRST_CALL = "first call of a process"
COMMANDS = {"explain": None, "subgraph": 4}  # seconds allowed
Places = Mapping[str, tuple[tuple[Any, str], ...]]


@contextmanager
def timed(places: Places) -> Iterator[dict[str, float]]:
    """Processor seconds of each part while the context is open, without those of parts that are called inside it."""
    seconds = dict.fromkeys(places, 0.0)
    inside = [0.0]  # for each part that is open, the seconds of the parts in it

    def around(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            inside.append(0.0)
            started = time.process_time()
            try:
                return function(*args, **options)
            finally:
                spent = time.process_time() - started
                seconds[part] += spent - inside.pop()
                inside[-1] += spent

        return run

    with ExitStack() as stack:
        for part, functions in places.items():
            for owner, name in functions:
                stack.enter_context(patch.object(owner, name, around(part, getattr(owner, name))))
        yield seconds


def bare_parts(measured: Measured, inputs: dict[str, Tensor]) -> dict[str, float]:
    """Processor seconds of a forward pass and of a backward pass to the embeddings."""
    started = time.process_time()
    embeddings, logits = measured.forward(inputs)
    forward = time.process_time() - started
    started = time.process_time()
    torch.autograd.grad(logits.amax(1).sum(), embeddings)
    return {"forward": forward, "backward": time.process_time() - started}


def call_parts(measured: Measured, inputs: dict[str, Tensor], options: dict[str, str]) -> dict[str, float]:
    """Processor seconds of the parts of one call; together they are the call."""
    with timed(PARTS) as seconds:
        started = time.process_time()
        measured.explain(inputs, **options)
        total = time.process_time() - started
    return {
        "forward": seconds["forward"],
        "backward": seconds["backward"],
        "layer statistics": seconds["statistics"],
        "target, scores and bias terms": seconds["relevance"],
        "reading model and input, result": total - sum(seconds.values()),
    }


def parts_of_a_call(name: str, layers: int | None, turns: int, quick: bool) -> Iterator[Row]:
    """The parts of one call of each task, beside forward and backward of the peer."""
    measured = Measured.of(name, layers, turns)
    shapes = IMAGES[:1] if name == "ViT" else SHAPES[:1] if quick else SHAPES
    for shape in shapes:
        inputs = measured.batch(shape)
        for task, options in TASKS.items():
            for _ in range(2):  # warms up, and follows the pass once
                call_parts(measured, inputs, options)
                bare_parts(measured, inputs)
            ours, peer = [], []
            for _ in range(turns):
                ours.append(call_parts(measured, inputs, options))
                peer.append(bare_parts(measured, inputs))
            for part in ours[0]:
                column = [one[part] for one in ours]
                if part == "layer statistics" and not max(column):
                    continue
                yield result_row(
                    f"where the time goes/{name} {task}, {shape[0]} x {shape[1]}: {part}",
                    "a part of one call, beside the same part of forward + backward",
                    column,
                    [one[part] for one in peer] if part in peer[0] else None,
                )


def multiplications(name: str, layers: int | None, quick: bool) -> Iterator[Row]:
    """The floating-point operations of products of matrices, as PyTorch counts them."""
    measured = Measured.of(name, layers, 1)
    shapes = IMAGES[:1] if name == "ViT" else ((1, 16),) if quick else ((1, 16), (1, 128))
    for shape in shapes:
        inputs = measured.batch(shape)
        counts = {"bare": _operations(partial(measured.bare, inputs))}
        for task in ("none", "attnlrp"):
            measured.explain(inputs, **TASKS[task])  # what is run once for a model
            counts[task] = _operations(partial(measured.explain, inputs, **TASKS[task]))
        check(all(counts.values()), "no operation was counted")
        for label, ours, peer in (
            ("relevance over forward + backward", "none", "bare"),
            ("attnlrp over forward + backward", "attnlrp", "bare"),
            ("attnlrp over relevance", "attnlrp", "none"),
        ):
            yield result_row(
                f"operations of matrix products/{name} {label}, {shape[0]} x {shape[1]}",
                "floating-point operations of products of matrices",
                [counts[ours] / 1e9],
                [counts[peer] / 1e9],
                unit="GFLOP",
            )


class _OneModule:
    """In place of the counter's own record of modules, which cannot follow gradients to an input of one."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _operations(call: Callable[[], Any]) -> int:
    counter: Any = FlopCounterMode(display=False)
    counter.mod_tracker = _OneModule()
    with counter:
        call()
    return int(counter.get_total_flops())


def first_call(folder: Path, turns: int) -> Iterator[Row]:
    """The first call of a process over its second, beside the same of the peer, in fresh processes, and its parts."""
    found: dict[str, list[dict[str, float]]] = {"explain": [], "bare": []}
    with compiled() as environment:
        for turn in range(turns + 1):  # the first one writes the compiled modules
            for task, answers in found.items():
                command = [sys.executable, "-W", "ignore", str(Path(__file__).resolve())]
                command += ["--process", str(folder), "--task", task]
                done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
                answers += [json.loads(done.stdout)] if turn else []
    first, second = ({task: [one[call] for one in found[task]] for task in found} for call in ("first", "second"))
    name, what = f"{FIRST_CALL}/explain, first over second", f"explain of {TEXT!r}"
    yield result_row(name, what, first["explain"], second["explain"], at_most=1.5)
    what = "the model's own forward and backward pass to the embeddings"
    yield result_row(f"{FIRST_CALL}/forward + backward, first over second", what, first["bare"], second["bare"])
    for label, calls in (("first", first), ("second", second)):
        name, what = f"{FIRST_CALL}/{label} explain over {label} forward + backward", "explain over the peer"
        yield result_row(name, what, calls["explain"], calls["bare"])
    for part in (*FIRST_PARTS, "the rest"):
        columns = [[one[f"{call} {part}"] for one in found["explain"]] for call in ("first", "second")]
        compared = columns[1] if min(columns[1]) > 0 else None
        if max(columns[0]) > 0:
            what = "a part of the first call, beside the same part of the second"
            yield result_row(f"{FIRST_CALL}/{part}", what, columns[0], compared)


@contextmanager
def compiled() -> Iterator[dict[str, str]]:
    """The environment of processes that keep the modules they compile, as those of an installed package are."""
    with tempfile.TemporaryDirectory() as folder:
        yield {**os.environ, "PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}


def one_process(folder: Path, task: str) -> dict[str, float]:
    """Seconds of the first and of the second call in this process, and of their parts, after one plain forward pass."""
    torch.set_num_threads(1)
    model, tokenizer = load_classifier(folder), load_tokenizer(folder)
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        model(input_ids=ids)
    if task == "bare":
        return {call: sum(bare_parts(Measured("", model, 1), inputs).values()) for call in ("first", "second")}
    found: dict[str, float] = {}
    for call in ("first", "second"):
        with timed(FIRST_PARTS) as seconds:
            started = time.process_time()
            explain(model, TEXT, tokenizer=tokenizer)
            found[call] = time.process_time() - started
        rest = found[call] - sum(seconds.values())
        found |= {f"{call} {part}": one for part, one in {**seconds, "the rest": rest}.items()}
    return found


def commands(turns: int) -> Iterator[Row]:
    """Commands on the embedded model, the start of Python included, in turns with transformers alone."""
    runs = {name: [sys.executable, "-m", "hf_attn_mi", name, SENTENCE] for name in COMMANDS}
    alone = "transformers alone: the same model and one forward pass"
    runs[alone] = [sys.executable, "-c", ALONE.format(path=str(EMBEDDED_MODEL), text=SENTENCE)]
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with compiled() as environment:
        for turn in range(turns + 1):  # the first one writes the compiled modules
            for name, command in runs.items():
                one = seconds_of_process(command, environment)[0]
                seconds[name] += [one] if turn else []
    for name, column in seconds.items():
        what = "processor seconds of the whole process, for a sentence of 20 words"
        yield result_row(f"commands/{name}", what, column, at_most=COMMANDS.get(name))


def main() -> int:
    """Run the parts, print and write the rows; the exit status is 1 where a check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--parts", nargs="+", choices=("parts", "operations", "first", "commands"))
    parser.add_argument("--model", type=Path, help="folder of the classifier of the first call")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one layer, one shape, one turn")
    parser.add_argument("--process", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--task", choices=("explain", "bare"), default="explain", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="default results/excess.jsonl; none with --quick or --parts")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if arguments.process is not None:
        print(json.dumps(one_process(arguments.process, arguments.task)))
        return 0
    layers, turns = (1, 1) if arguments.quick else (None, arguments.turns)
    names, quick = (["MiniLM"] if arguments.quick else arguments.models), arguments.quick
    parts = {
        "parts": {name: partial(parts_of_a_call, name, layers, turns, quick) for name in names},
        "operations": {name: partial(multiplications, name, layers, quick) for name in names},
        "first": {"": partial(first_call, model_folder(arguments.model), turns)},
        "commands": {"": partial(commands, turns)},
    }
    whole = not quick and arguments.parts is None and arguments.models == list(MODELS)
    chosen = [
        (f"{part} {name}".strip(), run, [1]) for part in arguments.parts or parts for name, run in parts[part].items()
    ]
    _, failures = run_parts(chosen, arguments.output or (RESULTS if whole else None))
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
