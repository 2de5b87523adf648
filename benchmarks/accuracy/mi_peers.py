"""Peers of the mutual information estimators: per feature by scikit-learn, and small trained critics."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

EPOCHS, BATCH, WIDTH, RATE = 20, 256, 128, 1e-3


def summed_features(states: Tensor, outputs: Tensor) -> float:
    """Return the sum over features of scikit-learn's `mutual_info_classif`."""
    return float(_per_feature(states, outputs).sum())


def largest_feature(states: Tensor, outputs: Tensor) -> float:
    """Return the largest `mutual_info_classif` of a feature."""
    return float(_per_feature(states, outputs).max())


def _per_feature(states: Tensor, outputs: Tensor) -> Tensor:
    from sklearn.feature_selection import mutual_info_classif

    return torch.from_numpy(mutual_info_classif(states.numpy(), _classes(outputs).numpy(), random_state=0))


def info_nce(states: Tensor, outputs: Tensor) -> float:
    """Return InfoNCE (van den Oord et al. 2018), at most the logarithm of the size of the evaluated batch."""
    return _critic(states, outputs, lambda s: s.diagonal().mean() + math.log(len(s)) - s.logsumexp(1).mean())


def mine_bound(states: Tensor, outputs: Tensor) -> float:
    """Return Donsker and Varadhan's bound as in Belghazi et al. (2018)."""
    return _critic(
        states,
        outputs,
        lambda s: s.diagonal().mean() - (_off_diagonal(s).logsumexp(0) - math.log(len(_off_diagonal(s)))),
    )


def nwj(states: Tensor, outputs: Tensor) -> float:
    """Return the bound of Nguyen, Wainwright and Jordan (2010)."""
    return _critic(states, outputs, lambda s: s.diagonal().mean() - (_off_diagonal(s) - 1).exp().mean())


def _off_diagonal(scores: Tensor) -> Tensor:
    return scores[~torch.eye(len(scores), dtype=torch.bool)]


def _classes(outputs: Tensor) -> Tensor:
    if outputs.dim() == 1:
        return outputs
    return torch.multinomial(outputs, 1, generator=torch.Generator().manual_seed(0))[:, 0]


def _critic(states: Tensor, outputs: Tensor, bound: Callable[[Tensor], Tensor]) -> float:
    """Train a separable critic on 70 %, stop at the best bound on 15 %, report the bound on the other 15 %."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    labels = _classes(outputs)
    targets = torch.nn.functional.one_hot(labels).float()
    points = (states - states.mean(0)) / states.std(0).clamp_min(1e-6)
    train, validate, test = torch.randperm(len(points), generator=generator).tensor_split(
        [int(0.7 * len(points)), int(0.85 * len(points))]
    )

    def network(inputs: int) -> torch.nn.Module:
        layers = [torch.nn.Linear(inputs, WIDTH), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(WIDTH, 32)]
        return torch.nn.Sequential(*layers)

    left, right = network(points.shape[1]), network(targets.shape[1])
    optimizer = torch.optim.AdamW([*left.parameters(), *right.parameters()], lr=RATE, weight_decay=1e-2)

    def value(rows: Tensor) -> Tensor:
        return bound(left(points[rows]) @ right(targets[rows]).T / math.sqrt(32))

    best, estimate = -math.inf, 0.0
    for _ in range(EPOCHS):
        for rows in train[torch.randperm(len(train), generator=generator)].split(BATCH):
            optimizer.zero_grad()
            (-value(rows)).backward()
            optimizer.step()
        for module in (left, right):
            module.eval()
        with torch.no_grad():
            validation = float(value(validate))
            if validation > best:
                best, estimate = validation, float(value(test))
        for module in (left, right):
            module.train()
    return estimate


CRITICS: dict[str, Callable[[Tensor, Tensor], float]] = {"InfoNCE": info_nce, "MINE": mine_bound, "NWJ": nwj}
