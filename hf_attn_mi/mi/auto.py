"""The default estimate of one slot: a discriminant, its non-Gaussian remainder and neighbours, by what each proves."""

from __future__ import annotations

from hf_attn_mi.mi.discrete import discrete_information
from hf_attn_mi.mi.discriminant import OutOfFold, discriminant_information
from hf_attn_mi.mi.entropy import entropy
from hf_attn_mi.mi.estimate import Estimate, Slot, from_series
from hf_attn_mi.mi.folds import jackknife_error
from hf_attn_mi.mi.gaussian import gaussian_information
from hf_attn_mi.mi.leave_out import sum_folds
from hf_attn_mi.mi.linear import linear_estimate, mean_series, score_estimate, trust
from hf_attn_mi.mi.neighbours import COMPONENTS, neighbour_information
from hf_attn_mi.mi.quadratic import quadratic_information
from hf_attn_mi.mi.repeats import repeated_information

RAW_COMPONENTS = 64  # whose distances stand for those of the states, at a third of the cost
FEW_COMPONENTS = 4
PARTLY_SHARED = 1.0  # standard errors below which a part on the same scores is taken to agree


def estimate_auto(slot: Slot) -> Estimate:
    """Return the default estimate: of linear scores, raised by what neighbours and products find beyond them."""
    repeated = repeated_information(slot)
    if repeated is not None:
        return repeated
    labels, fold_of, points = slot.labels, slot.fold_of, slot.principal.points
    closed, probe = _fit(slot)
    linear, gain, weight = linear_estimate(closed, probe, fold_of, _ceiling(slot))
    others = [
        neighbour_information(slot.principal.leading(RAW_COMPONENTS), labels, fold_of, part="ksg"),
        neighbour_information(points[:, :COMPONENTS].contiguous(), labels, fold_of, part="ksg_pca"),
        neighbour_information(points[:, :FEW_COMPONENTS].contiguous(), labels, fold_of, part="ksg_pca"),
        quadratic_information(slot),
    ]
    near = max(other.value for other in others)
    scores = score_estimate(closed, probe, labels, fold_of, gain, weight, near)
    discrete = discrete_information(slot)
    others += [] if discrete is None else [discrete]
    return strongest(strongest(linear, [scores], PARTLY_SHARED), others)


def estimate_probe(slot: Slot) -> Estimate:
    """Return the cross-fitted probe's information, a lower bound, and by how much training made it fall short."""
    closed, probe = _fit(slot)
    linear = linear_estimate(closed, probe, slot.fold_of, _ceiling(slot))[0]
    found = mean_series(probe.pointwise, slot.fold_of)
    n, classes = slot.probabilities.shape
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


def _fit(slot: Slot) -> tuple[Estimate, OutOfFold]:
    folds = sum_folds(slot.principal.points, slot.probabilities, slot.fold_of)
    return gaussian_information(folds), discriminant_information(slot, folds)


def _ceiling(slot: Slot) -> float:
    return float(entropy(slot.probabilities.mean(0)) - entropy(slot.probabilities).mean())
