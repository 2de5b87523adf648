"""Linear scores of a site: the calibrated probe, its information, and the closed form where scores are Gaussian."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.mi.calibration import calibrate
from hf_attn_mi.mi.coordinates import balance, principal_components
from hf_attn_mi.mi.discriminant import OutOfFold, discriminant_information
from hf_attn_mi.mi.estimator import SiteData, SiteEstimate
from hf_attn_mi.mi.folds import draw_folds, jackknife_error, mean_series
from hf_attn_mi.mi.gaussian import gaussian_information
from hf_attn_mi.mi.inputs import (
    Outputs,
    ceiling_of,
    check_folds,
    estimation_device,
    read_classes,
    read_states,
    usual_settings,
)

GAUSSIAN_FROM, GAUSSIAN_AT = 0.75, 0.95  # information over that expected of Gaussian scores
SLACK = 2.0  # standard errors by which the first ratio may be off
WEAK = 0.03  # nats: for smaller estimates the ratio of two of them is noise
MAX_GAIN = 3.0
IGNORED = 1.5  # standard errors that are ignored


@dataclass(frozen=True, eq=False)
class Probe:
    """log q(class | h) = log_softmax(h @ directions^T + offsets); leading dimensions are sites, if there are any.

    Attributes:
        directions: (..., K, d).
        offsets: (..., K).
        prior: (K,) class probabilities in the profile.
    """

    directions: Tensor
    offsets: Tensor
    prior: Tensor

    def log_posterior(self, states: Tensor) -> Tensor:
        """Return (..., n, K) log q(class | state) in nats for states (..., n, d)."""
        logits = states.to(self.directions.dtype) @ self.directions.transpose(-1, -2) + self.offsets[..., None, :]
        return logits.log_softmax(-1)


def fit_probe(states: Tensor, outputs: Tensor, *, folds: int | Tensor = 10, seed: int = 0) -> Probe:
    """Return the probe whose cross-fitted information `mutual_information(..., estimator="probe")` reports.

    The ridge discriminant (for soft outputs also the regression of their log odds) whose out-of-fold scores have the
    least cross-entropy, on a path of ridges. Temperature and class offsets are fitted to these scores, so that log q is
    calibrated for new inputs; the directions are fitted to all examples. For constant states q is the prior.

    Args:
        states: (n, d) or (sites, n, d) of the profile.
        outputs: (n,) integer classes or (n, K) probabilities. K counts classes that do not occur; their log q is -inf
            or close to it.
        folds: number of folds; or (n,) the fold of each example, so that several states of one input share it.
        seed: the random seed for the folds.

    Returns:
        float32 directions (K, d) and offsets (K,), with (sites,) before them if states have it.

    Raises:
        InvalidInputError: as `mutual_information`.

    Example:
        >>> classes = torch.arange(400) % 2
        >>> states = classes[:, None] + torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
        >>> fit_probe(states, classes).log_posterior(torch.tensor([[0.0, 0, 0], [1, 1, 1]])).argmax(-1)
        tensor([0, 1])
    """
    flat = read_states(states)
    with usual_settings(flat.device):
        return _fit_sites(flat, outputs, folds, seed, single=states.dim() == 2)


def _fit_sites(flat: Tensor, outputs: Tensor, folds: int | Tensor, seed: int, *, single: bool) -> Probe:
    """Return the probe of all sites (sites, n, d)."""
    check_folds(folds if isinstance(folds, int) else int(folds.max()) + 1, 1, flat.shape[1])
    device = estimation_device(flat.device)
    flat = flat.to(device)
    with torch.device("cpu"):
        known = read_classes(outputs.cpu(), flat.shape[1], seed)
        fold_of = draw_folds(known.labels, folds, seed) if isinstance(folds, int) else folds
    known, fold_of = known.to(device), fold_of.to(device)
    with nullcontext() if device.type == "cpu" else device:
        fitted = [_fit_site(site_states, known, fold_of) for site_states in flat]
        return _probe_of(fitted, known, flat, single=single)


def _probe_of(fitted: list[tuple[Tensor, Tensor]], known: Outputs, flat: Tensor, *, single: bool) -> Probe:
    """Return the probe of all sites (directions, offsets), with the classes that do not occur."""
    present = known.present
    directions = flat.new_zeros(len(flat), len(present), flat.shape[2], dtype=torch.float32)
    offsets = torch.full((len(flat), len(present)), -torch.inf)
    prior = torch.zeros(len(present), dtype=torch.float64)
    directions[:, present] = torch.stack([direction for direction, _ in fitted])
    offsets[:, present] = torch.stack([offset for _, offset in fitted])
    prior[present] = known.values.mean(0)
    if single:
        return Probe(directions[0], offsets[0], prior)
    return Probe(directions, offsets, prior)


def estimate_probe(site: SiteData) -> SiteEstimate:
    """Return the cross-fitted probe's information, a lower bound, and the nats that it lost to training."""
    closed, scores = fit_scores(site)
    linear = linear_estimate(site, closed, scores)[0]
    series = mean_series(scores.pointwise, site.fold_of)
    n, classes = site.outputs.shape
    # Calibration fits K + 1 parameters and moves the mean by chi-square / 2 n even where there is no information.
    variance = (1 + classes) / (2 * n**2)
    missing = max(0.0, max(linear.value, 0.0) - float(series[0]))
    return SiteEstimate.from_series(series, "probe", extra_variance=variance, missing=missing)


def fit_scores(site: SiteData) -> tuple[SiteEstimate, OutOfFold]:
    """Return the closed form and the cross-fitted linear scores of a site."""
    return gaussian_information(site.sums), discriminant_information(site)


def linear_estimate(site: SiteData, closed: SiteEstimate, scores: OutOfFold) -> tuple[SiteEstimate, Tensor, float]:
    """Return the estimate from linear scores, the gain of the closed form over them, and its weight.

    The closed form holds for Gaussian classes; the cross-fitted probe is a lower bound for any. The closed form is used
    where the probe reaches what it would reach on Gaussian scores after the same training; the probe where it stays far
    below; and their mixture in between.

    Args:
        site: the data.
        closed: the result of `fit_scores`.
        scores: the result of `fit_scores`.

    Returns:
        The estimate; (1 + folds,) closed form over the Gaussian information of the out-of-fold scores, 1 to 3; and the
        weight of the closed form, 0 to 1.
    """
    ceiling = ceiling_of(site.outputs)
    second = mean_series(scores.second, site.fold_of)
    first = mean_series(scores.pointwise, site.fold_of)
    expected = scores.gaussian - scores.second_loss
    gap = second - expected
    # The loss on Gaussian scores is known from one sample of them: its error is about as large as the loss.
    error = max(float(jackknife_error(gap[1:])) ** 2 + scores.second_loss**2, 1e-18) ** 0.5
    slack = SLACK * error
    # Both the information reached and, near the ceiling, its distance from the ceiling must fit Gaussian scores.
    left, expected_left = ceiling - float(second[0]), max(0.0, ceiling - float(expected[0]))
    reached = min(
        _ratio(float(second[0]) + slack, float(expected[0]) + slack),
        _ratio(expected_left + slack, left + slack),
    )
    weight = min(1.0, max(0.0, (reached - GAUSSIAN_FROM) / (GAUSSIAN_AT - GAUSSIAN_FROM)))
    measurable = float(scores.gaussian[0]) > WEAK
    gain = torch.ones_like(scores.gaussian)
    if measurable:
        gain = (closed.series / scores.gaussian.clamp_min(WEAK / 3)).clamp(1, MAX_GAIN)
    series = first + weight * (closed.series - first)
    if measurable:  # scores that carry more information than Gaussian ones of this separation could
        series = series + weight * trust(float(gap[0]) / error) * gap * gain
    return SiteEstimate.from_series(series, "gaussian" if weight > 0.5 else "probe"), gain, weight


def trust(errors: float, ignored: float = IGNORED) -> float:
    """Return the weight of a difference of `errors` standard errors: 0 up to `ignored`, rising to 1 at one more."""
    return min(1.0, max(0.0, errors - ignored))


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else 1.0


def _fit_site(states: Tensor, outputs: Outputs, fold_of: Tensor) -> tuple[Tensor, Tensor]:
    """Return (K, d) directions and (K,) offsets for the states (n, d) of one site."""
    balanced, divisor = balance(states)
    whitened = principal_components(balanced)
    share = outputs.values.mean(0)
    if whitened is None:
        return torch.zeros(len(share), states.shape[1]), share.log().float()
    site = SiteData(whitened, outputs.values, outputs.labels, fold_of, outputs.soft)
    best = discriminant_information(site)
    parameters = calibrate(best.raw, outputs.values).parameters
    inner = parameters[0] * best.directions.double()  # (K, r)
    directions = inner @ whitened.axes.double().T / divisor.double()
    offsets = parameters[1:] - directions @ states.double().mean(0)
    return directions.float(), offsets.float()
