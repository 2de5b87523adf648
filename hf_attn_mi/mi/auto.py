"""The default estimate of one site: a discriminant, its non-Gaussian remainder and neighbors, by what each proves."""

from __future__ import annotations

from hf_attn_mi.mi.discrete import discrete_information
from hf_attn_mi.mi.discriminant import OutOfFold, discriminant_information
from hf_attn_mi.mi.entropy import entropy
from hf_attn_mi.mi.estimate import Estimate, Site, from_series
from hf_attn_mi.mi.folds import jackknife_error
from hf_attn_mi.mi.gaussian import gaussian_information
from hf_attn_mi.mi.leave_out import sum_folds
from hf_attn_mi.mi.linear import linear_estimate, mean_series, score_estimate, trust
from hf_attn_mi.mi.neighbors import COMPONENTS, neighbor_information
from hf_attn_mi.mi.quadratic import quadratic_information
from hf_attn_mi.mi.repeats import repeated_information

RAW_COMPONENTS = 64  # whose distances stand for those of the states, at a third of the cost
FEW_COMPONENTS = 4
PARTLY_SHARED = 1.0  # standard errors below which a part on the same scores is taken to agree


def estimate_auto(site: Site) -> Estimate:
    """Return the default estimate: of linear scores, raised by what neighbors and products find beyond them."""
    repeated = repeated_information(site)
    if repeated is not None:
        return repeated
    labels, fold_of, points = site.labels, site.fold_of, site.principal.points
    closed, probe = _fit(site)
    linear, gain, weight = linear_estimate(closed, probe, fold_of, _ceiling(site))
    others = [
        neighbor_information(site.principal.leading(RAW_COMPONENTS), labels, fold_of, part="ksg"),
        neighbor_information(points[:, :COMPONENTS].contiguous(), labels, fold_of, part="ksg_pca"),
        neighbor_information(points[:, :FEW_COMPONENTS].contiguous(), labels, fold_of, part="ksg_pca"),
        quadratic_information(site),
    ]
    near = max(other.value for other in others)
    scores = score_estimate(closed, probe, labels, fold_of, gain, weight, near)
    discrete = discrete_information(site)
    others += [] if discrete is None else [discrete]
    return strongest(strongest(linear, [scores], PARTLY_SHARED), others)


def estimate_probe(site: Site) -> Estimate:
    """Return the cross-fitted probe's information, a lower bound, and by how much training made it fall short."""
    closed, probe = _fit(site)
    linear = linear_estimate(closed, probe, site.fold_of, _ceiling(site))[0]
    found = mean_series(probe.pointwise, site.fold_of)
    n, classes = site.probabilities.shape
    # A calibration of K + 1 numbers moves the mean by chi-square / 2 n even where there is nothing to find.
    noise = (1 + classes) / (2 * n**2)
    missing = max(linear.value, 0.0) - float(found[0])
    return from_series(found, "probe", extra_variance=noise, missing=max(0.0, missing))


def strongest(start: Estimate, others: list[Estimate], ignored: float = 1.75) -> Estimate:
    """Return the start, raised to each other estimate as far as that is above it by more than chance.

    Every part misses something and none invents it, so the largest is nearest; but the largest of noisy numbers is too
    large. A difference of `ignored` standard errors is taken for chance, one of one more in full.
    """
    value = start.series
    part, extra, missing = start.part, start.extra_variance, start.missing
    for other in others:
        apart = other.series - value
        error = (float(jackknife_error(apart[1:])) ** 2 + other.extra_variance) ** 0.5
        weight = trust(float(apart[0]) / max(error, 1e-9), ignored)
        value = value + weight * apart
        extra += weight**2 * other.extra_variance
        missing += weight * (other.missing - missing)
        part = other.part if weight > 0.5 else part
    return from_series(value, part, extra_variance=extra, missing=missing)


def _fit(site: Site) -> tuple[Estimate, OutOfFold]:
    folds = sum_folds(site.principal.points, site.probabilities, site.fold_of)
    return gaussian_information(folds), discriminant_information(site, folds)


def _ceiling(site: Site) -> float:
    return float(entropy(site.probabilities.mean(0)) - entropy(site.probabilities).mean())
