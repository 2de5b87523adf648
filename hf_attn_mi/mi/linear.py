"""What linear scores of a site say: the closed form where they are Gaussian, else the probe and neighbors."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_attn_mi.mi.discriminant import OutOfFold
from hf_attn_mi.mi.estimate import Estimate, from_series
from hf_attn_mi.mi.folds import fold_means, jackknife_error
from hf_attn_mi.mi.neighbors import INFLATION, neighbor_information
from hf_attn_mi.mi.rng import stream

GAUSSIAN_FROM, GAUSSIAN_AT = 0.75, 0.95  # reached information over that expected of Gaussian scores
HIDDEN_NONE, HIDDEN_ALL = 0.1, 0.4  # share of the scores' information that neighbors of the states miss
SLACK = 2.0  # standard errors by which the first ratio may be off
WEAK = 0.03  # nats: below, ratios of two estimates are noise
MOST_GAIN = 3.0
NEIGHBORS = 10
IGNORED = 1.5  # standard errors by which parts differ by chance; one more, and the difference counts in full
FEW_DIMENSIONS = 3


def linear_estimate(
    closed: Estimate, probe: OutOfFold, fold_of: Tensor, ceiling: float
) -> tuple[Estimate, Tensor, float]:
    """Return the estimate from linear scores, how far scores lost information to training, and their Gaussianity.

    The closed form holds for Gaussian classes; the cross-fitted probe is a lower bound for any. Where the probe
    reaches what a probe of its training reaches on Gaussian scores, the closed form is taken; where it stays far below
    that, the probe; in between, their mixture.

    Args:
        closed: closed form.
        probe: out-of-fold scores.
        fold_of: (n,) long.
        ceiling: of the information, nats.

    Returns:
        The estimate; (1 + folds,) closed form over the Gaussian information of the out-of-fold scores, 1 to 3; and the
        weight of the closed form, 0 to 1.
    """
    second = mean_series(probe.second, fold_of)
    first = mean_series(probe.pointwise, fold_of)
    seen = probe.gaussian
    gaussian = closed.series
    expected = seen - probe.second_loss
    gap = second - expected
    # What Gaussian scores lose is known from one sample of them: about as uncertain as it is large.
    error = max(float(jackknife_error(gap[1:])) ** 2 + probe.second_loss**2, 1e-18) ** 0.5
    slack = SLACK * error
    # Both what is reached and, near the ceiling, what is left to it must be as Gaussian scores would have it.
    left, expected_left = ceiling - float(second[0]), max(0.0, ceiling - float(expected[0]))
    reached = min(
        _ratio(float(second[0]) + slack, float(expected[0]) + slack),
        _ratio(expected_left + slack, left + slack),
    )
    weight = min(1.0, max(0.0, (reached - GAUSSIAN_FROM) / (GAUSSIAN_AT - GAUSSIAN_FROM)))
    gain = torch.ones_like(seen)
    if float(seen[0]) > WEAK:
        gain = (gaussian / seen.clamp_min(WEAK / 3)).clamp(1, MOST_GAIN)
    found = first + weight * (gaussian - first)
    if float(seen[0]) > WEAK:  # scores say more than Gaussian ones of this separation could
        found = found + weight * trust(float(gap[0]) / error) * gap * gain
    part = "gaussian" if weight > 0.5 else "probe"
    return from_series(found, part), gain, weight


def score_estimate(
    closed: Estimate, probe: OutOfFold, labels: Tensor, fold_of: Tensor, gain: Tensor, weight: float, near: float
) -> Estimate:
    """Return the neighbors' estimate on the out-of-fold scores, for what is not Gaussian in them.

    Where scores are near Gaussian, what neighbors find beyond what they find in Gaussian scores of the same
    separation is added to the closed form, raised as that is for training; elsewhere their estimate is taken as it is.
    So it is where neighbors among the states themselves see about as much as among the scores: then training has
    hidden nothing, and clusters, not Gaussian classes, make the closed form large.

    Args:
        closed: closed form.
        probe: out-of-fold scores.
        labels: (n,) classes.
        fold_of: (n,) long.
        gain: from `linear_estimate`.
        weight: likewise.
        near: what neighbors among the states see, nats.
    """
    scores = probe.scores
    fit = neighbor_information(scores, labels, fold_of, part="scores", k=NEIGHBORS)
    found = fit.series
    hidden = 1 - near / max(fit.value, 1e-9) if fit.value > 0 else 1.0
    weight *= min(1.0, max(0.0, (hidden - HIDDEN_NONE) / (HIDDEN_ALL - HIDDEN_NONE)))
    above = fit.value - float(probe.gaussian[0])
    if weight == 0 or (scores.shape[1] <= FEW_DIMENSIONS and above < float(jackknife_error(fit.left_out))):
        return fit  # in few dimensions neighbors overshoot Gaussian scores, so that nothing is beyond them here
    values, vectors = torch.linalg.eigh(probe.separation)
    means = (vectors * values.clamp_min(0).sqrt()).flip(1)[:, : scores.shape[1]]
    # Other numbers for other scores: sites must not share the error of one sample.
    draw = stream(int(abs(fit.value) * 1e9), "reference")
    normal = torch.randn(scores.shape, generator=draw, dtype=torch.float64)
    reference = neighbor_information((means[labels] + normal).float(), labels, fold_of, part="scores", k=NEIGHBORS)
    raised = closed.series + (found - reference.value) * gain
    mixed = weight * raised + (1 - weight) * found
    # The reference's own error shows in no fold.
    error = float(jackknife_error(reference.left_out)) / INFLATION * weight * float(gain[0])
    return from_series(mixed, "scores", extra_variance=error**2)


def mean_series(pointwise: Tensor, fold_of: Tensor) -> Tensor:
    """Return (1 + folds,) the mean of values (n,), and without each fold."""
    return torch.cat([pointwise.mean()[None].double(), fold_means(pointwise, fold_of)])


def trust(errors: float, ignored: float = IGNORED) -> float:
    """Return the weight of a difference of so many standard errors: 0 up to `ignored`, 1 from one more."""
    return min(1.0, max(0.0, errors - ignored))


def _ratio(over: float, under: float) -> float:
    return over / under if under > 0 else 1.0
