"""From the estimate of one site to the result of all: intervals, p-values, null mean, ceiling and warnings."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hf_attn_mi.kernels.threads import across_threads, sharing_threads
from hf_attn_mi.mi.estimate import Estimate
from hf_attn_mi.mi.folds import half_width, jackknife_error
from hf_attn_mi.mi.gaussianize import tame
from hf_attn_mi.mi.permutations import Shuffles, p_values, permuted_statistics
from hf_attn_mi.mi.principal import Principal, balance, principal_components, whiten
from hf_attn_mi.mi.result import MutualInformation

NULL_EVALUATIONS = 8  # of the estimator on permuted outputs, each in another site
Estimator = Callable[[Principal, Tensor], Estimate]


def collect(
    states: Tensor,
    estimate: Estimator,
    shuffles: Shuffles,
    ceiling: float | None,
    estimator: str,
    *,
    folds: int,
    single: bool,
    kind: str = "components",
    warnings: tuple[str, ...] = (),
) -> MutualInformation:
    """Return the result for all sites.

    Args:
        states: (sites, n, d).
        estimate: of a site's components and outputs in an order.
        shuffles: of the outputs.
        ceiling: of the information, nats; None: not known.
        estimator: its name.
        folds: of the jackknife.
        single: return numbers for the only site.
        kind: of coordinates: "components", "tamed" ones of better coordinates where there are such, or "any" whitened.
        warnings: what is known already.
    """
    sites, n, _ = states.shape
    rounds = _null_rounds(sites, len(shuffles.orders) - 1)

    def work(site: int) -> tuple[Estimate | None, Tensor, list[float], list[str]]:
        return _one(states[site], site, estimate, shuffles, rounds.get(site), kind)

    done = _each(work, sites)
    top = float("inf") if ceiling is None else ceiling
    rows = []
    notes = list(warnings)
    for site, (found, _, _, problems) in enumerate(done):
        notes += problems
        if found is None:
            rows.append((0.0, 0.0, 0.0))
            continue
        error = (float(jackknife_error(found.left_out)) ** 2 + found.extra_variance) ** 0.5
        width = half_width(error, folds)
        value = min(found.value, top)
        if found.value - width > top:
            notes.append(
                f"site {site}: the estimate {found.value:.3f} is above the ceiling {top:.3f}, which is reported"
            )
        # Around what is reported: an estimate far above the ceiling must not end in an interval without width.
        rows.append((value, value - width, min(max(found.value + found.missing + width, value), top)))
    table = torch.tensor(rows, dtype=torch.float64).T
    alone, family = p_values(torch.stack([statistics for _, statistics, _, _ in done]))
    null = torch.tensor([value for _, _, values, _ in done for value in values], dtype=torch.float64)
    null_mean = null.mean().expand(sites).clone() if len(null) else torch.zeros(sites, dtype=torch.float64)
    fields = [field[0] if single else field for field in (*table, alone, family, null_mean)]
    nats, lower, upper, p_value, family_p_value, null_mean = fields
    return MutualInformation(
        nats=nats,
        lower=lower,
        upper=upper,
        p_value=p_value,
        family_p_value=family_p_value,
        null_mean=null_mean,
        ceiling=ceiling,
        n=n,
        estimator=estimator,
        parts=tuple("constant" if found is None else found.part for found, _, _, _ in done),
        warnings=tuple(notes),
    )


def _one(
    given: Tensor, site: int, estimate: Estimator, shuffles: Shuffles, null_order: int | None, kind: str
) -> tuple[Estimate | None, Tensor, list[float], list[str]]:
    """Return one site's estimate (None: constant states), statistics, values under permutation and warnings."""
    balanced = balance(given)[0]
    make = whiten if kind == "any" else principal_components
    principal = make(tame(balanced) if kind == "tamed" else balanced)
    if principal is None:
        worst = torch.full((len(shuffles.orders),), -torch.inf, dtype=torch.float64)
        return None, worst, [], [f"site {site}: all {len(given)} states are the same: no information"]
    kept, n = principal.points.shape[1], len(given)
    notes = []
    if kept < principal.rank:
        notes.append(
            f"site {site}: n = {n} examples are too few for {principal.rank} independent directions: estimated on the "
            f"first {kept} principal components, and what lies outside of them is missed"
        )
    null = [] if null_order is None else [estimate(principal, shuffles.orders[null_order]).value]
    return estimate(principal, shuffles.orders[0]), permuted_statistics(principal, shuffles), null, notes


def _null_rounds(sites: int, permutations: int) -> dict[int, int]:
    """Return the permutation under which to evaluate the estimator for a few sites spread evenly."""
    chosen = torch.linspace(0, sites - 1, min(sites, NULL_EVALUATIONS)).round().long().tolist()
    return {site: 1 + index % permutations for index, site in enumerate(chosen)}


def _each(
    work: Callable[[int], tuple[Estimate | None, Tensor, list[float], list[str]]], sites: int
) -> list[tuple[Estimate | None, Tensor, list[float], list[str]]]:
    """Return what `work` returns for each site, sites side by side: the steps of one are too small for two threads."""
    with sharing_threads(torch.device("cpu"), sites) as threads:
        return across_threads(work, range(sites), threads)
