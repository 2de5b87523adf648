"""The default estimator: linear scores, raised by other estimators where they find significantly more."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_attn_mi.mi.discrete import discrete_information, repeated_information
from hf_attn_mi.mi.discriminant import OutOfFold, quadratic_information
from hf_attn_mi.mi.estimator import SiteData, SiteEstimate
from hf_attn_mi.mi.folds import jackknife_error
from hf_attn_mi.mi.neighbors import COMPONENTS, INFLATION, neighbor_information
from hf_attn_mi.mi.probe import fit_scores, linear_estimate, trust
from hf_attn_mi.mi.rng import draw_normal, make_rng

RAW_COMPONENTS = 64  # distances in so many components approximate those of the states, at a third of the cost
FEW_COMPONENTS = 4
OVERLAP_IGNORED = 1.0  # standard errors that are ignored between estimates from the same scores
IGNORED = 1.75  # standard errors that are ignored between other estimates
HIDDEN_NONE, HIDDEN_ALL = 0.1, 0.4  # share of the scores' information that neighbors of the states miss
SCORE_NEIGHBORS = 10
FEW_DIMENSIONS = 3


def estimate_auto(site: SiteData) -> SiteEstimate:
    """Return the estimate from linear scores, raised by neighbors, products and discrete coordinates.

    States that take few values are counted instead; see `repeated_information`.
    """
    repeated = repeated_information(site)
    if repeated is not None:
        return repeated
    closed, scores = fit_scores(site)
    linear, gain, weight = linear_estimate(site, closed, scores)
    subspaces = [
        (site.whitened.leading(RAW_COMPONENTS), "ksg"),
        (site.points[:, :COMPONENTS].contiguous(), "ksg_pca"),
        (site.points[:, :FEW_COMPONENTS].contiguous(), "ksg_pca"),
    ]
    others = [neighbor_information(points, site.labels, site.fold_of, part=part) for points, part in subspaces]
    others.append(quadratic_information(site))
    of_states = max(other.value for other in others)
    of_scores = score_estimate(site, closed, scores, gain, weight, of_states)
    discrete = discrete_information(site)
    others += [] if discrete is None else [discrete]
    return strongest(strongest(linear, [of_scores], OVERLAP_IGNORED), others)


def strongest(start: SiteEstimate, others: list[SiteEstimate], ignored: float = IGNORED) -> SiteEstimate:
    """Return the start, raised to each other estimate as far as that is significantly larger.

    Each estimate can miss information and none adds any, so that the largest is the best; but the maximum of noisy
    numbers is biased upward. A difference of `ignored` standard errors is attributed to chance, one of `ignored` + 1
    counts in full.
    """
    series = start.series
    part, extra, missing = start.part, start.extra_variance, start.missing
    for other in others:
        difference = other.series - series
        error = (float(jackknife_error(difference[1:])) ** 2 + other.extra_variance) ** 0.5
        weight = trust(float(difference[0]) / max(error, 1e-9), ignored)
        series = series + weight * difference
        extra += weight**2 * other.extra_variance
        missing += weight * (other.missing - missing)
        part = other.part if weight > 0.5 else part
    return SiteEstimate.from_series(series, part, extra_variance=extra, missing=missing)


def score_estimate(
    site: SiteData, closed: SiteEstimate, scores: OutOfFold, gain: Tensor, weight: float, of_states: float
) -> SiteEstimate:
    """Return the neighbor estimate on the out-of-fold scores, which includes what is not Gaussian in them.

    Where scores are nearly Gaussian, the excess of this estimate over the same on Gaussian scores of equal separation
    is added to the closed form, multiplied by its gain over the scores. Elsewhere the neighbor estimate is returned. It
    is returned as well where neighbors of the states find about as much as neighbors of the scores: then training has
    lost nothing, and clusters rather than Gaussian classes make the closed form large.

    Args:
        site: the data.
        closed: the result of `fit_scores`.
        scores: the result of `fit_scores`.
        gain: the result of `linear_estimate`.
        weight: the result of `linear_estimate`.
        of_states: largest neighbor estimate on the states, nats.
    """
    labels, fold_of, points = site.labels, site.fold_of, scores.scores
    fit = neighbor_information(points, labels, fold_of, part="scores", k=SCORE_NEIGHBORS)
    hidden = 1 - of_states / max(fit.value, 1e-9) if fit.value > 0 else 1.0
    weight *= min(1.0, max(0.0, (hidden - HIDDEN_NONE) / (HIDDEN_ALL - HIDDEN_NONE)))
    excess = fit.value - float(scores.gaussian[0])
    if weight == 0 or (points.shape[1] <= FEW_DIMENSIONS and excess < float(jackknife_error(fit.left_out))):
        return fit  # in few dimensions neighbors overestimate Gaussian scores, so that there is no excess here
    values, vectors = torch.linalg.eigh(scores.separation)
    means = (vectors * values.clamp_min(0).sqrt()).flip(1)[:, : points.shape[1]]
    # Different scores get different random numbers, so that sites do not share the error of one sample.
    generator = make_rng(site.mark, "reference")
    normal = draw_normal(points.shape, generator, points)
    reference = neighbor_information(
        (means[labels] + normal).float(), labels, fold_of, part="scores", k=SCORE_NEIGHBORS
    )
    raised = closed.series + (fit.series - reference.value) * gain
    # The jackknife over folds of the estimate does not include the error of the reference itself.
    error = float(jackknife_error(reference.left_out)) / INFLATION * weight * float(gain[0])
    mixed = weight * raised + (1 - weight) * fit.series
    return SiteEstimate.from_series(mixed, "scores", extra_variance=error**2)
