"""Attention statistics without the matrix, against the ways through a singular value decomposition.

python benchmarks/kernels.py                 # writes benchmarks/results/kernels.jsonl
python benchmarks/kernels.py --turns 3 --output out/kernels.jsonl
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from measuring import ROOT, RedCheck, check, in_turns, line, row, write
from torch import Tensor

from hf_attn_mi.attention import effective_attention
from hf_attn_mi.kernels import analyse

HEADS, LENGTH, WIDTH = 12, 512, 64


def main() -> int:
    """Measure, print and write; 1 where a check was red."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "kernels.jsonl")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        rows = effective_rows(options.turns) + growth(options.turns)
    except RedCheck as red:
        print(f"RED: {red}; no figure is given", file=sys.stderr)
        return 1
    for item in rows:
        print(line(item))
    write(rows, options.output)
    return 0


def draw(length: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query, key, value and output of 12 heads, float32; values with a power-law spectrum."""
    generator = torch.Generator().manual_seed(seed)
    query, key, value = torch.randn(3, 1, HEADS, length, WIDTH, generator=generator)
    value = value * torch.arange(1, WIDTH + 1) ** -0.5
    return query, key, value, torch.nn.functional.scaled_dot_product_attention(query, key, value)


def by_null_space(rows: Tensor, basis_of: Tensor) -> Tensor:
    """A minus its part in the left null space, from a full singular value decomposition (Brunner et al.)."""
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


def effective_rows(turns: int) -> list[dict[str, object]]:
    """Effective attention rows, and received weights alone."""
    query, key, value, output = draw(LENGTH)
    rows = (query @ key.transpose(-1, -2) / WIDTH**0.5).softmax(-1)
    weight = torch.randn(HEADS, WIDTH, 768, generator=torch.Generator().manual_seed(1)) / WIDTH**0.5
    exact = effective_attention(rows.double(), value.double()).attention
    scale = exact.abs().max()
    for name, found in (
        ("ours", effective_attention(rows, value).attention),
        ("by V", by_null_space(rows, value)),
        ("by V W_O", by_null_space(rows, value @ weight)),
    ):
        check(float((found - exact).abs().max() / scale) < 1e-3, f"effective attention {name} differs from float64")

    def ours() -> Tensor:
        return analyse(None, None, value, output, statistics="received").received_effective

    received = exact.mean(-2)
    for name, weights in (("ours", ours()), ("by SVD", received_by_svd(output, value))):
        check(float((weights - received).abs().max() / received.abs().max()) < 1e-3, f"received weight {name}")
    times = in_turns(
        {
            "ours": lambda: effective_attention(rows, value),
            "V": lambda: by_null_space(rows, value),
            "V W_O": lambda: by_null_space(rows, value @ weight),
            "received": ours,
            "received SVD": lambda: received_by_svd(output, value),
            "received rows SVD": lambda: by_null_space(rows, value).mean(-2),
        },
        turns,
    )
    shape = f"{HEADS} heads, n = {LENGTH}, d = {WIDTH}, float32"
    return [
        row("effective/null space of V", f"effective attention rows against the null space by full SVD of V; {shape}",
            times["ours"], times["V"], faster=True, at_least=8),
        row("effective/null space of V W_O", f"the same against the full SVD of V W_O (768 wide); {shape}",
            times["ours"], times["V W_O"], faster=True, at_least=60),
        row("received/null space of V", f"received weights alone against rows through the full SVD of V; {shape}",
            times["received"], times["received rows SVD"], faster=True, at_least=100),
        row("received/thin SVD", f"received weights alone against the thin SVD of V, itself without rows; {shape}",
            times["received"], times["received SVD"], faster=True),
    ]  # fmt: skip


def growth(turns: int) -> list[dict[str, object]]:
    """Time of the pass over SDPA of the same shape, as the text grows."""
    found = []
    for length in (128, 256, 512, 1024, 2048, 4096):
        query, key, value, output = draw(length)
        times = in_turns(
            {
                "alone": lambda: analyse(None, None, value, output, statistics="received"),  # noqa: B023
                "all": lambda: analyse(query, key, value, output),  # noqa: B023
                "sdpa": lambda: torch.nn.functional.scaled_dot_product_attention(query, key, value),  # noqa: B023
            },
            turns if length <= 1024 else 2,
        )
        found.append(row(f"growth/received {length}", f"received effective weights alone over SDPA, n = {length}",
                         times["alone"], times["sdpa"]))  # fmt: skip
        found.append(
            row(f"growth/all {length}", f"all statistics over SDPA, n = {length}", times["all"], times["sdpa"])
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
