"""What becomes of the prediction when keys of the efficient rows are removed, in all layers and heads at once?

Efficient rows (docs/methods/certificates.md) take the place of attention; then the smallest, the largest or a random
key of each row goes, or all but the k largest ones, and the row is scaled to its sum. A row with one key keeps it. A
line of JSON for each input and removal; what is there already is not run again.

    S=benchmarks/studies/causal/efficient_keys.py
    python $S --data DATA --models MODELS --output RESULTS --inputs 30      # start or continue
    python $S --output RESULTS --table                                      # shares of kept predictions
    python $S --quick                                                       # embedded model, two texts
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[3])  # `benchmarks` is imported as a package

import torch
from torch import Tensor

from benchmarks.common import append_row, provenance, read_rows
from benchmarks.studies.causal.suites import SUITES, load_suite
from hf_attn_mi.attention import efficient_attention
from hf_attn_mi.capture import AttentionCall, capture_attention
from hf_attn_mi.tasks.row_replacement import read_rows as rows_of

KEPT_LARGEST = (1, 2, 4, 8)


def without_smallest(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Rows without their smallest weight."""
    place = rows.where(rows > 0, torch.full_like(rows, torch.inf)).argmin(-1, keepdim=True)
    return rows.scatter(-1, place, 0.0)


def without_largest(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Rows without their largest weight."""
    return rows.scatter(-1, rows.argmax(-1, keepdim=True), 0.0)


def without_random(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Rows without one of their weights, drawn at random."""
    draw = torch.rand(rows.shape, generator=generator).to(rows.device)
    return rows.scatter(-1, draw.where(rows > 0, -torch.ones_like(draw)).argmax(-1, keepdim=True), 0.0)


def only_largest(rows: Tensor, generator: torch.Generator, *, count: int) -> Tensor:
    """Rows of which only the largest weights are left."""
    top = rows.topk(min(count, rows.shape[-1]), dim=-1)
    return torch.zeros_like(rows).scatter(-1, top.indices, top.values)


REMOVALS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "nothing": lambda rows, generator: rows,
    "the smallest": without_smallest,
    "the largest": without_largest,
    "a random one": without_random,
    **{f"all but the {k} largest": partial(only_largest, count=k) for k in KEPT_LARGEST},
}


def removed(call: AttentionCall, removal: str, seed: int) -> Tensor:
    """Efficient rows of this call without some of their keys, scaled to the sums of the model's rows."""
    own = rows_of(call)
    efficient = efficient_attention(own.rows, own.values, own.mask).attention.to(own.rows.dtype)
    left = REMOVALS[removal](efficient, torch.Generator().manual_seed(seed + call.index))
    sums = left.sum(-1, keepdim=True)
    left = torch.where(sums > 0, left / sums.clamp_min(1e-30), efficient)  # a row with one key keeps it
    return (left * own.rows.sum(-1, keepdim=True)).view(own.shape)


def run_suite(name: str, options: argparse.Namespace, output: Path) -> None:
    """Run what is missing of one data set."""
    suite = load_suite(name, options.data, options.models)
    model = suite.model
    there = {(row["suite"], row["input"], row["removal"]) for row in read_rows(output)}
    for number in suite.order[: options.inputs]:
        inputs = suite.inputs(number)
        for removal in REMOVALS:
            if (name, number, removal) in there:
                continue
            with torch.no_grad():
                own = model(**inputs).logits[0].softmax(-1)
                replace = partial(removed, removal=removal, seed=number)
                with capture_attention(model, lambda call: None, replace=replace):
                    new = model(**inputs).logits[0].softmax(-1)
            chosen = int(own.argmax())
            row = {"suite": name, "input": number, "removal": removal, "tokens": inputs["input_ids"].shape[1]}
            row |= {"kept": int(new.argmax()) == chosen, "p": float(own[chosen]), "p_new": float(new[chosen])}
            append_row({**row, **provenance()}, output)


def table_of(rows: list[dict[str, Any]]) -> str:
    """Share of kept predictions and mean change of the probability, by data set and removal."""
    lines = ["| data | removed | inputs | prediction kept | mean change of p |", "|---|---|---|---|---|"]
    for suite, removal in dict.fromkeys((row["suite"], row["removal"]) for row in rows):
        mine = [row for row in rows if (row["suite"], row["removal"]) == (suite, removal)]
        kept = sum(row["kept"] for row in mine) / len(mine)
        change = statistics.mean(row["p_new"] - row["p"] for row in mine)
        lines.append(f"| {suite} | {removal} | {len(mine)} | {kept:.0%} | {change:+.3f} |")
    return "\n".join(lines)


def main() -> None:
    """Run the study, or print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--models", type=Path, nargs="*", default=[])
    parser.add_argument("--output", type=Path, help="folder of the results")
    parser.add_argument("--suites", nargs="*", default=list(SUITES))
    parser.add_argument("--inputs", type=int, default=30)
    parser.add_argument("--table", action="store_true", help="print the table of what is there")
    parser.add_argument("--quick", action="store_true", help="the embedded model and two texts")
    options = parser.parse_args()
    suites = ["quick"] if options.quick else options.suites
    with tempfile.TemporaryDirectory() as folder:
        output = (options.output or Path(folder)) / "efficient_keys.jsonl"
        for suite in suites if not options.table else ():
            run_suite(suite, options, output)
        print(table_of(read_rows(output)))


if __name__ == "__main__":
    main()
