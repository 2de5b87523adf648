"""`mutual_information` of states and outputs, and its result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.kernels.neighbors.operation import load_backend
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
    estimation_device,
    read_classes,
    read_states,
    read_vectors,
    small_classes,
)
from hf_attn_mi.mi.permutations import MAX_POINTS, Permutations, draw_permutations, p_values, permuted_statistics
from hf_attn_mi.mi.plots import plot_sites
from hf_attn_mi.mi.predictors import Effort, check_effort
from hf_attn_mi.mi.registry import get_estimator

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOTHING = 1e-9  # nats: outputs with a smaller ceiling are constant
NULL_SITES = 8  # sites in which the estimator is applied to permuted outputs


@dataclass(frozen=True, eq=False)
class MutualInformation:
    """Information between the states of each site and the output, in nats: bounds, and an estimate with its error.

    The bounds hold whatever the distribution is; the estimate assumes more and is usually nearer to the truth.
    Tensors are float64 of shape (sites,), or () for states (n, d). An estimate is signed: where there is no information
    it scatters around zero, so that it may be slightly negative.

    Attributes:
        lower_bound: each site has at least this much, with 97.5 % confidence for any number of examples; 0 says that
            nothing was proved. See `hf_attn_mi.mi.bounds.site_bounds`, and for continuous outputs
            `hf_attn_mi.mi.continuous_bounds.vector_bounds`.
        upper_bound: no site has more, with 97.5 % confidence: the information between input and output with its error.
            NaN for continuous outputs, of which none is known.
        lower_bound_normal: the lower bound by the normal approximation: shorter, and valid for many examples.
        nats: the estimate, never above the ceiling; that of "auto" never below the lower bound.
        interval: (sites, 2) or (2,): lower and upper end of the 95 % interval of the estimate, by a jackknife over
            folds: how much it would move with other examples. docs/methods/mutual_information.md says how often it
            covers the truth.
        p_value: the p-value of each site alone, from permuted outputs.
        family_p_value: family-wise over all sites: the same permutations in each, largest statistic of all.
        null_mean: mean estimate on permuted outputs, over up to eight sites: reported, not subtracted.
        ceiling: I(input; output) in nats, exact: no site has more. None for continuous outputs.
        n: examples.
        estimator: its name.
        parts: for each site the part of the estimator that the estimate rests on; "lower bound" where it was raised to
            the lower bound.
        predictors: for each site the predictor with the largest weight in its lower bound; "" where there is none.
        effort: the effort spent on the predictors.
        warnings: what limits the estimates.
    """

    lower_bound: Tensor
    upper_bound: Tensor
    lower_bound_normal: Tensor
    nats: Tensor
    interval: Tensor
    p_value: Tensor
    family_p_value: Tensor
    null_mean: Tensor
    ceiling: float | None
    n: int
    estimator: str
    parts: tuple[str, ...]
    predictors: tuple[str, ...]
    effort: str
    warnings: tuple[str, ...]

    @property
    def bits(self) -> Tensor:
        """The estimate in bits."""
        return self.nats / math.log(2)

    @property
    def share(self) -> Tensor | None:
        """The estimate over the ceiling; None without a ceiling, NaN where it is zero."""
        return None if self.ceiling is None else self.nats / (self.ceiling if self.ceiling > 0 else math.nan)

    def plot(
        self, path: str | Path | None = None, *, names: Sequence[str] | None = None, ax: Axes | None = None
    ) -> Figure:
        """Return a matplotlib figure: for each site the estimate with its interval, between the bounds.

        Args:
            path: where to write it; the suffix names the format (.png, .svg, .pdf).
            names: a name for each site; None for numbers.
            ax: matplotlib Axes to draw in; None for those of a new figure.

        Raises:
            BackendUnavailableError: matplotlib is not installed (extra `plots`).
            InvalidInputError: names that do not fit, `ax` that is no Axes, or a path that cannot be written.
        """
        return plot_sites(self, path, names, ax)

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with a row for each site: bounds, estimate, interval, p-values, part and predictor."""
        import pandas as pd

        names = ("lower_bound", "upper_bound", "nats", "p_value", "family_p_value", "null_mean")
        columns: dict[str, Any] = {name: getattr(self, name).reshape(-1).tolist() for name in names}
        low, high = self.interval.reshape(-1, 2).unbind(-1)
        columns |= {"low": low.tolist(), "high": high.tolist(), "part": self.parts, "predictor": self.predictors}
        return pd.DataFrame(columns)

    def to_text(self) -> str:
        """Return lines for a terminal: what is guaranteed, then what is estimated, for each site; then the warnings.

        Example:
            >>> classes = torch.arange(400) % 2
            >>> states = classes[:, None] + torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
            >>> print(mutual_information(states, classes, estimator="gaussian"))
            Mutual information in nats, 400 examples, estimator gaussian, ceiling 0.6931
            Bounds hold for any distribution (97.5 % each); an estimate has its 95 % interval.
            0.083 to 0.693; estimate 0.258 [0.207, 0.309], p = 0.005, family-wise p = 0.005
        """
        lines = [self._title(), "Bounds hold for any distribution (97.5 % each); an estimate has its 95 % interval."]
        table = self.to_pandas()
        for site, row in enumerate(table.itertuples()):
            bounds = f"{row.lower_bound:.3f} to {row.upper_bound:.3f}"
            if math.isnan(row.upper_bound):
                bounds = f"at least {row.lower_bound:.3f}"
            name = f"site {site}: " if len(table) > 1 else ""
            lines.append(
                f"{name}{bounds}; estimate {row.nats:.3f} [{row.low:.3f}, {row.high:.3f}], p = {row.p_value:.2g}, "
                f"family-wise p = {row.family_p_value:.2g}"
            )
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])

    def __str__(self) -> str:
        return self.to_text()

    def _title(self) -> str:
        ceiling = "" if self.ceiling is None else f", ceiling {self.ceiling:.4f}"
        return f"Mutual information in nats, {self.n} examples, estimator {self.estimator}{ceiling}"

    def _repr_html_(self) -> str:
        opening = (
            f"<p>{escape(self._title())}. lower_bound and upper_bound hold for any distribution (97.5 % each); nats is "
            "the estimate, low to high its 95 % interval.</p>"
        )
        return opening + str(self.to_pandas().to_html(float_format=lambda x: f"{x:.4g}"))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, `share` and `bits` as numbers, strings and lists, for JSON."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values |= {"share": self.share, "bits": self.bits}
        plain = {name: value.tolist() if isinstance(value, Tensor) else value for name, value in values.items()}
        lists = {name: list(getattr(self, name)) for name in ("parts", "predictors", "warnings")}
        return plain | lists


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
    flat = read_states(states)
    n = flat.shape[1]
    vectors = are_continuous(outputs, noise, continuous)
    spec = get_estimator(estimator, vectors=vectors)
    check_folds(folds, permutations, n)
    check_effort(effort)
    flat, warnings = _on_estimation_device(flat, effort)
    with torch.device("cpu"):  # what is drawn is drawn on the CPU, so that every device gets the same
        if isinstance(outputs, Tensor) and not outputs.is_meta:
            outputs = outputs.cpu()
        known = read_vectors(outputs, noise, n, seed) if vectors else read_classes(outputs, n, seed)
        # The test looks at neighbors among the leading components, which whitened coordinates do not have.
        labels = None if spec.coordinates == "whitened" else known.labels
        if vectors:  # neighbors are tested on the cells of a grid
            labels = cells_of(known.values, torch.ones(n, dtype=torch.bool))
        fold_of = draw_folds(known.labels, folds, seed)
        orders = draw_permutations(known.values, labels, permutations, seed)
        ceiling = None if vectors else ceiling_of(known.values)
        warnings += _repeated_outputs(known.values) if vectors else small_classes(known)
    device, noiseless = flat.device, vectors and noise is None
    run = _Estimation(spec, known.to(device), fold_of.to(device), orders.to(device), ceiling, folds, effort, noiseless)
    if run.constant:
        warnings += ("outputs are the same for every input: there is no information about them",)
    null_order = _null_orders(len(flat), permutations)
    load_backend(len(flat) * min(n, MAX_POINTS) ** 2, device)
    # Sites in parallel, each on one thread: the operations of one site are too small to share.
    with sharing_threads(device, len(flat)) as threads, nullcontext() if device.type == "cpu" else device:
        sites = across_threads(lambda i: run.site(flat[i], i, null_order.get(i)), range(len(flat)), threads)
    with torch.device("cpu"):
        return _result(run, sites, n, warnings, single=states.dim() == 2)


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

    spec: EstimatorSpec
    outputs: Outputs
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

    def site(self, states: Tensor, index: int, null_order: int | None) -> _SiteResult:
        """Estimate and test one site (n, d); `null_order` also applies the estimator to outputs in this order."""
        orders = self.permutations.orders
        whitened = site_coordinates(balance(states)[0], self.spec.coordinates)
        if whitened is None:
            lowest = torch.full((len(orders),), -torch.inf, dtype=torch.float64, device="cpu")
            return _SiteResult(
                None, None, lowest, [], [f"site {index}: all {len(states)} states are the same: no information"]
            )
        kept, warnings = whitened.points.shape[1], []
        if kept < whitened.rank:
            warnings.append(
                f"site {index}: n = {len(states)} examples are too few for {whitened.rank} independent directions: "
                f"estimated on the first {kept} principal components; information outside of them is missed"
            )
        if self.noiseless:
            refuse_functions(whitened.points, self.outputs.values, index)
        null = [] if null_order is None else [self._estimate(self._data(whitened, orders[null_order])).value]
        statistics = permuted_statistics(whitened, self.permutations).cpu()
        data = self._data(whitened, orders[0])
        bounds = None
        if not self.constant:
            bounds = vector_bounds(data, self.effort) if self.ceiling is None else site_bounds(data, self.effort)
        estimate = self._estimate(data)
        warnings += [f"site {index}: {estimate.note}"] if estimate.note else []
        return _SiteResult(estimate, bounds, statistics, null, warnings)

    def _data(self, whitened: WhitenedStates, order: Tensor) -> SiteData:
        """Return the states of a site with the outputs in this order."""
        known = self.outputs
        return SiteData(whitened, known.values[order], known.labels[order], self.fold_of, known.soft)

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
    most = math.nan if run.ceiling is None else 0.0 if run.constant else upper_bound(run.outputs.values)
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
                f"site {index}: the estimate {value:.3f} is below the lower bound {proved[0]:.3f}, which holds for any "
                "distribution: the data are not what this estimator assumes"
            )
        if estimate.value - width > ceiling:
            notes.append(
                f"site {index}: the estimate {estimate.value:.3f} is above the ceiling {ceiling:.3f}, which is reported"
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
    )


def _repeated_outputs(values: Tensor) -> tuple[str, ...]:
    """Return a warning for continuous outputs that take few values."""
    distinct = min(len(torch.unique(column)) for column in values.T)
    if distinct > len(values) / 2:
        return ()
    return (
        f"outputs: a column takes {distinct} values in {len(values)} examples: estimates of continuous outputs are too "
        "large or too small where values repeat, the bounds hold; pass integer classes where outputs are classes",
    )


def _null_orders(sites: int, permutations: int) -> dict[int, int]:
    """Return the permutation under which to apply the estimator, for a few sites spread evenly."""
    chosen = torch.linspace(0, sites - 1, min(sites, NULL_SITES)).round().long().tolist()
    return {site: 1 + index % permutations for index, site in enumerate(chosen)}
