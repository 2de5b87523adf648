"""Cost of the Triton kernels and of explain on a GPU.

Attention statistics over flash attention, received weights, neighbor counts and class moments over PyTorch, efficient
rows of the heads of a BERT-base at 512 tokens over PyTorch, explain over one forward and one backward pass.

    python benchmarks/speed/gpu.py              # writes benchmarks/speed/results/gpu.jsonl
    python benchmarks/speed/gpu.py --turns 3 --parts attention --output out/gpu.jsonl

Without CUDA it measures and writes nothing. Correctness is checked first; a part whose check fails gets no figure.
Efficient rows against HiGHS are measured by `benchmarks/speed/efficient_rows.py --backend triton`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # `benchmarks` is imported as a package

import torch
from torch import Tensor

from benchmarks.common import Row, check, result_row, run_parts, time_in_turns
from benchmarks.speed.efficient_rows import first_layer, solve
from benchmarks.speed.information import closed_form, plain_closed_form
from benchmarks.speed.over_backward import LIMITS, TASKS, Measured
from hf_attn_mi.kernels import attention_statistics, class_moments, neighbor_counts, received_weights
from hf_attn_mi.kernels.attention_statistics.reference import (
    reference_allowed,
    reference_attention_statistics,
    reference_rows,
)
from hf_attn_mi.kernels.neighbors.reference import reference_neighbor_counts

Rows = Iterator[Row]
RESULTS = Path(__file__).parent / "results" / "gpu.jsonl"
BATCH, HEADS, LENGTH, WIDTH = 8, 12, 4096, 64
SITES, EXAMPLES, FEATURES, CLASSES = 12 * 64, 2000, 384, 4
FIELDS = ("received", "received_effective", "mean_entropy")
PRODUCTS = {"effective": 3, "raw": 2}  # tiles of Q K^T and A U that are formed
GIGABYTE = 2**30
DEVICE = "cuda"
MODEL, SHAPES = "BERT", ((1, 16), (1, 32), (1, 128), (8, 128), (8, 512))  # of explain: batch, tokens
TOKENS = 512  # of efficient rows


def synchronized(task: Callable[[], Any]) -> Callable[[], Any]:
    """Return a task that waits until the GPU has finished."""

    def run() -> Any:
        result = task()
        torch.cuda.synchronize()
        return result

    return run


def peak(task: Callable[[], Any]) -> float:
    """Bytes that are allocated at most during a task, tensors that are there already among them."""
    task()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    task()
    torch.cuda.synchronize()
    return float(torch.cuda.max_memory_allocated())


def measured(name: str, what: str, ours: list[float], peer: list[float] | None = None, **more: Any) -> dict[str, Any]:
    """A row that names the GPU."""
    triton = version("triton")
    return result_row(
        name, what, ours, peer, gpu=torch.cuda.get_device_name(), cuda=torch.version.cuda, triton=triton, **more
    )


def draw_heads(batch: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value in bfloat16; values with a power-law spectrum."""
    generator = torch.Generator("cuda").manual_seed(0)
    query, key, value = torch.randn(3, batch, HEADS, length, WIDTH, generator=generator, device="cuda")
    value = value * torch.arange(1, WIDTH + 1, device="cuda").rsqrt()
    return query.bfloat16(), key.bfloat16(), value.bfloat16()


def flash(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The forward pass of flash attention, or an error: never another kernel in its place."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        return torch.nn.functional.scaled_dot_product_attention(query, key, value)


def check_attention_statistics() -> float:
    """Largest error of a field over that of plain PyTorch in bfloat16; red above 2."""
    tensors = draw_heads(1, 257)
    query, key, value = (x.cpu() for x in tensors)
    allowed = reference_allowed((1, HEADS, 257, 257))
    result = attention_statistics(*tensors, None, backend="triton")
    specified = []
    for dtype in (torch.float64, torch.bfloat16):
        rows = reference_rows(query.to(dtype), key.to(dtype), allowed)
        wide = torch.promote_types(dtype, torch.float32)
        specified.append(reference_attention_statistics(rows.to(wide), value.to(wide), allowed, 2.0**-23))
    worst = 0.0
    for name in FIELDS:
        exact, plain = (result[name].double() for result in specified)
        limit = 2 * float((plain - exact).abs().max()) + 1e-3 * max(1.0, float(exact.abs().max()))
        worst = max(worst, 2 * float((getattr(result, name).cpu().double() - exact).abs().max()) / limit)
    check(worst <= 2, f"attention statistics in bfloat16: error {worst:.2f} times that of plain PyTorch")
    return worst


def attention(turns: int) -> Rows:
    """The pass over flash attention in time and memory, and its share of what the tensor cores reach."""
    error = check_attention_statistics()
    tensors = draw_heads(BATCH, LENGTH)
    output = flash(*tensors)
    square = torch.randn(8192, 8192, device="cuda").bfloat16()
    tasks: dict[str, Callable[[], Any]] = {"flash": lambda: flash(*tensors), "product": lambda: square @ square}
    for statistics in PRODUCTS:
        effective = statistics == "effective"
        tasks[statistics] = lambda effective=effective: attention_statistics(*tensors, output, effective=effective)
    check(tasks["effective"]().backend == "triton", "the pass did not run in Triton")
    timings = time_in_turns({name: synchronized(task) for name, task in tasks.items()}, turns)
    shape = f"batch {BATCH}, {HEADS} heads, n = {LENGTH}, d = {WIDTH}, bfloat16"
    least = peak(tasks["flash"])
    for statistics, products in PRODUCTS.items():
        target = statistics == "effective"
        yield measured(
            f"attention on a GPU/{statistics}",
            f"{statistics} statistics over flash attention forward; {shape}",
            timings[statistics],
            timings["flash"],
            at_most=2 if target else None,
            error_over_plain=error,
        )
        yield measured(
            f"attention on a GPU/{statistics} memory",
            "peak memory of the two, inputs and output among it",
            [peak(tasks[statistics]) / 2**20],
            [least / 2**20],
            unit="MiB",
            at_most=1.2 if target else None,
        )
        work = products * 2 * BATCH * HEADS * LENGTH**2 * WIDTH
        ours = [work / seconds / 1e12 for seconds in timings[statistics]]
        ceiling = [2 * 8192**3 / seconds / 1e12 for seconds in timings["product"]]
        yield measured(
            f"attention on a GPU/{statistics} rate",
            f"rate of its {products} products, over that of one product of 8192 x 8192 matrices",
            ours,
            ceiling,
            unit="TFLOP/s",
        )


def received(turns: int) -> Rows:
    """Received effective weights from the output alone, as a share of the bandwidth of a copy."""
    query, key, value = draw_heads(BATCH, LENGTH)
    output = flash(query, key, value)

    real = torch.ones(BATCH, LENGTH, dtype=torch.bool, device="cuda")

    def alone() -> Tensor:
        return received_weights(output, value, real, real)

    result, expected = alone(), attention_statistics(query, key, value, output).received_effective
    assert expected is not None
    gap = float((result - expected).abs().max() / expected.abs().max())
    check(gap < 2e-2, f"received weights alone differ by {gap:.4f} from those of the rows")
    source, target = (torch.empty(GIGABYTE // 4, device="cuda") for _ in range(2))
    timings = time_in_turns({"ours": synchronized(alone), "copy": synchronized(lambda: target.copy_(source))}, turns)
    bytes_read = 2 * (value.numel() + output.numel())
    yield measured(
        "attention on a GPU/received alone",
        "gigabytes of values and outputs a second, over those that a copy moves",
        [bytes_read / seconds / 1e9 for seconds in timings["ours"]],
        [2 * GIGABYTE / seconds / 1e9 for seconds in timings["copy"]],
        unit="GB/s",
        at_least=0.6,
        gap=gap,
    )


def draw_states(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """States with a power-law spectrum in random directions and a shift by class, and their classes, on the GPU."""
    generator = torch.Generator("cuda").manual_seed(0)
    labels = torch.randint(CLASSES, (EXAMPLES,), generator=generator, device="cuda")
    spectrum = torch.arange(1, FEATURES + 1, device="cuda").rsqrt()
    rotation = torch.linalg.qr(torch.randn(FEATURES, FEATURES, generator=generator, device="cuda"))[0]
    states = torch.empty(SITES, EXAMPLES, FEATURES, dtype=dtype, device="cuda")
    for site in states:
        means = 0.3 * torch.randn(CLASSES, FEATURES, generator=generator, device="cuda")
        noise = torch.randn(EXAMPLES, FEATURES, generator=generator, device="cuda")
        site.copy_(((noise + means[labels]) * spectrum) @ rotation)
    return states, labels


def neighbors(turns: int) -> Rows:
    """Neighbor counts of all sites, over the bare products."""
    states, labels = draw_states(torch.float32)
    result = neighbor_counts(states, labels)
    check(result.backend == "triton", "the counts did not run in Triton")
    for site in (0, SITES - 1):
        exact = reference_neighbor_counts(states[site].cpu(), labels.cpu(), 3)[0]
        check(torch.equal(result.within[site].cpu(), exact), f"counts of site {site} differ from float64")
    by_torch = neighbor_counts(states[:4], labels, backend="torch")
    check(torch.equal(result.within[:4], by_torch.within), "counts differ from PyTorch's")
    tasks: dict[str, Callable[[], Any]] = {
        "ours": lambda: neighbor_counts(states, labels),
        "product": lambda: [site @ site.T for site in states],
        "torch": lambda: neighbor_counts(states[:16], labels, backend="torch"),
        "few": lambda: neighbor_counts(states[:16], labels),
    }
    timings = time_in_turns({name: synchronized(task) for name, task in tasks.items()}, turns)
    shape = f"{EXAMPLES} x {FEATURES} float32"
    yield measured(
        "information on a GPU/neighbors",
        f"exact neighbor counts of {SITES} sites of {shape}",
        timings["ours"],
        at_most=0.5,
    )
    yield measured(
        "information on a GPU/neighbors over product",
        "the same over the bare X X^T of each site",
        timings["ours"],
        timings["product"],
    )
    yield measured(
        "information on a GPU/neighbors and PyTorch",
        "16 sites: Triton against PyTorch on the same GPU",
        timings["few"],
        timings["torch"],
        faster=True,
    )


def moments(turns: int) -> Rows:
    """Closed-form information of all sites, and the moments alone from half-precision states."""
    states, labels = draw_states(torch.float32)
    result = closed_form(states[:4], labels).cpu()
    expected = torch.stack([plain_closed_form(site.cpu(), labels.cpu()) for site in states[:4]])
    gap = float((result - expected).abs().max())
    check(gap < 0.01, f"closed-form information differs by {gap:.4f} nats from float64")
    check(class_moments(states[:1], labels).backend == "triton", "the moments did not run in Triton")
    half = states.bfloat16()
    tasks: dict[str, Callable[[], Any]] = {
        "closed": lambda: closed_form(states, labels, sites=64),
        "moments": lambda: [class_moments(part, labels) for part in states.split(64)],
        "half": lambda: [class_moments(part, labels) for part in half.split(64)],
        "torch": lambda: [class_moments(part, labels, backend="torch") for part in states.split(64)],
    }
    timings = time_in_turns({name: synchronized(task) for name, task in tasks.items()}, turns)
    shape = f"{SITES} sites of {EXAMPLES} x {FEATURES}, ten folds"
    yield measured(
        "information on a GPU/closed form",
        f"Gaussian-mixture information, {shape}",
        timings["closed"],
        at_most=0.3,
        gap_to_float64_nats=gap,
    )
    yield measured(
        "information on a GPU/moments and PyTorch",
        f"moments alone against PyTorch's; {shape}, float32",
        timings["moments"],
        timings["torch"],
        faster=True,
    )
    yield measured(
        "information on a GPU/moments of bfloat16",
        "moments of bfloat16 states over those of float32",
        timings["half"],
        timings["moments"],
    )


def explained(turns: int) -> Rows:
    """explain over one forward and one backward pass, scores and bias terms checked first."""
    model = Measured.of(MODEL, None, turns)
    model.model.to(DEVICE)
    for shape in SHAPES:
        inputs = {name: tensor.to(DEVICE) for name, tensor in model.batch(shape).items()}
        model.check_sums(inputs)
        tasks: dict[str, Callable[[], Any]] = {"bare": partial(model.bare, inputs)}
        tasks |= {task: partial(model.explain, inputs, **TASKS[task]) for task in ("none", "full")}
        timings = time_in_turns({name: synchronized(task) for name, task in tasks.items()}, turns)
        for task in ("none", "full"):
            yield measured(
                f"explain on a GPU/{MODEL} {task}, {shape[0]} x {shape[1]}",
                f'explain(layers="{task}") over one forward and one backward pass of the batch',
                timings[task],
                timings["bare"],
                at_most=LIMITS[MODEL][task].get(min(shape[1], 128)),
            )


def efficient(turns: int) -> Rows:
    """Efficient rows of all heads of one layer of a BERT-base, and of one head against PyTorch on the same GPU."""
    attention, values = (tensor.to(DEVICE) for tensor in first_layer(TOKENS))
    result, head = solve(attention, values, "auto"), (attention[:1], values[:1])
    gap = float((result.attention[:1] - solve(*head, "torch").attention).abs().max())
    check(bool(result.optimal.all()) and gap <= 1e-6, f"efficient rows differ by {gap:.1e} from PyTorch's")
    tasks: dict[str, Callable[[], Any]] = {
        "layer": lambda: solve(attention, values, "auto"),
        "head": lambda: solve(*head, "auto"),
        "torch": lambda: solve(*head, "torch"),
    }
    timings = time_in_turns(tasks, turns)
    what = f"efficient rows of {attention.shape[0]} heads of a BERT-base, {TOKENS} tokens"
    yield measured("efficient rows on a GPU/one layer", what, timings["layer"], backend=result.backend)
    yield measured(
        "efficient rows on a GPU/one head and PyTorch",
        "one head: the backend of auto against PyTorch on the same GPU",
        timings["head"],
        timings["torch"],
        faster=True,
        largest_difference=gap,
    )


PARTS: dict[str, Callable[[int], Rows]] = {
    "attention": attention,
    "received": received,
    "neighbors": neighbors,
    "moments": moments,
    "explain": explained,
    "efficient": efficient,
}


def run_and_free(part: Callable[[int], Rows], turns: int) -> Rows:
    """Run a part, then free the memory that PyTorch keeps on the GPU."""
    yield from part(turns)
    torch.cuda.empty_cache()


def main() -> int:
    """Run the parts, print and write the rows; the exit status is 1 where a check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU: nothing measured")
        return 0
    torch.backends.cuda.matmul.allow_tf32 = False
    parts = [(name, partial(run_and_free, PARTS[name], options.turns), [1]) for name in options.parts]
    _, failures = run_parts(parts, options.output)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
