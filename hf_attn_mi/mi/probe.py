"""The calibrated linear probe: log q(class | state) for states of a profile and for new ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.mi.calibration import calibrate
from hf_attn_mi.mi.discriminant import discriminant_information
from hf_attn_mi.mi.estimate import Site
from hf_attn_mi.mi.folds import draw_folds
from hf_attn_mi.mi.inputs import Problem, least_folds, read_problem, read_states
from hf_attn_mi.mi.leave_out import sum_folds
from hf_attn_mi.mi.principal import balance, principal_components


@dataclass(frozen=True, eq=False)
class Probe:
    """log q(class | h) = log_softmax(h @ directions^T + offsets); leading dimensions are sites, if there are any."""

    directions: Tensor  # (..., K, d)
    offsets: Tensor  # (..., K)
    prior: Tensor  # (K,) class probabilities in the profile

    def log_posterior(self, states: Tensor) -> Tensor:
        """Return (..., n, K) log q(class | state) in nats for states (..., n, d)."""
        logits = states.to(self.directions.dtype) @ self.directions.transpose(-1, -2) + self.offsets[..., None, :]
        return logits.log_softmax(-1)


def fit_probe(states: Tensor, outputs: Tensor, *, folds: int | Tensor = 10, seed: int = 0) -> Probe:
    """Return the probe whose cross-fitted information `mutual_information(..., estimator="probe")` reports.

    The best of a path of ridge discriminants (for soft outputs also least squares of their log odds) by the
    cross-entropy of scores out of fold; temperature and class offsets are fitted to these scores, so that log q is
    calibrated for new inputs; directions are those from all examples. A constant state gets the prior.

    Args:
        states: (n, d) or (sites, n, d) of the profile.
        outputs: (n,) integer classes or (n, K) probabilities. K counts classes that never came; log q of those is
            -inf or near it.
        folds: of the cross-fitting; or (n,) the fold of each example, so that several states of one input share it.
        seed: of the folds.

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
    count = folds if isinstance(folds, int) else int(folds.max()) + 1
    least_folds(count, 1, flat.shape[1])
    problem = read_problem(flat, outputs, seed)
    fold_of = draw_folds(problem.labels, folds, seed) if isinstance(folds, int) else folds
    fitted = [_fit_slot(given, problem, fold_of) for given in flat]
    share, present = problem.share, problem.present
    directions = flat.new_zeros(len(flat), len(present), flat.shape[2], dtype=torch.float32)
    offsets = torch.full((len(flat), len(present)), -torch.inf)
    prior = torch.zeros(len(present), dtype=torch.float64)
    directions[:, present] = torch.stack([direction for direction, _ in fitted])
    offsets[:, present] = torch.stack([offset for _, offset in fitted])
    prior[present] = share
    if states.dim() == 2:
        return Probe(directions[0], offsets[0], prior)
    return Probe(directions, offsets, prior)


def _fit_slot(given: Tensor, problem: Problem, fold_of: Tensor) -> tuple[Tensor, Tensor]:
    """Return (K, d) directions and (K,) offsets for one site."""
    balanced, divisor = balance(given)
    principal = principal_components(balanced)
    classes = len(problem.share)
    if principal is None:
        return torch.zeros(classes, given.shape[1]), problem.share.log().float()
    folds = sum_folds(principal.points, problem.probabilities, fold_of)
    site = Site(principal, problem.probabilities, problem.labels, fold_of, problem.soft)
    best = discriminant_information(site, folds)
    fitted = calibrate(best.raw, problem.probabilities).parameters
    inner = fitted[0] * best.directions.double()  # (K, r)
    directions = inner @ principal.axes.double().T / divisor.double()
    offsets = fitted[1:] - directions @ given.double().mean(0)
    return directions.float(), offsets.float()
