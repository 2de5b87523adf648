"""Errors of `mutual_information(x, y, continuous=True)` on the standard tasks of bmi, beside bmi's own estimators.

    python benchmarks/accuracy/continuous.py --folder build/bmi     # samples and estimates of continuous_peers.py
    python scripts/generate_continuous.py                           # docs/methods/mutual_information_continuous.md

Writes benchmarks/accuracy/results/continuous.jsonl: the rows of the peers and our own, one for each task, seed and
estimator. Samples that are in that file already are not run again unless --again is passed.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # `benchmarks` is imported as a package

import numpy
import torch

from benchmarks.common import Row, commit, read_rows, write_rows
from hf_attn_mi.mi import mutual_information

RESULTS = Path(__file__).parent / "results" / "continuous.jsonl"
OURS = ("auto", "gaussian_continuous", "gaussian_copula", "ksg_continuous")


def estimate(path: Path, estimator: str) -> Row:
    """Return the row of one sample and one of our estimators."""
    task, _, seed = path.stem.rpartition("+")
    sample = numpy.load(path)
    x, y = torch.from_numpy(sample["x"]), torch.from_numpy(sample["y"])
    started = time.process_time()
    result = mutual_information(x, y, continuous=True, estimator=estimator, permutations=1, seed=int(seed))
    return {
        "task": task,
        "seed": int(seed),
        "estimator": estimator,
        "n": len(x),
        "truth": float(sample["truth"]),
        "nats": float(result.nats),
        "interval": result.interval.tolist(),
        "lower": float(result.lower_bound),
        "part": result.parts[0],
        "predictor": result.predictors[0],
        "seconds": round(time.process_time() - started, 3),
        "commit": commit(),
    }


def main() -> int:
    """Run our estimators on the samples and write all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="what continuous_peers.py wrote")
    parser.add_argument("--estimators", nargs="+", choices=OURS, default=list(OURS))
    parser.add_argument("--again", action="store_true", help="run our estimators on samples that have a row")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    known = [row for row in read_rows(arguments.output) if row["estimator"] in OURS]
    if arguments.again:
        known = [row for row in known if row["estimator"] not in arguments.estimators]
    done = {(row["task"], row["seed"], row["estimator"]) for row in known}
    for path in sorted(arguments.folder.glob("*.npz")):
        task, _, seed = path.stem.rpartition("+")
        for estimator in arguments.estimators:
            if (task, int(seed), estimator) not in done:
                row = estimate(path, estimator)
                known.append(row)
                print(f"{task:<50} {seed} {estimator:<20} {row['truth']:.3f} {row['nats']:.3f}", flush=True)
    write_rows(known + read_rows(arguments.folder / "peers.jsonl"), arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
