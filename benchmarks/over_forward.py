"""What explain, relevance, capture and the layer statistics cost over one plain forward pass of the same batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from bench import Bench, Rows, check_capture, check_explanations, ignore
from materials import token_ids
from measuring import check, in_turns, once, row
from torch import Tensor, nn

from hf_attn_mi import capture_attention
from hf_attn_mi.kernels import AttentionStatistics, attention_statistics
from hf_attn_mi.methods.layer_statistics import LayerCollector, layer_view

SHAPES = ((32, 128), (16, 512), (1, 16), (1, 128))  # targets are for the first


def over_forward(bench: Bench) -> Rows:
    """explain, relevance and capture over one plain forward pass of the same batch."""
    shapes = ((4, 64), (1, 16)) if bench.arguments.quick else SHAPES
    for shape in shapes:
        yield from _one_shape(bench, *shape, targets=shape == SHAPES[0])


def _one_shape(bench: Bench, batch: int, tokens: int, *, targets: bool) -> Rows:
    ids = token_ids(bench.texts, bench.tokenizer, batch, tokens)
    chosen = bench.forward(ids).logits.argmax(1)
    checks = check_explanations(bench, ids, chosen) | check_capture(bench, ids)
    tasks: dict[str, tuple[Callable[[], Any], str, float | None]] = {
        "explain": (lambda: bench.explain(ids), "explain(method='relevance')", 4.0),
        "relevance": (lambda: bench.relevance(ids, chosen), "relevance alone, without layer statistics", None),
        "explain attention": (lambda: bench.explain(ids, "attention"), "explain(method='attention')", None),
        "capture": (lambda: bench.captured(ids, ignore), "capture_attention, consumer does nothing", 1.1),
        "capture with states": (
            lambda: bench.captured(ids, ignore, states=ignore),
            "capture with hidden states streamed",
            None,
        ),
    }
    long = batch * tokens > 4096  # seconds a call: only what matters most, and the checks have warmed it up
    if long:
        tasks = {name: tasks[name] for name in ("explain", "capture")}
    timed = {"forward": lambda: bench.forward(ids)} | {name: task for name, (task, _, _) in tasks.items()}
    seconds = in_turns(timed, bench.turns(3 if long else 5), warm=long)
    for name, (_, what, limit) in tasks.items():
        yield row(
            f"over one forward/{name}, {batch} x {tokens}",
            f"{what}, over one plain forward of the batch",
            seconds[name],
            seconds["forward"],
            at_most=limit if targets else None,
            **checks,
        )


def first_use(bench: Bench) -> Rows:
    """The first capture of a model, which follows every product to W_O and adds up its heads."""
    batch, tokens = (4, 64) if bench.arguments.quick else (32, 128)
    ids = token_ids(bench.texts, bench.tokenizer, batch, tokens)
    ours, peer = [], []
    for _ in range(bench.turns(3)):
        plain, first = _first_use(copy.deepcopy(bench.model), ids)
        peer.append(plain)
        ours.append(first)
    what = "the first capture of a model, with its checks, over one plain forward"
    yield row(f"over one forward/first capture, {batch} x {tokens}", what, ours, peer)


@torch.no_grad()
def _first_use(model: nn.Module, ids: Tensor) -> tuple[float, float]:
    def captured() -> None:
        with capture_attention(model, ignore):
            model(input_ids=ids)

    return in_turns({"forward": lambda: model(input_ids=ids)}, 1)["forward"][0], once(captured)


def layer_statistics(bench: Bench) -> Rows:
    """The parts of the layer statistics, mean over the layers, over a layer's share of the forward pass."""
    batch, tokens = (4, 64) if bench.arguments.quick else (32, 128)
    ids = token_ids(bench.texts, bench.tokenizer, batch, tokens)
    with torch.no_grad(), capture_attention(bench.model) as seen:
        bench.model(input_ids=ids)
    real = torch.ones_like(ids, dtype=torch.bool)

    def analyzed(statistics: str) -> list[AttentionStatistics]:
        calls = [layer_view(call, range(batch), real).call for call in seen.calls]
        return [
            attention_statistics(c.query, c.key, c.value, c.output, scale=c.scale, statistics=statistics) for c in calls
        ]

    check(
        all(bool((a.rank <= c.head_dim).all()) for a, c in zip(analyzed("summary"), seen.calls)), "rank above head_dim"
    )

    @torch.no_grad()
    def collect() -> None:
        collector = LayerCollector(lengths=[tokens] * batch, masks=real)
        for call in seen.calls:
            collector(call)

    tasks: dict[str, Callable[[], Any]] = {
        "forward": lambda: bench.forward(ids),
        "all statistics": collect,
        "attention_statistics, summary": lambda: analyzed("summary"),
        "attention_statistics, raw": lambda: analyzed("raw"),
    }
    seconds = {name: [s / len(seen.calls) for s in found] for name, found in in_turns(tasks, bench.turns(5)).items()}
    for name in list(tasks)[1:]:
        what = f"{name} of one layer over a layer's share of the forward"
        yield row(f"layer statistics/{name}, {batch} x {tokens}", what, seconds[name], seconds["forward"])
