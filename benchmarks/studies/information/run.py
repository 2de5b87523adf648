"""Does attention keep information, and does its order follow information? The experiment behind arXiv 2211.07714.

Attention heads are trained on the cached states of a frozen encoder: {additive, deep, scaled dot product} x {softmax,
softmax at temperature .5, Gumbel at .5 and 1}, with a BiLSTM, with frozen random, uniform and permuted attention, and
with the entropy of the attention made equal; each kind with the learning rate and number of epochs that do best on
held-out texts. Each head's attention is then compared with the information that each state has about the head's own
output, and five claims get tables and a verdict.

    S=benchmarks/studies/information
    python $S/run.py --data FOLDER --encoder PATH --output RESULTS       # tune, train and measure, or continue
    python $S/run.py --output RESULTS --collect                          # add the figures to the stored rows
    python $S/run.py --report docs/studies                               # the page, from the stored rows
    python $S/run.py --quick                                             # minutes, built-in data

FOLDER holds sst2/{train,dev}, agnews/{train,test} and imdb/{train,test}.jsonl.gz (`text`, `label`). A run that was
stopped continues where it was, and seeds that are stored already with all kinds are not run again; `--seeds sst2=20`
adds to them. kinds.py lists the heads, report.py makes the page.
"""

import argparse
import functools
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[3])  # `benchmarks` is imported as a package

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from benchmarks.common import EMBEDDED_MODEL, append_row, provenance, read_rows
from benchmarks.studies.information.collect import STORED, collect
from benchmarks.studies.information.kinds import GROUPS, SEEDS, Cell, Kind, cells_in_order
from benchmarks.studies.information.measures import measure
from benchmarks.studies.information.report import write_report
from benchmarks.studies.information.states import Batch, Cached, built_in_texts, cached_states
from benchmarks.studies.information.training import (
    EPOCHS,
    RATES,
    TUNING_SEED,
    Setting,
    make_head,
    matched_head,
    train_head,
    tune,
)
from hf_attn_mi.heads import AttentionHead


class Run:
    """A run that can be continued: its folder, the rows that are stored already, and states kept in memory."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.folder: Path = options.output
        for name in ("heads", "texts"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        stored = [] if options.quick else read_rows(options.stored)
        tuned = [*(row for row in stored if row["row"] == "tuning"), *read_rows(self.folder / "tuning.jsonl")]
        self.settings = {(row["dataset"], row["kind"]): Setting(row["rate"], row["epochs"]) for row in tuned}
        kinds = sum(map(len, GROUPS.values()))
        counts = Counter((row["dataset"], row["seed"]) for row in stored if row["row"] == "head")
        self.stored = {seed for seed, count in counts.items() if count == kinds}  # nothing is missing of these
        measured = read_rows(self.folder / "measured.jsonl")
        self.done = {(row["dataset"], row["seed"], row["kind"]) for row in measured}

    @functools.cache  # noqa: B019
    def states(self, dataset: str) -> dict[str, Cached]:
        """Return the states of a data set."""
        return cached_states(dataset, self.options)

    @functools.lru_cache(maxsize=2)  # noqa: B019
    def batches(self, dataset: str, seed: int) -> list[Batch]:
        """Return the training batches of a seed, the same for all kinds."""
        return self.states(dataset)["train"].batches(seed=seed)

    def setting(self, dataset: str, kind: Kind) -> Setting:
        """Return what was chosen for the kind; chosen now where it was not yet."""
        key = (dataset, kind.name)
        if key not in self.settings:
            rates, epochs = self.options.rates, self.options.epochs
            batches = self.batches(dataset, TUNING_SEED)
            started = time.process_time()
            chosen, table = tune(kind, self.states(dataset), batches, rates=rates, epochs=epochs)
            row = {"dataset": dataset, "kind": kind.name, **asdict(chosen), "rates": rates, "accuracy": table}
            append_row(row | {"cpu_seconds": time.process_time() - started}, self.folder / "tuning.jsonl")
            self.settings[key] = chosen
            print(f"tuned {dataset} {kind.name}: {chosen} {time.process_time() - started:.1f} s", flush=True)
        return self.settings[key]

    def head(self, cell: Cell) -> tuple[AttentionHead, dict[str, Any]]:
        """Return the trained head of a cell, from its file where it was trained before, and fields for its row."""
        train, batches = self.states(cell.dataset)["train"], self.batches(cell.dataset, cell.seed)
        setting = self.setting(cell.dataset, cell.kind.base)
        if cell.kind.entropy is not None:
            trained, _ = self.head(Cell(cell.dataset, cell.seed, cell.kind.base))
            head, temperature = matched_head(cell, trained, self.states(cell.dataset), batches, setting)
            return head, {"matched_temperature": temperature}
        path = self.folder / "heads" / f"{cell.key}.safetensors"
        head = make_head(cell.kind, cell.seed, train)
        if path.exists():
            head.load_state_dict(load_file(path))
        else:
            train_head(head, batches, setting, cell.seed)
            save_file(head.state_dict(), path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)  # so that the file is complete or absent
        return head.eval(), {}

    def one(self, cell: Cell) -> dict[str, Any]:
        """Train and measure a cell; its row goes to measured.jsonl, its figures of each text to a file."""
        self.setting(cell.dataset, cell.kind.base)
        started = time.process_time()
        head, fields = self.head(cell)
        trained = time.process_time()
        row, texts = measure(head, cell.kind, cell.seed, self.states(cell.dataset), self.options)
        arrays = {name: values.astype(np.float32) for name, values in texts.items()}
        np.savez_compressed(self.folder / "texts" / f"{cell.key}.npz", **arrays)
        seconds = {"training": trained - started, "measuring": time.process_time() - trained}
        fields |= {"dataset": cell.dataset, "seed": cell.seed, "kind": cell.kind.name, "cpu_seconds": seconds}
        append_row(fields | row, self.folder / "measured.jsonl")
        return fields | row

    def all(self) -> None:
        """Train and measure the cells that are missing, until the time is over."""
        started = time.perf_counter()
        cells = list(cells_in_order(self.options.seeds))
        for number, cell in enumerate(cells):
            seed = (cell.dataset, cell.seed)
            if seed in self.stored or (*seed, cell.kind.name) in self.done:
                continue
            if (time.perf_counter() - started) / 60 > self.options.minutes:
                print(f"{len(cells) - number} of {len(cells)} cells are left: the time is over")
                break
            row = self.one(cell)
            seconds = " + ".join(f"{value:.1f}" for value in row["cpu_seconds"].values())
            print(f"{number + 1}/{len(cells)} {cell.key} {row['means']['correct']:.4f} {seconds} s", flush=True)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
        minutes = (time.perf_counter() - started) / 60
        append_row({"minutes": minutes, "peak_gib": peak, **provenance()}, self.folder / "runs.jsonl")


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument(
        "--encoder", default=str(EMBEDDED_MODEL), help="Hub name or path (default: the embedded demo model)"
    )
    parser.add_argument("--output", type=Path, help="folder of the run; needed to run and to collect")
    parser.add_argument("--stored", type=Path, default=STORED, help="file of the stored rows")
    parser.add_argument("--collect", action="store_true", help="only add the run's complete seeds to the stored rows")
    parser.add_argument("--report", type=Path, help="only write the page and its figure into this folder")
    parser.add_argument("--seeds", nargs="*", default=[], metavar="SET=N", help=f"default: {SEEDS}")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no head after so many minutes")
    parser.add_argument("--estimator", default="auto", help="estimator of mutual information")
    parser.add_argument("--permutations", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="the embedded model on built-in texts, two seeds")
    options = parser.parse_args()
    options.seeds = SEEDS | {name: int(count) for name, count in (word.split("=") for word in options.seeds)}
    options.rates, options.epochs = RATES, EPOCHS
    if options.quick:
        options.seeds = dict.fromkeys(built_in_texts(), 2)
        options.rates, options.epochs = RATES[:2], 2
    elif options.output is None and (options.collect or options.report is None):
        parser.error("--output is needed")
    elif options.data is None and not options.collect and options.report is None:
        parser.error("--data is needed")
    return options


def main() -> None:
    """Run the study, store its rows, or write its page."""
    options = parse()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with tempfile.TemporaryDirectory() as folder:
        if options.quick:
            options.output = options.output or Path(folder)
            options.stored, options.report = options.output / "rows.jsonl.gz", options.report or options.output
        if options.quick or not (options.collect or options.report):
            Run(options).all()
        if options.quick or options.collect:
            print(collect(options.output, options.stored))
        if options.report is not None:
            options.report.mkdir(parents=True, exist_ok=True)
            print(write_report(options.stored, options.report))


if __name__ == "__main__":
    main()
