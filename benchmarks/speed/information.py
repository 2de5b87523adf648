"""Cost of neighbor counts, class moments and probe scores over the bare matrix product and brute force.

    python benchmarks/speed/information.py            # every part, writes benchmarks/speed/results/information.jsonl
    python benchmarks/speed/information.py --quick    # small shapes and two turns, writes only where --output says

Correctness is checked first; a part whose check fails gets a row that says so and no figure.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # `benchmarks` is imported as a package

import torch
from torch import Tensor

from benchmarks.common import Row, check, result_row, run_parts, seconds_of, time_in_turns
from hf_attn_mi.kernels import (
    class_moments,
    class_separation,
    factor_classes,
    mixture_information,
    neighbor_counts,
    probe_information,
)
from hf_attn_mi.kernels.neighbors.reference import reference_neighbor_counts
from hf_attn_mi.kernels.threads import across_threads, sharing_threads

Rows = Iterator[Row]
RESULTS = Path(__file__).parent / "results" / "information.jsonl"


@dataclass(frozen=True)
class Sizes:
    """Shapes of a run."""

    n: int
    d: int
    sites: int
    turns: int


FULL = Sizes(n=2000, d=384, sites=12 * 64, turns=7)
QUICK = Sizes(n=300, d=48, sites=8, turns=2)


def states_of(sites: int, n: int, d: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """States with a power-law spectrum in random directions and a shift by class, and four classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (n,), generator=generator)
    spectrum = torch.arange(1, d + 1).float().rsqrt()
    rotation = torch.linalg.qr(torch.randn(d, d, generator=generator))[0]
    states = torch.empty(sites, n, d)
    for site in states:
        means = 0.3 * torch.randn(4, d, generator=generator)
        torch.mm((torch.randn(n, d, generator=generator) + means[labels]) * spectrum, rotation, out=site)
    return states, labels


def brute_force(states: Tensor, labels: Tensor, k: int = 3) -> Tensor:
    """Ross's counts from `torch.cdist` and the n x n matrix it returns."""
    distance = torch.cdist(states, states)
    distance.fill_diagonal_(0)
    same = distance.masked_fill(labels[:, None] != labels, math.inf)
    radius = same.fill_diagonal_(math.inf).topk(k, largest=False).values[:, -1:]
    return ((distance < radius) | (distance == 0)).sum(1)


def neighbors(sizes: Sizes) -> Rows:
    """One site: the bare product of the same sizes, and brute force."""
    n, d = sizes.n, sizes.d
    states, labels = states_of(1, n, d)
    states = states[0]
    result = neighbor_counts(states, labels)
    check(torch.equal(result.within, reference_neighbor_counts(states, labels, 3)[0]), "counts differ from float64")
    square = torch.empty(n, n)
    tasks: dict[str, Callable[[], Any]] = {
        "ours": lambda: neighbor_counts(states, labels),
        "product": lambda: torch.mm(states, states.T, out=square),
        "brute": lambda: brute_force(states, labels),
    }
    timings = time_in_turns(tasks, sizes.turns)
    shape = {"n": n, "d": d, "classes": 4, "equal_to_float64": True}
    yield result_row(
        "information/neighbors over product",
        f"exact neighbor counts, n = {n}, d = {d}, against the bare X X^T",
        timings["ours"],
        timings["product"],
        at_most=2 if sizes == FULL else None,
        **shape,
    )
    yield result_row(
        "information/neighbors and brute force",
        f"the same against torch.cdist and its matrix, n = {n}, d = {d}",
        timings["ours"],
        timings["brute"],
        faster=True,
        brute_force_wrong=_wrong(states, labels, result.within),
        **shape,
    )


def _wrong(states: Tensor, labels: Tensor, within: Tensor) -> int:
    return int((brute_force(states, labels) != within).sum())


def closed_form(states: Tensor, labels: Tensor, folds: int = 10, sites: int = 4) -> Tensor:
    """Return the debiased Gaussian-mixture information of each site, (sites,), a few sites at a time."""

    def information(part: Tensor) -> Tensor:
        moments = class_moments(part, labels, folds=folds)
        separation = class_separation(moments, factor_classes(moments, metric="total", shrinkage=1e-4))[:, 0]
        return mixture_information(separation, moments.weights.sum(0) / len(labels))

    with sharing_threads(states.device, len(states)) as threads:
        return torch.cat(across_threads(information, states.split(sites), threads))


def plain_closed_form(states: Tensor, labels: Tensor) -> Tensor:
    """Return the same for one site from float64 class means and scatter; shares no code with `closed_form`."""
    n, d = states.shape
    exact = states.double()
    sizes = torch.bincount(labels).double()
    means = torch.stack([exact[labels == c].mean(0) for c in range(len(sizes))])
    apart = exact - means[labels]
    free = n - len(sizes)
    centering = torch.eye(len(sizes), dtype=torch.float64) - sizes / n
    spread = centering @ means @ torch.linalg.solve(apart.T @ apart / free, means.T) @ centering.T
    separation = (free - d - 1) / free * spread - d * centering @ torch.diag(1 / sizes) @ centering.T
    return mixture_information(separation, sizes / n)


def moments(sizes: Sizes) -> Rows:
    """Closed-form information of all sites, and what the parts of it cost a site."""
    n, d = sizes.n, sizes.d
    states, labels = states_of(sizes.sites, n, d)
    few = states[:4]
    result, expected = closed_form(few, labels), [plain_closed_form(site, labels) for site in few]
    gap = float((result - torch.stack(expected)).abs().max())
    check(gap < 0.01, f"closed-form information differs by {gap:.4f} nats from float64")  # 1e-4 of shrinkage
    shape = {"sites": sizes.sites, "n": n, "d": d, "classes": 4, "folds": 10, "gap_to_float64_nats": gap}
    full = sizes == FULL and torch.get_num_threads() == 2
    what = f"Gaussian-mixture information, {sizes.sites} sites, n = {n}, d = {d}"
    for name, folds, grams in (("", 10, "fold Grams"), (", one fold", 1, "one Gram a site: no jackknife")):
        seconds = [
            seconds_of(lambda folds=folds: closed_form(states, labels, folds)) for _ in range(min(3, sizes.turns))
        ]
        shape["folds"] = folds
        yield result_row(
            f"information/closed form{name}", f"{what}, {grams}", seconds, at_most=12 if full else None, **shape
        )
    shape["folds"] = 10
    gram = torch.empty(d, d)
    site = states[0]
    site_moments = class_moments(site, labels)
    tasks: dict[str, Callable[[], Any]] = {
        "gram": lambda: torch.mm(site.T, site, out=gram),
        "moments": lambda: class_moments(site, labels),
        "left out": lambda: factor_classes(site_moments, leave_one_out=True),
    }
    timings = time_in_turns(tasks, sizes.turns)
    sentences = {
        "moments": "ten fold Grams and class sums of a site",
        "left out": "ten leave-one-out factors and whitened class means of a site",
    }
    for name, sentence in sentences.items():
        yield result_row(
            f"information/{name}",
            f"{sentence}, against one bare product X^T X",
            timings[name],
            timings["gram"],
            **shape,
        )


def memory(sizes: Sizes) -> Rows:
    """Peak memory of the closed form over the states themselves, each in a process of its own."""
    sites = sizes.sites
    peaks = [
        int(
            subprocess.run(
                [sys.executable, __file__, "--peak", str(sites), str(sizes.n), str(sizes.d), mode],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for mode in ("states", "closed")
    ]
    size = sites * sizes.n * sizes.d * 4
    share = (size + peaks[1] - peaks[0]) / size
    yield result_row(
        "information/closed form memory",
        "states and everything the closed form adds, over the states, peak resident",
        [share],
        unit="x",
        at_most=1.3 if sizes == FULL else None,
        sites=sites,
        states_mib=size / 2**20,
        added_mib=(peaks[1] - peaks[0]) / 2**20,
    )


def peak(sites: int, n: int, d: int, mode: str) -> None:
    """Print the peak resident bytes of this process, with or without the closed form."""
    torch.set_num_threads(2)
    states, labels = states_of(sites, n, d)
    if mode == "closed":
        closed_form(states, labels)
    # Not ru_maxrss: a child starts with its parent's.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    print(1024 * int(status.partition("VmHWM:")[2].split()[0]))


def scoring(sizes: Sizes) -> Rows:
    """Probe scores of the tokens of many examples, against the bare product and plain PyTorch."""
    d, classes = sizes.d, 10
    generator = torch.Generator().manual_seed(2)
    states = torch.randn(32, sizes.n // 16, d, generator=generator)
    directions, offsets = (
        torch.randn(classes, d, generator=generator) / d**0.5,
        torch.randn(classes, generator=generator),
    )
    prior, outputs = torch.full((classes,), 1 / classes), torch.randn(32, classes, generator=generator).softmax(1)

    def plain(x: Tensor) -> tuple[Tensor, Tensor]:
        log_q = (x @ directions.T.to(x) + offsets.to(x)).log_softmax(-1)
        ratio = log_q - prior.to(x).log()
        return (log_q.exp() * ratio).sum(-1), (outputs[:, None].to(x) * ratio).sum(-1)

    result, exact = probe_information(states, directions, offsets, prior, outputs), plain(states.double())
    gap = max(float((ours - theirs).abs().max()) for ours, theirs in zip(result, exact))
    check(gap < 1e-5, f"probe scores differ by {gap:.2e} nats from float64")
    tasks: dict[str, Callable[[], Any]] = {
        "ours": lambda: probe_information(states, directions, offsets, prior, outputs),
        "product": lambda: states @ directions.T,
        "plain": lambda: plain(states),
    }
    timings = time_in_turns(tasks, sizes.turns)
    tokens = states.shape[0] * states.shape[1]
    shape = {"tokens": tokens, "d": d, "classes": classes, "gap_to_float64_nats": gap}
    what = f"divergence and V-information of {tokens} tokens, d = {d}, {classes} classes"
    yield result_row(
        "information/probe", f"{what}, against the bare product", timings["ours"], timings["product"], **shape
    )
    yield result_row(
        "information/probe and plain",
        f"{what}, against plain PyTorch",
        timings["ours"],
        timings["plain"],
        faster=True,
        **shape,
    )


PARTS: dict[str, tuple[Callable[[Sizes], Rows], bool]] = {  # and whether the number of threads matters
    "neighbors": (neighbors, True),
    "moments": (moments, True),
    "scoring": (scoring, True),
    "memory": (memory, False),
}


def main() -> int:
    """Run the parts, print and write the rows; the exit status is 1 where a check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="small shapes, two turns")
    parser.add_argument("--output", type=Path, help="default results/information.jsonl; none with --quick or --parts")
    parser.add_argument("--peak", nargs=4, metavar=("SITES", "N", "D", "MODE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        peak(*map(int, arguments.peak[:3]), arguments.peak[3])
        return 0
    sizes = QUICK if arguments.quick else FULL
    parts = [
        (name, partial(PARTS[name][0], sizes), arguments.threads if PARTS[name][1] else [1]) for name in arguments.parts
    ]
    whole = not arguments.quick and set(arguments.parts) == set(PARTS)
    _, failures = run_parts(parts, arguments.output or (RESULTS if whole else None))
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
