"""Sample the standard tasks of bmi and run its estimators on them, in an environment of its own.

    pip install benchmark-mi "jax<0.4.34" "jaxlib<0.4.34"    # in that environment
    BMI=/path/to/the/environment/bin/python
    $BMI benchmarks/accuracy/continuous_peers.py --folder build/bmi --seeds 1 2
    python benchmarks/accuracy/continuous.py --folder build/bmi

The tasks are those of Czyz et al. (arXiv 2306.11078). This file imports nothing of this repository, because bmi needs
older versions of numpy: arrays are exchanged as files. Estimates are appended to peers.jsonl in the folder; what is
there already is not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path

import bmi
import numpy
from bmi.benchmark import BENCHMARK_TASKS

ESTIMATORS = {
    "KSG (bmi)": lambda: bmi.estimators.KSGEnsembleFirstEstimator(neighborhoods=(5, 10)),
    "CCA (bmi)": lambda: bmi.estimators.CCAMutualInformationEstimator(),
    "InfoNCE (bmi)": lambda: bmi.estimators.InfoNCEEstimator(verbose=False),
}


def main() -> None:
    """Write the samples, then run every estimator on all of them in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--n", type=int, default=2000, help="examples of each sample")
    parser.add_argument("--estimators", nargs="+", choices=ESTIMATORS, default=list(ESTIMATORS))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, task in BENCHMARK_TASKS.items():
        for seed in arguments.seeds:
            path = arguments.folder / f"{name}+{seed}.npz"
            if not path.exists():
                x, y = (numpy.asarray(values, dtype=numpy.float64) for values in task.sample(arguments.n, seed))
                numpy.savez(path, x=x, y=y, truth=float(task.mutual_information))
    output = arguments.folder / "peers.jsonl"
    lines = output.read_text(encoding="utf-8").splitlines() if output.exists() else []
    done = {(row["task"], row["seed"], row["estimator"]) for row in map(json.loads, lines)}
    for estimator in arguments.estimators:
        for seed in arguments.seeds:
            for name in BENCHMARK_TASKS:
                if (name, seed, estimator) in done:
                    continue
                sample = numpy.load(arguments.folder / f"{name}+{seed}.npz")
                started = time.process_time()
                nats = float(ESTIMATORS[estimator]().estimate(sample["x"], sample["y"]))
                row = {
                    "task": name,
                    "seed": seed,
                    "estimator": estimator,
                    "n": len(sample["x"]),
                    "truth": float(sample["truth"]),
                    "nats": nats,
                    "seconds": round(time.process_time() - started, 3),
                    "version": f"benchmark-mi {version('benchmark-mi')}",
                }
                with output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
