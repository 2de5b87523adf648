"""Faithfulness and plausibility of token scores: this package's methods, Captum's, and those of other packages.

    F=benchmarks/accuracy/faithfulness.py
    python $F                                                   # every part that is not in the results yet
    python $F --quick                                           # embedded model, 5 texts, seconds; writes nothing
    python $F --parts imdb --chunks 5                           # the next 25 reviews, then stop
    python $F --estimate                                        # seconds of each part, from 5 texts of each
    python $F --model NAME --data NAME:split --inputs 50        # any classifier and data set
    python $F --report docs/studies                             # write faithfulness.md from the results

Results are JSON lines of numbers, one for each chunk of inputs: an interrupted run continues where it stopped. What is
run on which data and model: benchmarks/studies/faithfulness. Other packages need environments of their own, which
benchmarks/studies/faithfulness/peers/*.py describe.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # `benchmarks` is imported as a package

import torch

from benchmarks.common import EMBEDDED_MODEL, ROOT, CheckFailed, Row, append_row, read_rows, write_rows
from benchmarks.inputs import load_classifier, load_tokenizer
from benchmarks.speed.against_captum import study_rows
from benchmarks.studies.faithfulness.data import DataSet, Inputs, folder_of, read_any_inputs
from benchmarks.studies.faithfulness.plan import (
    BEAM,
    MAIN_SETS,
    SHORT_INPUTS,
    TRAINED_SETS,
    Unit,
    inputs_of,
    pending_units,
    run_unit,
)
from benchmarks.studies.faithfulness.report import page, terminal
from benchmarks.studies.faithfulness.run import FAITHFUL, MAIN, NORMALIZED, PLAUSIBILITY, run

RESULTS = ROOT / "benchmarks" / "studies" / "faithfulness" / "results" / "faithfulness.jsonl"
CHECKS = RESULTS.with_name("authors.jsonl")
PARTS = (*MAIN_SETS, "imdb_256", "further", "rationales", "peers", "rankings", "speed")
GROUPS = ("main", "added", "masked", "costly", "normalized", "rankings", "starts", "judged", "sampled", BEAM)
QUICK_TEXTS = (  # texts with character spans of rationales
    ("A warm and quietly moving film.", [(2, 25)]),
    ("The plot is thin and the jokes are old.", [(12, 16), (35, 38)]),
    ("Nobody in it seems to know why they are there, and it is far too long.", [(57, 69)]),
    ("Two wonderful leads make it a joy to watch.", [(4, 13), (30, 33)]),
    ("It is dull.", [(6, 10)]),
)


def quick_rows() -> list[Row]:
    """Run the comparisons of the study on the embedded model and five texts."""
    texts, spans = [text for text, _ in QUICK_TEXTS], [span for _, span in QUICK_TEXTS]
    model, tokenizer = load_classifier(EMBEDDED_MODEL), load_tokenizer(EMBEDDED_MODEL)
    inputs = Inputs(model, tokenizer, texts, spans, None, str(EMBEDDED_MODEL))
    count, what = len(texts), "five sentences, the embedded model"
    dataset = DataSet("quick", str(EMBEDDED_MODEL), "", count, 64, True, count, what)
    methods = ("relevance", "integrated_gradients", "feature_ablation", "attention", "random")
    positions = tuple(range(count))
    rows = [
        run(dataset, inputs, positions, group="main", methods=methods, metrics=(*FAITHFUL, *PLAUSIBILITY)),
        run(dataset, inputs, positions, group="masked", methods=methods[:2], removal="attention_mask"),
        run(dataset, inputs, (0, 4), group="normalized", methods=methods, metrics=NORMALIZED),
    ]
    return [row | {"part": "quick", "judged": row["places"]} for row in rows]


def rows_of_any_model(arguments: argparse.Namespace) -> list[Row]:
    """Run the comparison for any classifier on any data set."""
    inputs = read_any_inputs(arguments.model, arguments.data, arguments.inputs, arguments.tokens)
    count = len(inputs.texts)
    name = Path(arguments.model).name
    dataset = DataSet(name, arguments.model, arguments.data, count, arguments.tokens, False, 25, "")
    methods = tuple(dict.fromkeys(("relevance", *arguments.methods))) if arguments.methods else MAIN
    rows = []
    for start in range(0, count, dataset.chunk):
        positions = range(start, min(start + dataset.chunk, count))
        row = run(dataset, inputs, positions, group="main", methods=methods)
        rows.append(row | {"part": "own", "judged": list(positions)})
        print(f"{positions.stop} of {count} inputs, {row['cpu_seconds']:.0f} s of CPU", flush=True)
    return rows


def chosen_units(part: str, rows: Sequence[Row], arguments: argparse.Namespace) -> list[Unit]:
    """Return the units of a part that are still to be run, of the chosen groups, and of the models that are there."""
    units = [u for u in pending_units(part, rows) if arguments.groups is None or u.group in arguments.groups]
    if part != "further":
        return units
    return [unit for unit in units if folder_of(unit.dataset, arguments.trained).exists()]


def print_estimates(rows: Sequence[Row], arguments: argparse.Namespace) -> None:
    """Print the remaining CPU time of each part, from 5 of its inputs (1 where methods are costly)."""
    for part in arguments.parts:
        remaining: dict[tuple[str, str], list[Unit]] = {}
        for unit in chosen_units(part, rows, arguments):
            remaining.setdefault((unit.dataset.name, unit.group), []).append(unit)
        for (name, group), units in remaining.items():
            if group == "peers" or (name in TRAINED_SETS and not (arguments.trained / name).exists()):
                print(f"{name:<12} {group:<10} not estimated", flush=True)
                continue
            inputs, first = inputs_of(name, arguments.trained), units[0]
            sample = range(1 if group == "costly" else 5)
            metrics = FAITHFUL if group == "normalized" else first.metrics
            options = {"methods": first.methods, "removal": first.removal, "metrics": metrics}
            seconds = run(first.dataset, inputs, sample, group=group, **options)["cpu_seconds"] / len(sample)
            count = sum(len(unit.positions) for unit in units)
            count = count or (SHORT_INPUTS if group == "normalized" else len(inputs.texts))
            figures = f"{count} inputs, {seconds:.1f} s each, {seconds * count / 60:.1f} min of CPU"
            print(f"{name:<12} {group:<10} {figures}", flush=True)


def run_missing(arguments: argparse.Namespace, rows: list[Row], output: Path) -> None:
    """Run what the results lack; every row is written before the next unit starts."""
    done = 0
    for part in arguments.parts:
        if part == "speed" and not any(row.get("part") == "speed" for row in rows):
            try:
                for row in study_rows(arguments.turns):
                    rows.append(row | {"kind": "speed", "part": "speed"})
                    append_row(rows[-1], output)
            except CheckFailed as reason:
                print(f"speed: check failed, no figure: {reason}", flush=True)
        while remaining := chosen_units(part, rows, arguments):
            if arguments.chunks is not None and done >= arguments.chunks:
                return
            for row in run_unit(remaining[0], arguments.trained, arguments.peers):
                rows.append(row)
                append_row(row, output)
                what = row.get("reason") or f"{row['cpu_seconds']} s of CPU"
                print(f"{part}: {row['set']} {row.get('group', row['kind'])}: {what}", flush=True)
            done += 1


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--groups", nargs="+", choices=GROUPS, help="run only these groups of the data sets")
    parser.add_argument("--chunks", type=int, help="stop after this many rows of results")
    parser.add_argument("--again", action="store_true", help="run the parts anew")
    parser.add_argument("--estimate", action="store_true", help="only print how long the parts would take")
    parser.add_argument("--quick", action="store_true", help="the embedded model on five texts")
    parser.add_argument("--output", type=Path, help="default: the results of the study")
    parser.add_argument("--report", type=Path, help="folder for faithfulness.md, from the results; runs nothing")
    parser.add_argument("--peers", type=Path, default=ROOT / "out" / "peers", help="environments, named as peers/*.py")
    parser.add_argument("--trained", type=Path, default=ROOT / "out" / "trained", help="folder of trained models")
    parser.add_argument("--turns", type=int, default=3, help="turns of the part speed")
    parser.add_argument("--model", help="any classifier, by Hub name or folder (with --data)")
    parser.add_argument("--data", help="a file, a folder saved by datasets, or a Hub name:split")
    parser.add_argument("--inputs", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--methods", nargs="+", help="methods, with --model (default: those that cost little)")
    arguments = parser.parse_args()
    if arguments.model and not arguments.data:
        parser.error("--model needs --data")
    return arguments


def main() -> int:
    """Run what is missing, write it row by row, print the tables."""
    arguments = parse()
    torch.set_num_threads(1)
    output = arguments.output or RESULTS
    if arguments.quick or arguments.model:
        rows = quick_rows() if arguments.quick else rows_of_any_model(arguments)
        print(terminal(rows))
        if arguments.output:
            for row in rows:
                append_row(row, output)
        return 0
    rows = read_rows(output)
    if arguments.report:
        arguments.report.mkdir(parents=True, exist_ok=True)
        text = page(rows, read_rows(CHECKS))
        (arguments.report / "faithfulness.md").write_text(text, encoding="utf-8")
        return 0
    if arguments.again:
        rows = [row for row in rows if row.get("part") not in arguments.parts]
        write_rows(rows, output)
    if arguments.estimate:
        print_estimates(rows, arguments)
        return 0
    run_missing(arguments, rows, output)
    print(terminal(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
