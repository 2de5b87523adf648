"""Attention statistics and effective attention against implementations by singular value decomposition.

python benchmarks/speed/kernels.py            # writes benchmarks/speed/results/kernels.jsonl
python benchmarks/speed/kernels.py --quick    # short lengths and one turn, writes only where --output says
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # `benchmarks` is imported as a package

import torch
from torch import Tensor

from benchmarks.common import Row, check, result_row, run_parts, time_in_turns
from hf_attn_mi.attention import effective_attention
from hf_attn_mi.kernels import attention_statistics, received_weights

RESULTS = Path(__file__).parent / "results" / "kernels.jsonl"
HEADS, LENGTH, WIDTH = 12, 512, 64
CAUSAL_HEADS, CAUSAL_LENGTH = 2, 256  # sizes at which the peers take seconds
LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384)


def main() -> int:
    """Run the parts, print and write the rows; the exit status is 1 where a check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--longest", type=int, default=LENGTHS[-1], help="longest text of the growth table")
    parser.add_argument("--peak", nargs=2, metavar=("LENGTH", "FORM"), help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="short lengths, one turn")
    parser.add_argument("--output", type=Path, help="default results/kernels.jsonl; none with --quick")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        peak(int(options.peak[0]), options.peak[1])
        return 0
    longest, turns = (LENGTHS[0], 1) if options.quick else (options.longest, options.turns)
    lengths = [length for length in LENGTHS if length <= longest]
    parts = {
        "effective": partial(effective_rows, turns),
        "causal": partial(causal_rows, turns),
        "growth": partial(growth, turns, lengths),
    }
    output = options.output or (None if options.quick else RESULTS)
    _, failures = run_parts([(name, part, [1]) for name, part in parts.items()], output)
    return int(failures > 0)


def draw(length: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query, key, value and output of 12 heads, float32; values with a power-law spectrum."""
    generator = torch.Generator().manual_seed(seed)
    query, key, value = torch.randn(3, 1, HEADS, length, WIDTH, generator=generator)
    value = value * torch.arange(1, WIDTH + 1) ** -0.5
    return query, key, value, torch.nn.functional.scaled_dot_product_attention(query, key, value)


def project_out_null_space(rows: Tensor, basis_of: Tensor) -> Tensor:
    """Return A minus its part in the left null space, by a full singular value decomposition (Brunner et al.)."""
    left, spectrum, _ = torch.linalg.svd(basis_of, full_matrices=True)
    rank = int((spectrum[..., 0, :] > spectrum.amax() * LENGTH * 1.2e-7).sum(-1).max())
    null = left[..., rank:]
    return rows - (rows @ null) @ null.transpose(-1, -2)


def received_by_svd(output: Tensor, value: Tensor) -> Tensor:
    """Received effective weight through the pseudo-inverse of V (its thin singular value decomposition)."""
    left, spectrum, right = torch.linalg.svd(value, full_matrices=False)
    return (
        (output.mean(-2, keepdim=True) @ right.transpose(-1, -2)) / spectrum[..., None, :] @ left.transpose(-1, -2)
    )[..., 0, :]


def received_alone(value: Tensor, output: Tensor) -> Tensor:
    """Received effective weights from values and outputs, every token real."""
    real = torch.ones(1, value.shape[2], dtype=torch.bool)
    return received_weights(output, value, real, real)


def effective_rows(turns: int) -> list[Row]:
    """Effective attention rows, and received weights alone."""
    query, key, value, output = draw(LENGTH)
    rows = (query @ key.transpose(-1, -2) / WIDTH**0.5).softmax(-1)
    weight = torch.randn(HEADS, WIDTH, 768, generator=torch.Generator().manual_seed(1)) / WIDTH**0.5
    exact = effective_attention(rows.double(), value.double()).attention
    scale = exact.abs().max()
    for name, result in (
        ("ours", effective_attention(rows, value).attention),
        ("ours from the output", effective_attention(rows, value, outputs=output).attention),
        ("by V", project_out_null_space(rows, value)),
        ("by V W_O", project_out_null_space(rows, value @ weight)),
    ):
        check(float((result - exact).abs().max() / scale) < 1e-3, f"effective attention {name} differs from float64")

    def ours() -> Tensor:
        return received_alone(value, output)

    received = exact.mean(-2)
    for name, weights in (("ours", ours()), ("by SVD", received_by_svd(output, value))):
        check(float((weights - received).abs().max() / received.abs().max()) < 1e-3, f"received weight {name}")
    times = time_in_turns(
        {
            "ours": lambda: effective_attention(rows, value, outputs=output),
            "alone": lambda: effective_attention(rows, value),
            "V": lambda: project_out_null_space(rows, value),
            "V W_O": lambda: project_out_null_space(rows, value @ weight),
            "received": ours,
            "received SVD": lambda: received_by_svd(output, value),
            "received rows SVD": lambda: project_out_null_space(rows, value).mean(-2),
        },
        turns,
    )
    shape = f"{HEADS} heads, n = {LENGTH}, d = {WIDTH}, float32"
    return [
        result_row(
            "effective/null space of V",
            f"effective rows from the head's output against the null space by full SVD of V; {shape}",
            times["ours"],
            times["V"],
            faster=True,
            at_least=8,
        ),
        result_row(
            "effective/null space of V W_O",
            f"the same against the full SVD of V W_O (768 wide); {shape}",
            times["ours"],
            times["V W_O"],
            faster=True,
            at_least=60,
        ),
        result_row(
            "effective/rows alone, null space of V",
            f"effective rows without the output; {shape}",
            times["alone"],
            times["V"],
            faster=True,
        ),
        result_row(
            "effective/rows alone, null space of V W_O",
            f"the same against the full SVD of V W_O; {shape}",
            times["alone"],
            times["V W_O"],
            faster=True,
        ),
        result_row(
            "received/null space of V",
            f"received weights alone against rows through the full SVD of V; {shape}",
            times["received"],
            times["received rows SVD"],
            faster=True,
            at_least=100,
        ),
        result_row(
            "received/thin SVD",
            f"received weights alone against the thin SVD of V, itself without rows; {shape}",
            times["received"],
            times["received SVD"],
            faster=True,
        ),
    ]


def causal_inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Causal rows, values, and the keys that each row may attend to."""
    query, key, value, _ = draw(CAUSAL_LENGTH)
    query, key, value = query[0, :CAUSAL_HEADS], key[0, :CAUSAL_HEADS], value[0, :CAUSAL_HEADS]
    allowed = torch.ones(CAUSAL_LENGTH, CAUSAL_LENGTH, dtype=torch.bool).tril()
    logits = (query @ key.transpose(-1, -2) / WIDTH**0.5).masked_fill(~allowed, -torch.inf)
    return logits.softmax(-1), value, allowed


def rows_by_svd(rows: Tensor, value: Tensor, allowed: Tensor) -> Tensor:
    """Each row times the projector on the column space of its own values, from their thin decomposition."""
    projected = []
    for head, values in zip(rows, value):
        visible = values * allowed[..., None]  # (queries, keys, head_dim)
        left, spectrum, _ = torch.linalg.svd(visible, full_matrices=False)
        left = left * (spectrum > spectrum[:, :1] * LENGTH * 1.2e-7)[:, None, :]
        projected.append(((head[:, None] @ left) @ left.transpose(1, 2))[:, 0])
    return torch.stack(projected)


def rows_by_least_squares(rows: Tensor, value: Tensor, allowed: Tensor) -> Tensor:
    """Each row as the shortest solution of V^T b = o (LAPACK's gelsd), V the values of its own keys."""
    projected = []
    for head, values in zip(rows, value):
        visible = (values * allowed[..., None]).transpose(1, 2)
        projected.append(
            torch.linalg.lstsq(visible, (head @ values)[..., None], rcond=1e-6, driver="gelsd").solution[..., 0]
        )
    return torch.stack(projected)


def causal_rows(turns: int) -> list[Row]:
    """Effective attention rows where every row has its own keys, and so its own projector."""
    rows, value, allowed = causal_inputs()
    mask = allowed.expand(CAUSAL_HEADS, CAUSAL_LENGTH, CAUSAL_LENGTH)

    def ours() -> Tensor:
        return effective_attention(rows, value, mask).attention

    exact = rows_by_svd(rows.double(), value.double(), allowed)
    # Rows with about as many keys as dimensions can have values of any condition number; float32 peers lose them.
    late = slice(2 * WIDTH, None)
    for name, result in (
        ("ours", ours()),
        ("by thin SVD", rows_by_svd(rows, value, allowed)),
        ("by least squares", rows_by_least_squares(rows, value, allowed)),
    ):
        error = float((result - exact)[:, late].abs().max() / exact.abs().max())
        check(error < 1e-3, f"causal effective attention {name} differs from float64 by {error:.1e}")
    check(float((ours() - exact).abs().max()) < 1e-3, "causal effective attention differs from float64 in early rows")
    times = time_in_turns(
        {
            "ours": ours,
            "svd": lambda: rows_by_svd(rows, value, allowed),
            "lstsq": lambda: rows_by_least_squares(rows, value, allowed),
        },
        turns,
    )
    shape = f"{CAUSAL_HEADS} heads, n = {CAUSAL_LENGTH}, d = {WIDTH}, float32"
    return [
        result_row(
            "effective/causal, thin SVD",
            f"causal effective rows against a thin SVD a row; {shape}",
            times["ours"],
            times["svd"],
            faster=True,
        ),
        result_row(
            "effective/causal, least squares",
            f"causal effective rows against torch.linalg.lstsq, gelsd; {shape}",
            times["ours"],
            times["lstsq"],
            faster=True,
        ),
    ]


def growth(turns: int, lengths: list[int]) -> list[Row]:
    """Time of the pass over SDPA of the same shape, and what the process grows by, as the text grows."""
    rows: list[Row] = []
    for length in lengths:
        query, key, value, output = draw(length)
        times = time_in_turns(
            {
                "alone": lambda: received_alone(value, output),  # noqa: B023
                "all": lambda: attention_statistics(query, key, value, output),  # noqa: B023
                "sdpa": lambda: torch.nn.functional.scaled_dot_product_attention(query, key, value),  # noqa: B023
            },
            turns if length <= 1024 else 2 if length <= 4096 else 1,
            warmed_up=length > 4096,
        )
        base = peak_of(length, "inputs")
        for name, what, seconds in (
            ("received", "received effective weights alone", times["alone"]),
            ("all", "all statistics", times["all"]),
        ):
            rows.append(
                result_row(f"growth/{name} {length}", f"{what} over SDPA, n = {length}", seconds, times["sdpa"])
            )
            added = max(0, peak_of(length, name) - base) / 2**20
            inputs, matrix = 4 * HEADS * length * WIDTH * 4 / 2**20, 4 * HEADS * length**2 / 2**20
            rows.append(
                result_row(
                    f"growth in memory/{name} {length} (inputs {inputs:,.0f}, the matrix {matrix:,.0f} MiB)",
                    f"what the process grows by for {what}, n = {length}",
                    [added],
                    unit="MiB",
                    inputs_mib=inputs,
                    matrix_mib=matrix,
                )
            )
    return rows


def peak_of(length: int, form: str) -> int:
    """Peak resident bytes of a process that does this and no more."""
    command = [sys.executable, __file__, "--peak", str(length), form]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def peak(length: int, form: str) -> None:
    """Print the peak resident bytes of this process: "inputs" alone, "received" or "all"."""
    for size in (128, length):  # the first time loads libraries
        query, key, value, output = draw(size)
        if form == "received" or size == 128:
            received_alone(value, output)
        if form == "all" or size == 128:
            attention_statistics(query, key, value, output)
    # Not ru_maxrss: a child starts with its parent's.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    print(1024 * int(status.partition("VmHWM:")[2].split()[0]))


if __name__ == "__main__":
    sys.exit(main())
