"""`mutual_information` of states and outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.kernels.large_calls import part_of_call
from hf_attn_mi.kernels.threads import across_threads, sharing_threads
from hf_attn_mi.mi.bounds import SiteBounds, site_bounds, upper_bound
from hf_attn_mi.mi.continuous_bounds import cells_of, vector_bounds
from hf_attn_mi.mi.coordinates import WhitenedStates, balance, site_coordinates
from hf_attn_mi.mi.deterministic import refuse_functions
from hf_attn_mi.mi.estimator import EstimatorSpec, SiteData, SiteEstimate
from hf_attn_mi.mi.folds import draw_folds, half_width, jackknife_error
from hf_attn_mi.mi.inputs import (
    Outputs,
    are_continuous,
    ceiling_of,
    check_folds,
    check_lengths,
    estimation_device,
    read_classes,
    read_names,
    read_states,
    read_vectors,
    repeated_examples,
    repeated_outputs,
    rounded_away,
    small_classes,
    usual_settings,
)
from hf_attn_mi.mi.permutations import MAX_POINTS, Permutations, draw_permutations, p_values, permuted_statistics
from hf_attn_mi.mi.predictors import Effort, check_effort
from hf_attn_mi.mi.registry import get_estimator
from hf_attn_mi.mi.result import MutualInformation
from hf_attn_mi.mi.rng import make_rng, mark_of

IN_ORDER = 2000  # examples up to which no part takes only the first of them: more are put in random order
NOTHING = 1e-9  # nats: outputs with a smaller ceiling are constant
NULL_SITES = 8  # sites in which the estimator is applied to permuted outputs


def mutual_information(
    states: Tensor,
    outputs: Tensor,
    *,
    estimator: str = "auto",
    effort: Effort = "fast",
    folds: int = 10,
    permutations: int = 200,
    seed: int = 0,
    noise: float | Tensor | None = None,
    continuous: bool | None = None,
    names: Sequence[str] | None = None,
) -> MutualInformation:
    """Return the mutual information of each site's states and the output, in nats, with bounds, interval and p-value.

    A network is deterministic, so the output is its own random variable: the class drawn from P(. | input) for soft
    outputs, the class itself for hard ones, a vector with declared noise, or measured numbers. For classes
    I(state; Y) = H(Y) - H(Y | state) lies between 0 and the ceiling I(input; Y), which is exact. Definitions,
    estimators: docs/methods/mutual_information.md; their errors: docs/methods/mutual_information_accuracy.md.

    Args:
        states: (n, d) or (sites, n, d), floating point; every site has the same n examples.
        outputs: (n,) integer classes; (n, K) probabilities, softmax of the logits; or (n,) or (n, m) continuous numbers
            (see `continuous`).
        estimator: a name of `list_estimators()`: "auto"; "gaussian", closed form for Gaussian classes; "probe", a
            cross-fitted linear lower bound; "ksg" and "ksg_pca", nearest neighbors on the states or on eight principal
            components; "logistic", cross-fitted logistic regression; or one that was added with `register_estimator`.
            For continuous outputs: "auto" (also called "auto_continuous"), which chooses between "gaussian_copula" and
            "ksg_continuous", nearest neighbors; and "gaussian_continuous", for jointly Gaussian data.
        effort: the effort spent on the predictors that the lower bound rests on: "fast" (linear and neighbors),
            "default" (also boosted trees, seconds a site) or "thorough" (more trees, many seconds a site). More effort
            makes the bound tighter.
        folds: the folds of cross-fitting and of the jackknife.
        permutations: the number of permutations of the test, the same in every site.
        seed: the random seed for folds, permutations, and draws of classes and noise.
        noise: standard deviation, (m,) or one for all, of independent normal noise on vector outputs: the result is the
            information between states and outputs + noise. The vectors of a deterministic network need it.
        continuous: whether outputs are continuous numbers. By default those of `noise`, and (n,) floating point numbers
            that are not all whole.
        names: a name for each site, for what is printed, drawn and warned about.

    Raises:
        InvalidInputError: wrong shapes or dtypes, NaN, probabilities that do not sum to one, other lengths, one class
            only, fewer than 20 examples a class, an unknown estimator, too few or too many folds, continuous outputs
            that are a function of the states: their information is infinite.

    Example:
        >>> draw = torch.Generator().manual_seed(0)
        >>> classes = torch.randint(2, (2000,), generator=draw)
        >>> states = torch.randn(2000, 16, generator=draw) + classes[:, None] * 0.5  # two standard deviations apart
        >>> result = mutual_information(states, classes)
        >>> round(result.nats.item(), 1), round(result.ceiling, 2), result.p_value.item() < 0.01  # true: 0.336
        (0.3, 0.69, True)
        >>> measured = states[:, :2].sum(1) + 2.0 * torch.randn(2000, generator=draw)
        >>> result = mutual_information(states[:, :3], measured)  # continuous
        >>> round(result.nats.item(), 1), bool(result.lower_bound <= result.nats), result.parts
        (0.2, True, ('gaussian_copula',))
    """
    flat, called = read_states(states), read_names(names, states)
    with usual_settings(flat.device):
        vectors = are_continuous(outputs, noise, continuous)
        spec = get_estimator(estimator, vectors=vectors)
        check_lengths(states, outputs)
        check_folds(folds, permutations, flat.shape[1])
        check_effort(effort)
        flat, warnings = _on_estimation_device(flat, effort)
        with torch.device("cpu"):  # what is drawn is drawn on the CPU, so that every device gets the same
            run, notes = _prepared(
                flat, outputs, called, spec, folds, permutations, seed, noise, effort, vectors=vectors
            )
        sites = _sites(run, flat, permutations)
        with torch.device("cpu"):
            return _result(run, sites, flat.shape[1], (*warnings, *notes), single=states.dim() == 2)


def _prepared(
    flat: Tensor,
    outputs: Tensor,
    names: tuple[str, ...],
    spec: EstimatorSpec,
    folds: int,
    permutations: int,
    seed: int,
    noise: float | Tensor | None,
    effort: Effort,
    *,
    vectors: bool,
) -> tuple[_Estimation, tuple[str, ...]]:
    """Return what all sites share, with outputs read and folds and permutations drawn; and warnings."""
    n, device = flat.shape[1], flat.device
    if isinstance(outputs, Tensor) and not outputs.is_meta:
        outputs = outputs.cpu()
    known = read_vectors(outputs, noise, n, seed) if vectors else read_classes(outputs, n, seed)
    warnings = repeated_examples(flat, known.values)
    shuffle = torch.randperm(n, generator=make_rng(seed, "examples")) if n > IN_ORDER else None
    if shuffle is not None:
        known = replace(known, values=known.values[shuffle], labels=known.labels[shuffle])
    # The test looks at neighbors among the leading components, which whitened coordinates do not have.
    labels = None if spec.coordinates == "whitened" else known.labels
    if vectors:  # neighbors are tested on the cells of a grid
        labels = cells_of(known.values, torch.ones(n, dtype=torch.bool))
    ceiling = None if vectors else ceiling_of(known.values)
    warnings += repeated_outputs(known.values) if vectors else small_classes(known)
    run = _Estimation(
        names,
        spec,
        known.to(device),
        None if shuffle is None else shuffle.to(device),
        draw_folds(known.labels, folds, seed).to(device),
        draw_permutations(known.values, labels, permutations, seed).to(device),
        ceiling,
        folds,
        effort,
        vectors and noise is None,
    )
    if run.constant:
        warnings += (f"outputs are the same for all {n} examples: these tell nothing about them",)
    return run, warnings


def _sites(run: _Estimation, flat: Tensor, permutations: int) -> list[_SiteResult]:
    """Return the estimate, bounds and statistics of each site."""
    null_order = _null_orders(len(flat), permutations)
    pairs = len(flat) * min(flat.shape[1], MAX_POINTS) ** 2
    # Sites in parallel, each on one thread: the operations of one site are too small to share.
    on_device = nullcontext() if flat.device.type == "cpu" else flat.device
    with part_of_call(pairs), sharing_threads(flat.device, len(flat)) as threads, on_device:
        return across_threads(lambda i: run.site(flat[i], i, null_order.get(i)), range(len(flat)), threads)


def _on_estimation_device(flat: Tensor, effort: Effort) -> tuple[Tensor, tuple[str, ...]]:
    """Return the states where they are estimated: on their own device if it has float64; and warnings."""
    device = flat.device
    if estimation_device(device) != device:
        flat = flat.to(estimation_device(device))
        return flat, (f"states are on {device}, which has no float64: everything was computed on the {flat.device}",)
    if device.type == "cpu" or effort == "fast":
        return flat, ()
    return flat, (f"the boosted trees (scikit-learn) were fitted on the CPU, everything else was computed on {device}",)


@dataclass(frozen=True, eq=False)
class _SiteResult:
    """One site: estimate and bounds (None: constant states), test statistics, permuted estimates, warnings."""

    estimate: SiteEstimate | None
    bounds: SiteBounds | None
    statistics: Tensor  # (1 + permutations,)
    null: list[float]
    warnings: list[str]


@dataclass(frozen=True, eq=False)
class _Estimation:
    """The data that all sites share."""

    names: tuple[str, ...]  # of the sites; () without
    spec: EstimatorSpec
    outputs: Outputs
    shuffle: Tensor | None  # (n,) long: the order of the examples in all that follows; None: the caller's
    fold_of: Tensor
    permutations: Permutations
    ceiling: float | None
    folds: int
    effort: Effort
    noiseless: bool  # continuous outputs without declared noise

    @property
    def constant(self) -> bool:
        """Whether the outputs are the same for every input."""
        return self.ceiling is not None and self.ceiling < NOTHING

    def name(self, index: int) -> str:
        """Return what the site is called."""
        return self.names[index] if self.names else f"site {index}"

    def site(self, states: Tensor, index: int, null_order: int | None) -> _SiteResult:
        """Estimate and test one site (n, d); `null_order` also applies the estimator to outputs in this order."""
        orders, name = self.permutations.orders, self.name(index)
        if self.shuffle is not None:
            states = states[self.shuffle]
        balanced, divisors = balance(states)
        lost = rounded_away(states, divisors)
        whitened = site_coordinates(balanced, self.spec.coordinates)
        if whitened is None:
            lowest = torch.full((len(orders),), -torch.inf, dtype=torch.float64, device="cpu")
            return _SiteResult(
                None,
                None,
                lowest,
                [],
                [f"{name}: {lost or f'all {len(states)} states are the same'}: no information"],
            )
        kept, warnings = whitened.points.shape[1], [f"{name}: {lost}"] if lost else []
        if kept < whitened.rank:
            warnings.append(
                f"{name}: n = {len(states)} examples are too few for {whitened.rank} independent directions: "
                f"estimated on the first {kept} principal components; information outside of them is missed"
            )
        if self.noiseless:
            refuse_functions(whitened.points, self.outputs.values, name)
        null = []
        if null_order is not None:
            null = [self._estimate(self._data(whitened, orders[null_order], states)).value]
        statistics = permuted_statistics(whitened, self.permutations).cpu()
        data = self._data(whitened, orders[0], states)
        bounds = None
        if not self.constant:
            bounds = vector_bounds(data, self.effort) if self.ceiling is None else site_bounds(data, self.effort)
        estimate = self._estimate(data)
        warnings += [f"{name}: {estimate.note}"] if estimate.note else []
        return _SiteResult(estimate, bounds, statistics, null, warnings)

    def _data(self, whitened: WhitenedStates, order: Tensor, states: Tensor) -> SiteData:
        """Return the states of a site with the outputs in this order."""
        known = self.outputs
        labels = known.labels[order]
        return SiteData(whitened, known.values[order], labels, self.fold_of, known.soft, mark_of(states, labels))

    def _estimate(self, site: SiteData) -> SiteEstimate:
        """Apply the estimator."""
        if self.constant:
            return SiteEstimate(0.0, torch.zeros(self.folds, dtype=torch.float64), "constant")
        estimate = self.spec.function(site)
        if not isinstance(estimate, SiteEstimate) or estimate.left_out.shape != (self.folds,):
            raise InvalidInputError(
                f"estimator {self.spec.name!r} must return a SiteEstimate whose left_out has shape ({self.folds},)"
            )
        return estimate


def _result(
    run: _Estimation, sites: list[_SiteResult], n: int, warnings: tuple[str, ...], *, single: bool
) -> MutualInformation:
    """Return intervals and p-values of all sites; numbers instead of vectors for a `single` one."""
    ceiling = math.inf if run.ceiling is None else run.ceiling
    rows, parts, notes = [], [], list(warnings)
    most = math.nan if run.ceiling is None else upper_bound(run.outputs.values)
    for index, site in enumerate(sites):
        notes += site.warnings
        estimate, bounds = site.estimate, site.bounds
        proved = (0.0, most, 0.0) if bounds is None else (bounds.lower, most, bounds.lower_normal)
        parts.append("constant" if estimate is None else estimate.part)
        if estimate is None:
            rows.append((*proved, 0.0, 0.0, 0.0))
            continue
        error = (float(jackknife_error(estimate.left_out)) ** 2 + estimate.extra_variance) ** 0.5
        width = half_width(error, run.folds)
        value = min(estimate.value, ceiling)
        if proved[0] > value and run.spec.within_bounds:
            value, parts[-1] = min(proved[0], ceiling), "lower bound"
        elif proved[0] > max(value, 0.0):  # an estimate is signed where there is no information
            notes.append(
                f"{run.name(index)}: the estimate {value:.3f} is below the lower bound {proved[0]:.3f}, which holds "
                "for any distribution: the data are not what this estimator assumes"
            )
        if estimate.value - width > ceiling:
            notes.append(
                f"{run.name(index)}: the estimate {estimate.value:.3f} is above the ceiling {ceiling:.3f}, which is "
                "reported"
            )
        # Centered on what is reported: an estimate far above the ceiling must not get an interval of no width.
        upper = min(max(estimate.value + estimate.missing + width, value), ceiling)
        rows.append((*proved, value, value - width, upper))
    table = torch.tensor(rows, dtype=torch.float64)
    p_value, family_p_value = p_values(torch.stack([site.statistics for site in sites]))
    null = torch.tensor([value for site in sites for value in site.null], dtype=torch.float64)
    null_mean = null.mean() if len(null) else torch.zeros((), dtype=torch.float64)
    columns = (*table[:, :4].unbind(1), table[:, 4:], p_value, family_p_value, null_mean.expand(len(sites)).clone())
    lower, upper_end, lower_normal, nats, interval, p_value, family_p_value, null_mean = (
        column[0] if single else column for column in columns
    )
    return MutualInformation(
        lower_bound=lower,
        upper_bound=upper_end,
        lower_bound_normal=lower_normal,
        nats=nats,
        interval=interval,
        p_value=p_value,
        family_p_value=family_p_value,
        null_mean=null_mean,
        ceiling=run.ceiling,
        n=n,
        estimator=run.spec.name,
        parts=tuple(parts),
        predictors=tuple("" if site.bounds is None else site.bounds.predictor for site in sites),
        effort=run.effort,
        warnings=tuple(notes),
        names=run.names,
    )


def _null_orders(sites: int, permutations: int) -> dict[int, int]:
    """Return the permutation under which to apply the estimator, for a few sites spread evenly."""
    chosen = torch.linspace(0, sites - 1, min(sites, NULL_SITES)).round().long().tolist()
    return {site: 1 + index % permutations for index, site in enumerate(chosen)}
