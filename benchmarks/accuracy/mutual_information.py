"""Errors of the mutual information estimators, coverage of their intervals, level of their tests, and their cost.

    F=benchmarks/accuracy/mutual_information.py
    python $F                              # every part, writes benchmarks/accuracy/results/mutual_information.jsonl
    python $F --quick                      # under a minute, writes only where --output says
    python $F --parts speed                # one part: its rows in that file are replaced
    python $F --parts families --seeds 5   # other seeds: printed, not written

Families with their true values are in mi_families.py; peers in mi_peers.py.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # `benchmarks` is imported as a package

import torch
from scipy.stats import kendalltau
from torch import Tensor

from benchmarks.accuracy.mi_families import (
    DEVELOPMENT,
    FAMILIES,
    FRESH,
    HELD_OUT,
    KNOWN,
    RandomNumbers,
    among_noise,
    cases,
    monte_carlo,
    shifted,
)
from benchmarks.accuracy.mi_peers import CRITICS, largest_feature, summed_features
from benchmarks.common import Row, check, result_row, run_parts, seconds_of
from hf_attn_mi.mi import (
    MutualInformation,
    list_predictors,
    mutual_information,
    predictors,
    register_predictor,
    unregister_predictor,
)

Rows = Iterator[Row]
RESULTS = Path(__file__).parent / "results" / "mutual_information.jsonl"
OURS = ("auto", "gaussian", "probe", "ksg", "ksg_pca")
HALF_WIDTH = 2.262  # in standard errors: Student's t of the ten folds
PEER_FAMILIES = ("lin", "network", "digits", "digits network", "exclusive or", "soft")


@dataclass(frozen=True)
class Sizes:
    """How much of each part is run."""

    seeds: tuple[int, ...]
    families: tuple[str, ...]
    cases: int
    estimators: tuple[str, ...]
    repetitions: int
    levels: tuple[float, ...]
    sites: int
    peer_families: tuple[str, ...]


FULL = Sizes((4,), tuple(FAMILIES), 8, OURS, 200, (0.0, 0.3, 0.6, 1.0), 768, PEER_FAMILIES)
QUICK = Sizes((1,), ("lin", "exclusive or"), 2, ("auto", "gaussian"), 8, (0.6,), 4, ("exclusive or",))


def _estimate(states: Tensor, outputs: Tensor, estimator: str, permutations: int = 1) -> MutualInformation:
    return mutual_information(states, outputs, estimator=estimator, permutations=permutations)


def _kind(family: str) -> str:
    kinds = {"known": KNOWN, "development": DEVELOPMENT, "held out": HELD_OUT, "fresh": FRESH}
    return next(kind for kind, members in kinds.items() if family in members)


def families(sizes: Sizes) -> Rows:
    """Measure the error of each estimator in each family."""
    for family in sizes.families:
        family_cases = [case for seed in sizes.seeds for case in cases(family, seed, sizes.cases)]
        truth = [case.truth for case in family_cases]
        shape = {"n": family_cases[0].states.shape[0], "d": family_cases[0].states.shape[1], "kind": _kind(family)}
        for estimator in sizes.estimators:
            if estimator != "auto" and shape["n"] > 10_000:
                continue
            estimates = [_estimate(case.states, case.outputs, estimator) for case in family_cases]
            nats = [float(value.nats) for value in estimates]
            errors = [abs(a - b) for a, b in zip(nats, truth)]
            inside = [float(v.interval[0]) <= t <= float(v.interval[1]) for v, t in zip(estimates, truth)]
            bound = 0.06 if shape["n"] == 500 else 0.05
            yield result_row(
                f"mi/{family}/{estimator}",
                f"mean absolute error of {estimator}, family {family}",
                [sum(errors) / len(errors)],
                unit="nats",
                at_most=bound if estimator == "auto" else None,
                worst=max(errors),
                tau=float(kendalltau(nats, truth).statistic),
                tau_of_noise=_tau_of_noise(truth, estimates),
                covered=sum(inside) / len(inside),
                truth=truth,
                found=nats,
                parts=[value.parts[0] for value in estimates],
                seeds=list(sizes.seeds),
                **shape,
            )


def _tau_of_noise(truth: list[float], estimates: list[MutualInformation], draws: int = 500) -> float:
    """Return the mean Kendall tau of unbiased estimates with the measured standard errors: the tau to be expected.

    Cases whose true values differ by less than the errors change places by chance, however good the estimator is.
    """
    errors = torch.tensor([float(value.nats - value.interval[0]) for value in estimates]) / HALF_WIDTH
    noise = torch.randn(draws, len(truth), generator=torch.Generator().manual_seed(0)) * errors
    taus = [kendalltau(row, truth).statistic for row in (torch.tensor(truth) + noise).tolist()]
    return float(sum(taus) / draws)


def _repeated(
    level: float, repetitions: int, n: int = 1000, d: int = 64
) -> tuple[float, Iterator[tuple[Tensor, Tensor]]]:
    """Return a true value and samples: four Gaussian classes in `d` dimensions."""
    rng = RandomNumbers(77)
    share = torch.full((4,), 0.25, dtype=torch.float64)
    sample, density = shifted(rng, 4, 3, 2.2 * level)
    truth = max(0.0, monte_carlo(sample, density, share, rng)) if level > 0 else 0.0

    def samples() -> Iterator[tuple[Tensor, Tensor]]:
        for repetition in range(repetitions):
            rng.generator.manual_seed(1000 + repetition)
            labels = rng.classes(share, n)
            yield among_noise(sample(labels), d, rng), labels

    return truth, samples()


def coverage(sizes: Sizes) -> Rows:
    """Measure how often the 95 % interval contains the true value; n = 1000, d = 64, four classes."""
    for level in sizes.levels:
        for estimator in ("auto", "gaussian", "probe"):
            truth, samples = _repeated(level, sizes.repetitions)
            found = [_estimate(states, outputs, estimator) for states, outputs in samples]
            inside = [float(v.interval[0]) <= truth <= float(v.interval[1]) for v in found]
            nats = torch.stack([v.nats for v in found])
            share = sum(inside) / len(inside)
            result = result_row(
                f"mi/coverage/{estimator} at {truth:.2f}",
                f"share of intervals of {estimator} with the truth inside",
                [share],
                unit="of all",
                at_least=0.92 if sizes is FULL else None,
                truth=truth,
                mean=float(nats.mean()),
                spread=float(nats.std()),
                above=sum(float(v.interval[0]) > truth for v in found) / len(found),
                repetitions=len(found),
                n=1000,
                d=64,
                seeds=f"1000 to {999 + sizes.repetitions}",
            )
            if sizes is FULL:
                result |= {"target": "0.92 to 0.99", "met": 0.92 <= share <= 0.99}
            yield result


def level(sizes: Sizes) -> Rows:
    """Measure, without any information, the mean estimate and the rejections of the permutation test at 5 %."""
    repetitions = 5 * sizes.repetitions
    small = [_estimate(*sample, "gaussian", 99) for sample in _repeated(0.0, repetitions, n=300, d=16)[1]]
    rejected = sum(float(v.p_value) <= 0.05 for v in small) / len(small)
    result = result_row(
        "mi/level/permutation",
        "share of p-values of at most 5 % where states and outputs are unrelated",
        [rejected],
        unit="of all",
        repetitions=repetitions,
        n=300,
        d=16,
        permutations=99,
    )
    if sizes is FULL:
        result |= {"target": "0.04 to 0.06", "met": 0.04 <= rejected <= 0.06}
    yield result
    for estimator in ("auto", "gaussian", "probe"):
        found = torch.stack([_estimate(*sample, estimator).nats for sample in _repeated(0.0, sizes.repetitions)[1]])
        yield result_row(
            f"mi/level/null mean {estimator}",
            f"mean of {estimator} where there is nothing, off zero",
            [abs(float(found.mean()))],
            unit="nats",
            at_most=0.005 if sizes is FULL else None,
            mean=float(found.mean()),
            spread=float(found.std()),
            repetitions=len(found),
            n=1000,
            d=64,
        )


PEERS: dict[str, Callable[[Tensor, Tensor], float]] = {
    "auto": lambda states, outputs: float(_estimate(states, outputs, "auto").nats),
    "ksg on raw states": lambda states, outputs: float(_estimate(states, outputs, "ksg").nats),
    "scikit-learn, summed": summed_features,
    "scikit-learn, largest": largest_feature,
    **CRITICS,
}


def peers(sizes: Sizes) -> Rows:
    """Measure errors and CPU time of other estimators on the same data in the same run."""
    threads = torch.get_num_threads()
    worst: dict[str, float] = {}
    for family in sizes.peer_families:
        family_cases = list(cases(family, 1, max(2, sizes.cases // 2)))
        truth = [case.truth for case in family_cases]
        estimates: dict[str, list[float]] = {}
        seconds: dict[str, float] = {}
        for case in family_cases:
            for name, task in PEERS.items():
                started = time.process_time()
                estimate = task(case.states, case.outputs)
                seconds[name] = seconds.get(name, 0.0) + time.process_time() - started
                estimates.setdefault(name, []).append(estimate)
        for name, values in estimates.items():
            errors = [abs(a - b) for a, b in zip(values, truth)]
            error = sum(errors) / len(errors)
            worst[name] = max(worst.get(name, 0.0), error)
            yield result_row(
                f"mi/peers {family}/{name}",
                f"mean absolute error of {name}, family {family}",
                [error],
                unit="nats",
                tau=float(kendalltau(values, truth).statistic),
                truth=truth,
                found=values,
                cpu_seconds=seconds[name] / len(values),
                seeds=[1],
            )
    for name, error in worst.items():
        yield result_row(
            f"mi/peers worst/{name}",
            f"largest mean absolute error of {name} over {len(sizes.peer_families)} families",
            [error],
            unit="nats",
        )
    best = min(worst, key=lambda name: worst[name])
    check(sizes is QUICK or best == "auto", f"in its worst family auto is less accurate than {best}: {worst}")
    torch.set_num_threads(threads)


@contextmanager
def prior_alone() -> Iterator[None]:
    """Let lower bounds rest on the prior alone, which costs next to nothing: what is left is the estimate."""
    specs = [predictors._SPECS[name] for name in list_predictors() if name != "prior"]
    for spec in specs:
        unregister_predictor(spec.name)
    try:
        yield
    finally:
        for spec in specs:
            register_predictor(spec.name, spec.function, effort=spec.effort, summary=spec.summary)


def speed(sizes: Sizes) -> Rows:
    """Measure the seconds for 12 layers x 64 sites on two threads: the estimate, and the estimate with its bounds."""
    torch.set_num_threads(2)
    case = list(cases("lin", 1, 4))[2]
    states = case.states.half().expand(sizes.sites, -1, -1)
    full = sizes is FULL
    check(abs(float(_estimate(case.states, case.outputs, "auto").nats) - case.truth) < 0.1, "auto is off")
    _estimate(states[:16], case.outputs, "auto", 200)  # enough sites for numba, which compiles
    targets = {"gaussian": (10, 60), "auto": (45, None)}
    for estimator, (alone, together) in targets.items():
        for name, context, most in (("", prior_alone(), alone), (" with fast bounds", nullcontext(), together)):
            with context:
                cpu = time.process_time()
                seconds = seconds_of(partial(_estimate, states, case.outputs, estimator, 200))
                cpu = time.process_time() - cpu
            yield result_row(
                f"mi/speed/{estimator}{name}",
                f"{sizes.sites} sites, n = 2000, d = 384, with intervals and 200 permutations"
                + (name or ", without bounds"),
                [seconds],
                at_most=most if full else None,
                sites=sizes.sites,
                each_ms=1000 * seconds / sizes.sites,
                each_cpu_ms=1000 * cpu / sizes.sites,
            )
    torch.set_num_threads(1)


PARTS: dict[str, Callable[[Sizes], Rows]] = {
    "families": families,
    "coverage": coverage,
    "level": level,
    "peers": peers,
    "speed": speed,
}


def main() -> int:
    """Run the parts, print and write the rows; the exit status is 1 where a check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", nargs="+", type=int, help="seeds of the families (default: 4, not used for tuning)")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, help="default all")
    parser.add_argument("--estimators", nargs="+", choices=OURS)
    parser.add_argument("--quick", action="store_true", help="a few cases, under a minute")
    parser.add_argument(
        "--output", type=Path, help="default results/mutual_information.jsonl for parts in full, else none"
    )
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else FULL
    whole = not arguments.quick
    chosen = arguments.families
    if chosen or arguments.seeds or arguments.estimators:
        whole = False
        changes = {
            "seeds": tuple(arguments.seeds or sizes.seeds),
            "families": tuple(chosen or sizes.families),
            "estimators": tuple(arguments.estimators or sizes.estimators),
        }
        sizes = Sizes(**{**vars(sizes), **changes})
    output = arguments.output or (RESULTS if whole else None)
    _, failures = run_parts([(name, partial(PARTS[name], sizes), [1]) for name in arguments.parts], output)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
