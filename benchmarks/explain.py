"""What `explain`, capture and import cost, against a plain forward pass, Captum and `output_attentions`.

    python benchmarks/explain.py            # all of it, writes benchmarks/results/explain.jsonl
    python benchmarks/explain.py --quick    # small shapes and two turns, writes only where --output says

Correctness is checked first; a part with a red check gets a line that says so and no figure.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from against_captum import against_captum
from bench import Bench, Rows
from costs import efficient_encoder, imports, peak_memory
from materials import load, load_tokenizer, model_folder, read_texts
from measuring import ROOT, RedCheck, line, provenance, write
from over_forward import first_use, layer_statistics, over_forward

PARTS: dict[str, tuple[Callable[[Bench], Rows], bool]] = {  # and whether the number of threads matters
    "forward": (over_forward, True),
    "first": (first_use, True),
    "statistics": (layer_statistics, True),
    "captum": (against_captum, True),
    "efficient": (efficient_encoder, True),
    "memory": (peak_memory, False),
    "import": (imports, False),
}


def main() -> int:
    """Run the parts, print and write the rows; 1 if a check was red."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a BERT-like classifier with its tokenizer")
    parser.add_argument("--data", type=Path, help="jsonl.gz with a field text")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--turns", type=int, default=7, help="most turns of a part (default 7)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="small shapes, two turns")
    parser.add_argument("--output", type=Path, help="default results/explain.jsonl here; none with --quick or --parts")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.turns = min(arguments.turns, 2)
    elif arguments.output is None and set(arguments.parts) == set(PARTS):
        arguments.output = ROOT / "benchmarks" / "results" / "explain.jsonl"
    arguments.model = model_folder(arguments.model)
    bench = Bench(load(arguments.model), load_tokenizer(arguments.model), read_texts(arguments.data, 200), arguments)
    rows, red = [], 0
    for part in arguments.parts:
        run, threaded = PARTS[part]
        for threads in arguments.threads if threaded else [1]:
            torch.set_num_threads(threads)
            try:
                for result in run(bench):
                    rows.append({**result, "model": arguments.model.name})
                    print(line(result), flush=True)
            except RedCheck as reason:
                red += 1
                rows.append({"name": f"{part}/red", "red": str(reason), "threads": threads, **provenance()})
                print(f"{part}: RED, no figure: {reason}", flush=True)
            if arguments.output is not None:
                write(rows, arguments.output)
    return int(red > 0)


if __name__ == "__main__":
    sys.exit(main())
