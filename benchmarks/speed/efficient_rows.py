"""Efficient rows against SciPy's HiGHS: the same vertex first, then the time a row, in turns in one run.

Real rows: all heads of a pre-trained encoder on one film review, computed in float32 and passed on in float64.
Synthetic rows: unrelated ones, values with a power-law spectrum. Both sides get the same cost, the row with the second
cost that breaks ties, so that the optimum is one vertex and can be compared.

    python benchmarks/speed/efficient_rows.py            # writes benchmarks/speed/results/efficient_rows.jsonl
    python benchmarks/speed/efficient_rows.py --quick    # few rows and one turn, writes only where --output says

On a GPU instead: 73,728 unrelated rows, as many as 12 layers of 12 heads have on 512 tokens. HiGHS runs on the
processor of the same machine.

    python benchmarks/speed/efficient_rows.py --backend triton
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # `benchmarks` is imported as a package

import numpy as np
import torch
import transformers
from scipy.optimize import linprog
from torch import Tensor

from benchmarks.common import Row, check, cpu_seconds_in_turns, result_row, run_parts, seconds_of
from benchmarks.inputs import cut_texts, load_tokenizer, packaged_encoder, read_texts
from benchmarks.speed.excess import timed
from hf_attn_mi import attention_maps
from hf_attn_mi.attention import efficient_attention
from hf_attn_mi.kernels.efficient import operation, problems

PARTS = ("real", "unrelated", "many", "encoder", "processor", "layer", "small")
ENCODER = (512, 12)  # tokens and layers of the whole encoder
LARGEST_RESIDUAL = 1e-5  # of an encoder in float32
TIE = 1e-7  # the second cost of efficient_attention
TIGHT = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}  # timed with its defaults
Rows = Iterator[Row]
RESULTS = Path(__file__).parent / "results"


def real_heads(tokens: int = 186) -> tuple[Tensor, Tensor]:
    """Attention (heads, tokens, tokens) and values (heads, tokens, head_dim) of every head of the encoder."""
    folder = packaged_encoder()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    tokenizer = load_tokenizer(folder)
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    ids = cut_texts(read_texts(None, 50), tokenizer, 1, tokens)[0]
    values: list[Tensor] = []
    for layer in model.encoder.layer:
        layer.attention.self.value.register_forward_hook(lambda module, args, output: values.append(output))
    with torch.no_grad():
        attention = torch.cat(model(ids, output_attentions=True).attentions)
    split = torch.cat(values).unflatten(-1, (attention.shape[1], -1)).transpose(1, 2)
    return attention.flatten(0, 1).double(), split.flatten(0, 1).double()


def random_heads(heads: int, queries: int, keys: int = 512, dim: int = 64) -> tuple[Tensor, Tensor]:
    """Unrelated rows softmax(3 randn) and values with a power-law spectrum in a random basis."""
    draw = torch.Generator().manual_seed(1)
    attention = (3 * torch.randn(heads, queries, keys, generator=draw, dtype=torch.float64)).softmax(-1)
    sizes = torch.arange(1, dim + 1, dtype=torch.float64) ** -0.7
    values = torch.randn(heads, keys, dim, generator=draw, dtype=torch.float64) * sizes
    turn = torch.linalg.qr(torch.randn(heads, dim, dim, generator=draw, dtype=torch.float64))[0]
    return attention, values @ turn


def costs(attention: Tensor) -> np.ndarray:
    """The cost that efficient_attention maximizes, a row each."""
    keys = attention.shape[-1]
    number = torch.arange(keys, dtype=torch.float64)
    rising = (number + (number * 0.6180339887498949).frac()) / keys
    return (attention / attention.amax(-1, keepdim=True) - TIE * rising).numpy()


def highs(cost: np.ndarray, values: np.ndarray, row: np.ndarray, **options: float) -> np.ndarray:
    """The peer: one linear program, dual simplex."""
    matrix = np.vstack([values.T, np.ones(len(values))])
    answer = linprog(-cost, A_eq=matrix, b_eq=matrix @ row, bounds=(0, None), method="highs-ds", options=options)
    check(answer.status == 0, f"HiGHS: {answer.message}")
    return np.asarray(answer.x)


def solve(attention: Tensor, values: Tensor, backend: str) -> Any:
    """Run this package's solver, and wait for the GPU."""
    result = efficient_attention(attention, values, backend=backend)
    if attention.is_cuda:
        torch.cuda.synchronize()
    return result


def to_device(backend: str, *tensors: Tensor) -> list[Tensor]:
    """Move the tensors to where the backend computes."""
    return [tensor.to("cuda" if backend == "triton" else "cpu") for tensor in tensors]


def compare(attention: Tensor, values: Tensor, result: Any, positions: list[int]) -> Row:
    """Compare the results with HiGHS on these rows (numbers below heads * queries)."""
    queries = attention.shape[1]
    attention = attention / attention.sum(-1, keepdim=True)
    cost, dim = costs(attention), values.shape[-1]
    same, borderline, unique, worst, better, moved = 0, 0, 0, 0.0, 0.0, 0.0
    for position in positions:
        head, query = divmod(position, queries)
        ours = result.attention[head, query].numpy()
        peer = highs(cost[head, query], values[head].numpy(), attention[head, query].numpy(), **TIGHT)
        best = float(cost[head, query] @ peer)
        loss = (best - float(cost[head, query] @ ours)) / abs(best)
        worst, better = max(worst, loss), min(better, loss)
        # HiGHS calls a reduced cost of 1e-10 zero, so its vertex is only the optimum's where the gap is larger.
        if float(result.gap[head, query]) > 1e-9:
            unique += 1
            differ = (ours > 1e-9) != (peer > 1e-9)
            same += not differ.any()
            # A weight that is itself of the order of 1e-9 is below what HiGHS resolves, which is 1e-10 in the values.
            borderline += bool(differ.any() and np.maximum(ours, peer)[differ].max() < 1e-8)
            moved = max(moved, float(abs(ours - peer).sum() / 2))
    figures = {
        "rows": len(positions),
        "unique": unique,
        "same_support": same,
        "borderline_support": borderline,
        "objective_below_highs": worst,
        "objective_above_highs": -better,
        "most_moved": moved,
        "all_rows": result.gap.numel(),
        "certified": int(result.optimal.sum()),
        "largest_residual": float(result.residual.max()),
        "row_sums_off": float((result.attention.sum(-1) - 1).abs().max()),
        "largest_support": int(result.support_size.max()),
        "smallest_gap": float(result.gap.min()),
    }
    check(figures["certified"] == figures["all_rows"], f"rows without certificate: {figures}")
    check(worst <= 1e-9, f"objective below HiGHS: {figures}")
    exact = figures["largest_residual"] <= 1e-9 and figures["row_sums_off"] <= 1e-9
    check(exact, f"not the same output: {figures}")
    check(figures["largest_support"] <= dim + 1, f"support: {figures}")
    check(same + borderline == unique, f"another support where the optimum is unique: {figures}")
    return figures


def measure(
    name: str, attention: Tensor, values: Tensor, backend: str, *, what: str, turns: int, sample: int, **targets: Any
) -> Row:
    """Time this package on all rows and HiGHS on a sample of rows, in turns; seconds a row."""
    rng = torch.Generator().manual_seed(2)
    cost, queries = costs(attention), attention.shape[1]
    count = attention.shape[0] * queries
    inputs = to_device(backend, attention, values)

    def peer() -> None:
        for position in torch.randperm(count, generator=rng)[:sample].tolist():
            head, query = divmod(position, queries)
            highs(cost[head, query], values[head].numpy(), attention[head, query].numpy())

    solve(*(tensor[:1] for tensor in inputs), backend)  # compiles
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    for turn in range(turns):
        for side in list(seconds)[:: -1 if turn % 2 else 1]:
            task, rows = (lambda: solve(*inputs, backend), count) if side == "ours" else (peer, sample)
            seconds[side].append(seconds_of(task) / rows)
    return result_row(
        name,
        what,
        seconds["ours"],
        seconds["peer"],
        unit="s a row",
        faster=True,
        backend=backend,
        peer_rows_a_turn=sample,
        rows_a_turn=count,
        **targets,
    )


def solver_versions() -> dict[str, str]:
    """Versions of the peer and of the compilers, and the GPU."""
    versions = {"scipy": version("scipy")}
    for package in ("numba", "triton"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {**versions, **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {})}


def check_and_measure(
    kind: str, backend: str, attention: Tensor, values: Tensor, *, checked_rows: int, peer_rows: int, **options: Any
) -> Rows:
    """Compare a backend with HiGHS on some rows, then time both; the torch backend on a sixth of the heads."""
    result = solve(*to_device(backend, attention, values), backend)
    tensors = {field.name: getattr(result, field.name) for field in fields(result) if field.name != "backend"}
    result = replace(result, **{name: tensor.cpu() for name, tensor in tensors.items()})
    order = torch.randperm(result.gap.numel(), generator=torch.Generator().manual_seed(0))
    agreement = compare(attention, values, result, order[:checked_rows].tolist())
    part = slice(None, None, 6) if backend == "torch" else slice(None)
    row = measure(f"rows/{kind} ({backend})", attention[part], values[part], backend, sample=peer_rows, **options)
    yield {**row, "solvers": solver_versions(), "check": agreement}


def random_encoder(tokens: int, layers: int) -> tuple[Any, Tensor]:
    """An encoder with the shapes of BERT-base and ids; rows of random weights are unrelated and nearly uniform."""
    torch.manual_seed(0)
    config = transformers.BertConfig(num_hidden_layers=layers, vocab_size=1000)
    ids = torch.randint(3, 1000, (1, tokens), generator=torch.Generator().manual_seed(1))
    return transformers.BertModel(config).eval(), ids


def whole_encoder(tokens: int, layers: int, clock: bool) -> Rows:
    """Time efficient attention of every layer and head of an encoder with the shapes of BERT-base.

    Args:
        tokens: of the input.
        layers: of the encoder.
        clock: measure seconds on the clock; else those of the processor, which other programs change less.
    """
    model, ids = random_encoder(tokens, layers)
    attention_maps(model, {"input_ids": ids[:, : tokens // 4]}, tokenizer=None)  # compiles
    found: list[Any] = []

    def run() -> None:
        found.append(attention_maps(model, {"input_ids": ids}, tokenizer=None))

    seconds = seconds_of(run) if clock else cpu_seconds_in_turns({"run": run}, 1)["run"][0]
    residual = max(float(values.max()) for values in found[0].residual)
    check(residual <= LARGEST_RESIDUAL, f"efficient attention misses its outputs: {residual:.1e}")
    for rows in found[0].matrices:
        valid = bool((rows >= 0).all()) and float((rows.sum(-1) - 1).abs().max()) <= LARGEST_RESIDUAL
        check(valid, "rows are not probability distributions")
    name = f"whole encoder/{layers} layers, {model.config.num_attention_heads} heads, {tokens} tokens"
    yield result_row(
        name + ("" if clock else ", processor seconds of all threads"),
        "attention_maps(kind='efficient') of an encoder with the shapes of BERT-base, random weights",
        [seconds],
        at_most=30.0 if clock and (tokens, layers) == ENCODER else None,
        residual=residual,
    )


def first_layer(tokens: int) -> tuple[Tensor, Tensor]:
    """Attention and values of the first layer of the random encoder, float32 as `attention_maps` passes them."""
    model, ids = random_encoder(tokens, 1)
    model.set_attn_implementation("eager")
    values: list[Tensor] = []
    model.encoder.layer[0].attention.self.value.register_forward_hook(lambda _, args, output: values.append(output))
    with torch.no_grad():
        attention = model(ids, output_attentions=True).attentions[0][0]
    return attention, values[0][0].view(tokens, attention.shape[0], -1).transpose(0, 1)


def parts_of_a_layer(tokens: int, turns: int) -> Rows:
    """Processor seconds of the parts of one layer: two threads together beside one thread."""
    attention, values = first_layer(tokens)
    places = {"points": ((problems, "value_points"),), "simplex": ((operation, "_solve"),)}
    named = {"points": "singular values of [V, 1]", "simplex": "simplex method"}
    found: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for turn in range(-1, turns):  # the first turn compiles
        for threads, column in found.items():
            torch.set_num_threads(threads)
            with timed(places) as seconds:
                whole = cpu_seconds_in_turns({"solve": lambda: solve(attention, values, "numba")}, 1)["solve"][0]
            if turn >= 0:
                column.append({**seconds, "rest": whole - sum(seconds.values())})
    for part in ("points", "simplex", "rest"):
        yield result_row(
            f"one layer in processor seconds/{named.get(part, 'the rest')}",
            f"a part of the efficient rows of {attention.shape[0]} heads, {tokens} tokens: two threads together, one",
            [one[part] for one in found[2]],
            [one[part] for one in found[1]],
        )


def small_call(turns: int) -> Rows:
    """Processor time a row of a call with one head, and of one with twelve, with the backend that "auto" takes."""
    attention, values = real_heads()
    heads = {"one head": 1, "twelve heads": 12}
    tasks: dict[str, Callable[[], Any]] = {
        name: partial(efficient_attention, attention[:count], values[:count]) for name, count in heads.items()
    }
    for name, task in tasks.items():  # compiles
        check(bool(task().optimal.all()), f"rows without certificate: {name}")
    seconds = cpu_seconds_in_turns(tasks, turns, calls=5)
    for name, count in heads.items():
        rows = count * attention.shape[1]
        yield result_row(
            f"small calls/{name}, {attention.shape[1]} rows each, d = {values.shape[2]}",
            "processor time a row, backend='auto' with numba installed, after the first call",
            [value / rows * 1e6 for value in seconds[name]],
            unit="µs a row",
            at_most=200 if count == 1 else None,
        )


def parts_of(arguments: argparse.Namespace) -> list[tuple[str, Callable[[], Rows], list[int]]]:
    """Return the parts: every kind of rows with every backend that runs here."""
    if arguments.backend == "triton":
        kinds = {"many": ("73,728 unrelated rows, n = 512, d = 64", random_heads(144, 512), 20.0, 20)}
        backends = ["triton"]
    else:
        unrelated = random_heads(math.ceil(arguments.rows / 512), 64 if arguments.quick else 512)
        kinds = {"unrelated": ("unrelated rows, n = 512, d = 64", unrelated, 20.0, 20)}
        if not arguments.quick:
            kinds = {"real": ("72 heads of a MiniLM encoder, n = 186, d = 32", real_heads(), 30.0, 100), **kinds}
        backends = ["numba", "torch"] if importlib.util.find_spec("numba") is not None else ["torch"]
    parts = []
    for kind, (what, (attention, values), target, peer_rows) in kinds.items():
        for backend in backends:
            part = partial(
                check_and_measure,
                kind,
                backend,
                attention,
                values,
                checked_rows=arguments.rows if backend == backends[0] else arguments.rows // 10,
                peer_rows=peer_rows,
                what=f"efficient rows against HiGHS: {what}",
                turns=arguments.turns,
                at_least=None if arguments.quick else 5.0 if backend == "torch" else target,
            )
            parts.append((f"{kind} ({backend})", part, [arguments.threads]))
    if arguments.backend is None:
        size = (64, 1) if arguments.quick else ENCODER
        threads = [1 if arguments.quick else 2]
        parts.append(("encoder", partial(whole_encoder, *size, True), threads))
        if not arguments.quick:
            parts.append(("processor", partial(whole_encoder, *size, False), threads))
            parts.append(("layer", partial(parts_of_a_layer, size[0], arguments.turns), threads))
            parts.append(("small", partial(small_call, arguments.turns), [1]))
    return [part for part in parts if arguments.parts is None or part[0].split()[0] in arguments.parts]


def main() -> int:
    """Check, measure and write the rows; the exit status is 1 where a check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000, help="rows of each kind to compare with HiGHS")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="default: all")
    parser.add_argument("--backend", choices=("triton",), help="run this GPU backend (default: all CPU backends)")
    parser.add_argument("--quick", action="store_true", help="few unrelated rows, one turn")
    parser.add_argument(
        "--output", type=Path, help="default results/efficient_rows[_gpu].jsonl; none with --quick or --parts"
    )
    arguments = parser.parse_args()
    on_gpu = arguments.backend == "triton"
    if on_gpu and not torch.cuda.is_available():
        print("efficient rows (triton): no GPU, nothing measured")
        return 0
    if arguments.quick:
        arguments.rows, arguments.turns = min(arguments.rows, 40), 1
    output = RESULTS / ("efficient_rows_gpu.jsonl" if on_gpu else "efficient_rows.jsonl")
    part = arguments.quick or arguments.parts is not None
    _, failures = run_parts(parts_of(arguments), arguments.output or (None if part else output))
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
