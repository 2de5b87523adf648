"""Information between two continuous vectors: copulas, Kraskov's neighbors, and which of them to believe.

Every coordinate is replaced by the normal quantile of its rank, which changes no information: monotone maps of single
coordinates are one to one.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from hf_attn_mi.mi.coordinates import principal_components, rank_normal
from hf_attn_mi.mi.copula_ratios import CopulaRatios, Ratios, cross_fitted_ratios
from hf_attn_mi.mi.estimator import SiteData, SiteEstimate
from hf_attn_mi.mi.folds import fold_means, jackknife_error, mean_series
from hf_attn_mi.mi.gaussian import estimate_gaussian_continuous
from hf_attn_mi.mi.rng import draw_normal, make_rng

NEIGHBORS = 5
MAX_POINTS = 10_000  # examples that neighbors are taken from: the cost is quadratic in n
TILE_ELEMENTS = 2**21
JITTER = 1e-6  # in standard deviations: equal values have no neighbor at a positive distance
INFLATION = 1.3  # factor on the spread of fold means, which does not account for neighbors that points share
SUPPORTED_FROM, SUPPORTED_AT = 0.5, 0.8  # held-out log ratio over what a Gaussian copula would reach
MOST_LOST = 0.5  # share of the closed form that training may cost
WEAK = 0.01  # nats: below, the ratio of two estimates is noise
IGNORED = 1.75  # standard errors that are ignored between two estimates, and between two copulas
NAMES = {"gaussian_copula": "Gaussian", "student_copula": "Student"}
HELD_OUT = {"gaussian_copula": "held-out gaussian", "student_copula": "held-out student"}
NEARLY = 10.0  # divided by n: with a smaller share of unexplained variance, outputs may be a function of the states
NEAR_LIMIT = 0.75  # share of log n, which Kraskov's estimate cannot exceed
DISAGREE_NATS, DISAGREE_SHARE = 0.1, 0.2  # smaller differences give no warning


def estimate_gaussian_copula(site: SiteData) -> SiteEstimate:
    """Return the closed form for jointly Gaussian data, of the normal quantiles of the ranks of every coordinate.

    Exact where a monotone map of each coordinate makes states and outputs jointly Gaussian.

    Raises:
        InvalidInputError: too few examples for so many components.
    """
    return replace(estimate_gaussian_continuous(_normal_site(site)), part="gaussian_copula")


def estimate_ksg_continuous(site: SiteData) -> SiteEstimate:
    """Return the estimator of Kraskov, Stoegbauer and Grassberger (arXiv cond-mat/0305641), their first algorithm.

    With eps_i the distance of example i to its k-th neighbor, the larger of the Euclidean distances of states and of
    outputs, and n_x, n_y the numbers of examples nearer than eps_i in states and in outputs alone,

        I = psi(k) + psi(n) - mean of psi(n_x + 1) + psi(n_y + 1),   k = 5,

    on the normal quantiles of ranks. It uses the first 10,000 examples. It assumes that the joint density is constant
    within eps_i, so that it falls short in many dimensions and near log n.
    """
    pointwise = kraskov_terms(rank_normal(site.whitened.balanced), rank_normal(site.outputs))
    fold_of = site.fold_of[: len(pointwise)]
    left_out = fold_means(pointwise, fold_of)
    value = float(pointwise.mean())
    return SiteEstimate(value, value + INFLATION * (left_out - left_out.mean()), "ksg_continuous")


def kraskov_terms(left: Tensor, right: Tensor, k: int = NEIGHBORS) -> Tensor:
    """Return (n,) float64 terms whose mean is Kraskov's estimate, of the first 10,000 examples.

    Args:
        left: (n, p).
        right: (n, m).
        k: neighbors.

    Example:
        >>> draw = torch.Generator().manual_seed(0)
        >>> x, noise = torch.randn(2000, 1, generator=draw), torch.randn(2000, 1, generator=draw)
        >>> abs(float(kraskov_terms(x, 0.8 * x + 0.6 * noise).mean()) - 0.51) < 0.1  # true: -log(1 - 0.64) / 2 = 0.51
        True
    """
    spaces = [_jittered(values[:MAX_POINTS], name) for values, name in ((left, "left"), (right, "right"))]
    n = len(spaces[0])
    k = min(k, n - 1)
    step = max(1, TILE_ELEMENTS // n)
    terms = []
    for start in range(0, n, step):
        rows = torch.arange(start, min(start + step, n))
        first, second = (_distances(points[rows], points) for points in spaces)
        joint = torch.maximum(first, second)
        joint[torch.arange(len(rows)), rows] = torch.inf
        radius = joint.kthvalue(k, dim=1, keepdim=True).values
        # The point itself is counted: n_x + 1.
        counts = [(distance < radius).sum(1).clamp_min(1).double() for distance in (first, second)]
        terms.append(torch.digamma(counts[0]) + torch.digamma(counts[1]))
    constant = float(torch.digamma(torch.tensor(float(k))) + torch.digamma(torch.tensor(float(n))))
    return constant - torch.cat(terms)


def estimate_auto_continuous(site: SiteData) -> SiteEstimate:
    """Return a copula's information where held-out examples support it, raised by that of neighbors.

    The copula is the Gaussian one, or the Student one where its held-out log ratio is larger by more than chance; to
    the closed form of the first, the second adds what its degrees of freedom say beside correlations. The closed form
    is used as far as the model, fitted without a fold, predicts that fold as well as it would if it were true after the
    same training; where it does not, its held-out log ratio, which is less. Kraskov's estimate replaces it as far as it
    is larger by more than chance. `part` says which decided, and where the two disagree the result has a note.
    """
    gaussian = estimate_gaussian_copula(site)
    neighbors = estimate_ksg_continuous(site)
    both = site.once(cross_fitted_ratios)
    closed, ratios = _copula(site, gaussian, both)
    held_out = mean_series(ratios.pointwise, site.fold_of)
    # Of many directions those that fit by chance make `expected` too large.
    fitted = max(closed.value - both.loss, MOST_LOST * closed.value)
    weight = _support(held_out, min(ratios.expected, max(0.0, fitted)))
    series = held_out + weight * (closed.series - held_out)
    start = SiteEstimate.from_series(series, closed.part if weight > 0.5 else HELD_OUT[closed.part])
    difference = neighbors.series - start.series
    error = max(float(jackknife_error(difference[1:])), 1e-9)
    trusted = min(1.0, max(0.0, float(difference[0]) / error - IGNORED))
    part = neighbors.part if trusted > 0.5 else start.part
    note = _note(closed, neighbors, float(held_out[0]), part)
    if 1 - both.largest**2 < NEARLY / len(site.outputs) or neighbors.value > NEAR_LIMIT * math.log(len(site.outputs)):
        note += ("; " if note else "") + (
            f"the noise is so small that {len(site.outputs)} examples cannot distinguish it from none: if outputs are "
            "a function of the states, their information is infinite"
        )
    return SiteEstimate.from_series(start.series + trusted * difference, part, note=note)


def _copula(site: SiteData, gaussian: SiteEstimate, both: CopulaRatios) -> tuple[SiteEstimate, Ratios]:
    """Return the closed form and the ratios of the copula that predicts held-out examples better."""
    if both.student is None:
        return gaussian, both.gaussian
    gain = mean_series(both.student.pointwise - both.gaussian.pointwise, site.fold_of)
    if float(gain[0]) <= IGNORED * float(jackknife_error(gain[1:])):
        return gaussian, both.gaussian
    radial = torch.cat([both.radial.mean()[None], both.radial])
    return SiteEstimate.from_series(gaussian.series + radial, "student_copula"), both.student


def _support(held_out: Tensor, expected: float) -> float:
    """Return the weight of the closed form: 1 where the held-out log ratio is what a Gaussian copula would give."""
    slack = 2 * float(jackknife_error(held_out[1:])) + WEAK
    reached = (float(held_out[0]) + slack) / (expected + slack)
    return min(1.0, max(0.0, (reached - SUPPORTED_FROM) / (SUPPORTED_AT - SUPPORTED_FROM)))


def _note(closed: SiteEstimate, neighbors: SiteEstimate, held_out: float, part: str) -> str:
    """Return a warning where the two estimates disagree by more than their errors, else ""."""
    apart = abs(closed.value - neighbors.value)
    error = math.hypot(float(jackknife_error(closed.left_out)), float(jackknife_error(neighbors.left_out)))
    if apart < DISAGREE_NATS + 2 * error or apart < DISAGREE_SHARE * max(closed.value, neighbors.value):
        return ""
    name = NAMES[closed.part]
    if part == closed.part:
        reason = (
            f"the {name} copula, which predicts held-out examples as well as it should; neighbors miss information in "
            "many dimensions"
        )
    elif part == neighbors.part:
        reason = f"the neighbors, which find more than a {name} copula explains"
    else:
        reason = f"the prediction of held-out examples by the {name} copula, less than its closed form"
    return (
        f"the {name} copula says {closed.value:.3f} (held out {held_out:.3f}), nearest neighbors "
        f"{neighbors.value:.3f}: they disagree, and the estimate follows {reason}"
    )


def _normal_site(site: SiteData) -> SiteData:
    """Return the site with the whitened normal quantiles of ranks; columns of equal ranks count once."""
    scores = [rank_normal(values).float() for values in (site.whitened.balanced, site.outputs)]
    states, outputs = (principal_components(values - values.mean(0)) for values in scores)
    assert states is not None, "constant states are handled before"
    assert outputs is not None, "constant outputs are refused"
    return replace(site, whitened=states, outputs=outputs.points.double())


def _jittered(values: Tensor, name: str) -> Tensor:
    """Return float64 values, with noise of a millionth of their spread where entries repeat."""
    exact = values.double()
    if len(torch.unique(exact[:, 0])) == len(exact):
        return exact
    return exact + JITTER * exact.std() * draw_normal(exact.shape, make_rng(0, f"jitter {name}"), exact)


def _distances(rows: Tensor, points: Tensor) -> Tensor:
    if points.shape[1] == 1:
        return (rows - points[:, 0]).abs()
    # Differences, not products: cancellation would matter among near neighbors. Many coordinates have no near ones.
    mode = "donot_use_mm_for_euclid_dist" if points.shape[1] <= 16 else "use_mm_for_euclid_dist"
    return torch.cdist(rows, points, compute_mode=mode)
