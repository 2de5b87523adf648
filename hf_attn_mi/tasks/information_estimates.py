"""Estimate the information and fit the probes of each site from a sample of states."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.data.reservoir import Reservoir
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.mi import Effort, MutualInformation, Probe, draw_folds, fit_probe, mutual_information, output_ceiling
from hf_attn_mi.results.information_profile import Site
from hf_attn_mi.tasks.sites import DRAWS, SitePlan

FOLDS = 10
ALWAYS = ("tokens", "first")  # every input has them, and `explain` needs their probes
Cell = tuple[int, int]  # layer and pick, as indices in the sample


@dataclass(frozen=True, eq=False)
class Estimates:
    """The parts of an `InformationProfile`, and warnings."""

    sites: tuple[Site, ...]
    information: MutualInformation
    probe: Probe
    halves: tuple[Probe, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Problem:
    """Sites that the same inputs have: they share permutations and folds."""

    cells: list[Cell]
    rows: Tensor  # (n,) of the sample


def estimate(
    sample: Reservoir,
    plan: SitePlan,
    layers: tuple[int, ...],
    stack: str,
    *,
    estimator: str,
    effort: Effort,
    permutations: int,
    seed: int,
    device: torch.device,
) -> Estimates:
    """Information, probes and the probes of two halves of the inputs, for every site with enough examples.

    Sites that the same inputs have are estimated together, with the same permutations. Between such groups the
    family-wise p-values are Bonferroni's.

    Args:
        sample: states, and outputs of the model.
        plan: the definition of the picks.
        layers: the index of each layer in the sample.
        stack: the stack of these layers.
        estimator, effort, permutations, seed: as in `mutual_information`.
        device: where to compute; the results are on the CPU.

    Raises:
        InvalidInputError: too few inputs for the estimator, or one class only.
    """
    notes: list[str] = []
    kept = len(sample.owner)
    half = torch.randperm(kept, generator=torch.Generator().manual_seed(seed)) < kept // 2
    done: list[tuple[Problem, MutualInformation, list[Probe]]] = []
    for problem in _problems(sample, plan, layers, notes):
        names = list(dict.fromkeys(plan.names[pick] for _, pick in problem.cells))
        try:
            states = torch.stack([sample.states[layer, pick, problem.rows] for layer, pick in problem.cells])
            outputs = sample.outputs[problem.rows]
            estimates = mutual_information(
                states.to(device),
                outputs,
                estimator=estimator,
                effort=effort,
                permutations=permutations,
                seed=seed,
                names=[f"layer {layers[place]}, {plan.names[pick]}" for place, pick in problem.cells],
            )
            probes = [_fit(sample, plan, problem.cells, problem.rows, seed, device)]
        except InvalidInputError as error:
            if set(names) & set(ALWAYS):
                raise
            notes.append(f"{', '.join(names)}: left out, {len(problem.rows)} examples: {error}")
            continue
        try:
            sides = [problem.rows[half[problem.rows] == side] for side in (True, False)]
            probes += [_fit(sample, plan, problem.cells, rows, seed, device) for rows in sides]
        except InvalidInputError as error:
            notes.append(f"{', '.join(names)}: no split-half reliability, half of the inputs are too few: {error}")
            whole = probes[0]
            probes += [Probe(whole.directions * torch.nan, whole.offsets * torch.nan, whole.prior * torch.nan)] * 2
        done.append((problem, estimates, probes))
    return _joined(sample, plan, (stack, layers), done, notes)


def _problems(sample: Reservoir, plan: SitePlan, layers: tuple[int, ...], notes: list[str]) -> list[Problem]:
    """The sites with two examples or more, those of the same inputs together."""
    kept, short = len(sample.owner), {}
    estimates: dict[bytes, Problem] = {}
    for pick, name in enumerate(plan.names):
        if 0 < pick < DRAWS:  # the further draws of "tokens"
            continue
        for place, layer in enumerate(layers):
            present = sample.present[place, pick, :kept]
            count = int(present.sum())
            if (name.startswith("position ") and 2 * count < kept) or (name.startswith("attention ") and layer == 0):
                continue  # not aligned in most inputs, or embeddings, which have no attention to rank by
            if count < 2:
                short[name] = count
                continue
            key = present.numpy().tobytes()
            estimates.setdefault(key, Problem([], present.nonzero()[:, 0])).cells.append((place, pick))
    notes += [
        f"{name}: left out, since it has {count} examples and needs at least two." for name, count in short.items()
    ]
    return list(estimates.values())


def _fit(sample: Reservoir, plan: SitePlan, cells: list[Cell], rows: Tensor, seed: int, device: torch.device) -> Probe:
    """One probe for each cell, on the CPU: (cells, classes, width). "tokens" is fitted to all draws of an input."""
    pooled = [cell for cell in cells if plan.names[cell[1]] == "tokens"]
    single = [cell for cell in cells if cell not in pooled]
    outputs = sample.outputs[rows]
    fold_of = draw_folds(outputs.argmax(1), FOLDS, seed)
    probes: dict[Cell, tuple[Tensor, Tensor]] = {}
    for chosen, draws in ((pooled, DRAWS), (single, 1)):
        if chosen:
            states = torch.stack([sample.states[layer, pick : pick + draws, rows] for layer, pick in chosen])
            # The draws of an input share its output and much of its text: they share its fold, too. With random folds
            # the probe of an early layer was worse on new inputs than that of one draw (.055 to .068 nats, n = 300).
            by_input = states.transpose(1, 2).flatten(1, 2).to(device), outputs.repeat_interleave(draws, 0)
            probe = fit_probe(*by_input, folds=fold_of.repeat_interleave(draws), seed=seed)
            directions, offsets, prior = probe.directions.cpu(), probe.offsets.cpu(), probe.prior.cpu()
            probes |= {cell: (directions[i], offsets[i]) for i, cell in enumerate(chosen)}
    return Probe(torch.stack([probes[c][0] for c in cells]), torch.stack([probes[c][1] for c in cells]), prior)


def _joined(
    sample: Reservoir,
    plan: SitePlan,
    where: tuple[str, tuple[int, ...]],
    done: list[tuple[Problem, MutualInformation, list[Probe]]],
    notes: list[str],
) -> Estimates:
    """The groups in one, layer by layer; prior and ceiling are those of all inputs."""
    stack, layers = where
    kept, order = len(sample.owner), []
    for group, (problem, *_) in enumerate(done):
        order += [(cell, group, place) for place, cell in enumerate(problem.cells)]
    order.sort()
    whole = next(group for group, (problem, *_) in enumerate(done) if len(problem.rows) == kept)

    def gather(name: str) -> Tensor:
        return torch.stack([getattr(done[group][1], name)[place] for _, group, place in order])

    def probe(which: int) -> Probe:
        of = [(done[group][2][which], place) for _, group, place in order]
        return Probe(
            torch.stack([one.directions[place] for one, place in of]),
            torch.stack([one.offsets[place] for one, place in of]),
            done[whole][2][which].prior,
        )

    information = MutualInformation(
        lower_bound=gather("lower_bound"),
        upper_bound=gather("upper_bound"),
        lower_bound_normal=gather("lower_bound_normal"),
        nats=gather("nats"),
        interval=gather("interval"),
        p_value=gather("p_value"),
        family_p_value=(gather("family_p_value") * len(done)).clamp_max(1.0),
        null_mean=gather("null_mean"),
        ceiling=output_ceiling(sample.outputs[:kept]),
        n=kept,
        estimator=done[whole][1].estimator,
        parts=tuple(done[group][1].parts[place] for _, group, place in order),
        predictors=tuple(done[group][1].predictors[place] for _, group, place in order),
        effort=done[whole][1].effort,
        warnings=tuple(dict.fromkeys(text for _, estimates, _ in done for text in estimates.warnings)),
        names=tuple(done[group][1].names[place] for _, group, place in order),
    )
    sites = tuple(
        Site(layers[layer], stack, plan.names[pick], plan.pooled[pick], len(done[group][0].rows))
        for (layer, pick), group, _ in order
    )
    halves = () if bool(done[whole][2][1].prior.isnan().any()) else (probe(1), probe(2))
    return Estimates(sites, information, probe(0), halves, tuple(notes))
