"""Cost of explain, relevance and capture over a plain forward pass, and of efficient attention, memory and import.

    python benchmarks/speed/explain.py            # every part, writes benchmarks/speed/results/explain.jsonl
    python benchmarks/speed/explain.py --quick    # small shapes and two turns, writes only where --output says

Correctness is checked first; a part whose check fails gets a row that says so and no figure.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # `benchmarks` is imported as a package

import torch
from torch import Tensor, nn

from benchmarks.common import check, result_row, run_parts, seconds_of, time_in_turns
from benchmarks.inputs import cut_texts, load_classifier, load_tokenizer, model_folder, read_texts, token_ids
from benchmarks.speed.imports import import_time
from benchmarks.speed.memory import peak_memory
from benchmarks.speed.timed_model import Rows, TimedModel, check_capture, check_explanations, ignore
from hf_attn_mi import attention_maps, capture_attention
from hf_attn_mi.kernels import AttentionStatistics, attention_statistics
from hf_attn_mi.methods.layer_statistics import LayerStatistics, layer_view

RESULTS = Path(__file__).parent / "results" / "explain.jsonl"
SHAPES = ((32, 128), (16, 512), (1, 16), (1, 128))  # batch, tokens; targets apply to the first


def over_forward(timed: TimedModel) -> Rows:
    """Time explain, relevance and capture over one plain forward pass of the same batch."""
    shapes = ((4, 64), (1, 16)) if timed.quick else SHAPES
    for shape in shapes:
        yield from _over_forward_of_shape(timed, *shape, targets=shape == SHAPES[0])


def _over_forward_of_shape(timed: TimedModel, batch: int, tokens: int, *, targets: bool) -> Rows:
    ids = token_ids(timed.texts, timed.tokenizer, batch, tokens)
    target = timed.forward(ids).logits.argmax(1)
    checks = check_explanations(timed, ids, target) | check_capture(timed, ids)
    tasks: dict[str, tuple[Callable[[], Any], str, float | None]] = {
        "explain": (lambda: timed.explain(ids), "explain(method='relevance')", 4.0),
        "relevance": (lambda: timed.relevance(ids, target), "relevance alone, without layer statistics", None),
        "explain attention": (lambda: timed.explain(ids, "attention"), "explain(method='attention')", None),
        "capture": (lambda: timed.captured(ids, ignore), "capture_attention, consumer does nothing", 1.1),
        "capture with states": (
            lambda: timed.captured(ids, ignore, states=ignore),
            "capture with hidden states streamed",
            None,
        ),
    }
    long = batch * tokens > 4096  # seconds a call: only the main tasks, which the checks have warmed up
    if long:
        tasks = {name: tasks[name] for name in ("explain", "capture")}
    timed_tasks = {"forward": lambda: timed.forward(ids)} | {name: task for name, (task, _, _) in tasks.items()}
    seconds = time_in_turns(timed_tasks, timed.turns(3 if long else 5), warmed_up=long)
    for name, (_, what, limit) in tasks.items():
        yield result_row(
            f"over one forward/{name}, {batch} x {tokens}",
            f"{what}, over one plain forward of the batch",
            seconds[name],
            seconds["forward"],
            at_most=limit if targets else None,
            **checks,
        )


def first_use(timed: TimedModel) -> Rows:
    """Time the first capture of a model, which also follows each attention output to its projection W_O."""
    batch, tokens = (4, 64) if timed.quick else (32, 128)
    ids = token_ids(timed.texts, timed.tokenizer, batch, tokens)
    forward, first = [], []
    for _ in range(timed.turns(3)):
        seconds = _first_use_seconds(copy.deepcopy(timed.model), ids)
        forward.append(seconds[0])
        first.append(seconds[1])
    what = "the first capture of a model, with its checks, over one plain forward"
    yield result_row(f"over one forward/first capture, {batch} x {tokens}", what, first, forward)


@torch.no_grad()
def _first_use_seconds(model: nn.Module, ids: Tensor) -> tuple[float, float]:
    def captured() -> None:
        with capture_attention(model, ignore):
            model(input_ids=ids)

    return time_in_turns({"forward": lambda: model(input_ids=ids)}, 1)["forward"][0], seconds_of(captured)


def layer_statistics(timed: TimedModel) -> Rows:
    """Time the parts of the layer statistics, mean over layers, over a layer's share of the forward pass."""
    batch, tokens = (4, 64) if timed.quick else (32, 128)
    ids = token_ids(timed.texts, timed.tokenizer, batch, tokens)
    with torch.no_grad(), capture_attention(timed.model) as capture:
        timed.model(input_ids=ids)
    mask = torch.ones_like(ids, dtype=torch.bool)

    def statistics_of(effective: bool) -> list[AttentionStatistics]:
        calls = [layer_view(call, range(batch), mask).call for call in capture.calls]
        return [
            attention_statistics(c.query, c.key, c.value, c.output, scale=c.scale, effective=effective) for c in calls
        ]

    ranks_fit = all(
        bool((result.rank <= call.head_dim).all()) for result, call in zip(statistics_of(True), capture.calls)
    )
    check(ranks_fit, "rank above head_dim")

    @torch.no_grad()
    def collect() -> None:
        statistics = LayerStatistics(lengths=[tokens] * batch, real=mask)
        for call in capture.calls:
            statistics(call)

    tasks: dict[str, Callable[[], Any]] = {
        "forward": lambda: timed.forward(ids),
        "all statistics": collect,
        "attention_statistics, effective": lambda: statistics_of(True),
        "attention_statistics, raw": lambda: statistics_of(False),
    }
    layers = len(capture.calls)
    seconds = {name: [s / layers for s in column] for name, column in time_in_turns(tasks, timed.turns(5)).items()}
    for name in list(tasks)[1:]:
        what = f"{name} of one layer over a layer's share of the forward"
        yield result_row(f"layer statistics/{name}, {batch} x {tokens}", what, seconds[name], seconds["forward"])


def efficient_encoder(timed: TimedModel) -> Rows:
    """Time efficient attention of a whole encoder: all layers, all heads."""
    tokens = 40 if timed.quick else 186
    ids = cut_texts(timed.texts, timed.tokenizer, 1, tokens)[0]
    seconds: list[float] = []
    results: list[Any] = []
    for _ in range(1 if torch.get_num_threads() > 1 else timed.turns(2)):
        seconds.append(seconds_of(lambda: results.append(attention_maps(timed.model, {"input_ids": ids}))))
    maps = results[-1]
    residual = max(float(values.max()) for values in maps.residual)
    check(residual <= 1e-5, f"efficient attention misses its outputs: {residual:.1e}")
    for rows in maps.matrices:
        valid = bool((rows >= 0).all()) and float((rows.sum(-1) - 1).abs().max()) <= 1e-5
        check(valid, "rows are not probability distributions")
    limit = 20.0 if torch.get_num_threads() == 1 and not timed.quick else None
    what = f"attention_maps(kind='efficient'), all {len(maps.layers)} layers and {len(maps.heads)} heads"
    yield result_row(f"efficient attention/{tokens} tokens", what, seconds, at_most=limit, residual=residual)


def main() -> int:
    """Run the parts, print and write the rows; the exit status is 1 where a check failed."""
    parts: dict[str, tuple[Callable[[TimedModel], Rows], bool]] = {  # and whether the number of threads matters
        "forward": (over_forward, True),
        "first": (first_use, True),
        "statistics": (layer_statistics, True),
        "efficient": (efficient_encoder, True),
        "memory": (lambda timed: peak_memory(timed, arguments.model, arguments.data), False),
        "import": (import_time, False),
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a BERT-like classifier with its tokenizer")
    parser.add_argument("--data", type=Path, help="jsonl.gz with a field text")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--turns", type=int, default=7, help="most turns of a part (default 7)")
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--quick", action="store_true", help="small shapes, two turns")
    parser.add_argument("--output", type=Path, help="default results/explain.jsonl; none with --quick or --parts")
    arguments = parser.parse_args()
    arguments.model = model_folder(arguments.model)
    whole = not arguments.quick and set(arguments.parts) == set(parts)
    turns = min(arguments.turns, 2) if arguments.quick else arguments.turns
    timed = TimedModel(
        load_classifier(arguments.model),
        load_tokenizer(arguments.model),
        read_texts(arguments.data, 200),
        turns,
        arguments.quick,
    )
    chosen = [
        (name, partial(parts[name][0], timed), arguments.threads if parts[name][1] else [1]) for name in arguments.parts
    ]
    _, failures = run_parts(chosen, arguments.output or (RESULTS if whole else None), model=arguments.model.name)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
