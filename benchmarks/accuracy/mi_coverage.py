"""How often bounds and intervals of mutual information contain the truth, in 55 families of known information.

    F=benchmarks/accuracy/mi_coverage.py
    python $F                                          # resumes: repeats that are in the file are not run again
    python $F --efforts fast=20 default=2 fast=60 --minutes 30
    python $F --efforts thorough=10 --families annulus "swiss roll"
    python scripts/generate_mi_coverage.py             # docs/methods/mutual_information_coverage.md

A repeat draws a family anew (its parameters, states and outputs) at one of five strengths in turn, the first of which
is no information at all (a little in `curve` and `ordinal`), and stores the truth beside what `mutual_information`
reports. Each repeat is one line of benchmarks/accuracy/results/mi_coverage.jsonl.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # `benchmarks` is imported as a package

import torch

from benchmarks.accuracy.mi_families import FAMILIES, Family, RandomNumbers
from benchmarks.accuracy.mi_new_families import AFTER, BEFORE
from benchmarks.common import Row, append_row, commit, read_rows
from hf_attn_mi.mi import mutual_information

RESULTS = Path(__file__).parent / "results" / "mi_coverage.jsonl"
ALL_FAMILIES: dict[str, Family] = {**BEFORE, **AFTER, **FAMILIES}
AIM = {"fast": 200, "default": 40, "thorough": 10}  # repeats of each family
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
LARGE = ("n 20000", "n 20000 modes")  # families with a fifth of the repeats
PERMUTATIONS = 99  # permutations where there is no information; elsewhere the test is not evaluated
SEED = 70_000  # seed of the first repeat; no family had been estimated with it before


def level_of(repeat: int) -> float:
    """Return the strength of a repeat: in turn, and in turn among every fifth as well."""
    return LEVELS[(repeat + repeat // len(LEVELS)) % len(LEVELS)]


def one_repeat(family: str, effort: str, repeat: int) -> Row:
    """Draw a family, estimate, and return the row."""
    level = level_of(repeat)
    case = ALL_FAMILIES[family](RandomNumbers(SEED + repeat), level)
    started = time.process_time()
    result = mutual_information(
        case.states, case.outputs, effort=effort, permutations=PERMUTATIONS if level == 0 else 1, seed=repeat
    )
    return {
        "family": family,
        "effort": effort,
        "repeat": repeat,
        "level": level,
        "n": case.states.shape[0],
        "d": case.states.shape[1],
        "soft": case.outputs.is_floating_point(),
        "truth": case.truth,
        "nats": float(result.nats),
        "interval": result.interval.tolist(),
        "lower": float(result.lower_bound),
        "lower_normal": float(result.lower_bound_normal),
        "upper": float(result.upper_bound),
        "p_value": float(result.p_value),
        "part": result.parts[0],
        "predictor": result.predictors[0],
        "seconds": round(time.process_time() - started, 3),
        "commit": commit(),
    }


def read_plan(text: str) -> tuple[str, int]:
    """Return the effort and the number of repeats of "effort=repeats"."""
    effort, _, repeats = text.partition("=")
    if effort not in AIM or not repeats.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not EFFORT=REPEATS, EFFORT one of {', '.join(AIM)}")
    return effort, int(repeats)


def main() -> int:
    """Run what is missing, repeat after repeat over all families, until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--efforts",
        nargs="+",
        type=read_plan,
        default=list(AIM.items()),
        metavar="EFFORT=REPEATS",
        help="in this order",
    )
    parser.add_argument("--families", nargs="+", choices=ALL_FAMILIES, default=list(ALL_FAMILIES))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after this time")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    done = {(row["family"], row["effort"], row["repeat"]) for row in read_rows(arguments.output)}
    stop = time.monotonic() + 60 * arguments.minutes
    for effort, repeats in arguments.efforts:
        for repeat in range(repeats):
            for family in arguments.families:
                if (family, effort, repeat) in done or (family in LARGE and repeat % len(LEVELS)):
                    continue
                if time.monotonic() > stop:
                    print(f"stopped in repeat {repeat} of {effort}; run the same command again to go on")
                    return 0
                append_row(one_repeat(family, effort, repeat), arguments.output)
                done.add((family, effort, repeat))
            print(f"{effort}: repeat {repeat} of all families", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
