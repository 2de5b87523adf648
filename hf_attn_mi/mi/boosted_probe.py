"""A probe of boosted trees beside the linear one: it shows where the order of tokens depends on the kind of probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.mi.inputs import read_classes, read_states
from hf_attn_mi.mi.rng import make_rng

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingClassifier

TREES, RATE, LEAVES, FEWEST = 60, 0.1, 8, 20
DRAWS = 3  # classes that are drawn from each soft output
SMALLEST = 1e-9  # probability of a class


@dataclass(frozen=True, eq=False)
class BoostedProbe:
    """log q(class | h) by gradient-boosted trees.

    Attributes:
        model: the classifier of scikit-learn.
        classes: (k,) the classes that it knows, as columns of the outputs.
        prior: (K,) class probabilities in the profile.
    """

    model: HistGradientBoostingClassifier
    classes: Tensor
    prior: Tensor

    def log_posterior(self, states: Tensor) -> Tensor:
        """Return (..., n, K) float64 log q(class | state) in nats for states (..., n, d); unknown classes -inf."""
        flat = states.detach().reshape(-1, states.shape[-1]).float().cpu()
        predicted = torch.from_numpy(self.model.predict_proba(flat.numpy())).clamp_min(SMALLEST)
        result = torch.full((len(flat), len(self.prior)), -torch.inf, dtype=torch.float64)
        result[:, self.classes] = (predicted / predicted.sum(1, keepdim=True)).log()
        return result.view(*states.shape[:-1], len(self.prior))

    def information(self, states: Tensor) -> Tensor:
        """Return (..., n) float64 KL(q(. | state) || prior) in nats, as `explain` reports it for the linear probe."""
        posterior = self.log_posterior(states)
        known = posterior.isfinite() & (self.prior > 0)
        terms = torch.where(known, posterior.exp() * (posterior - self.prior.log()), 0.0)
        return terms.sum(-1)


def fit_boosted_probe(states: Tensor, outputs: Tensor, *, seed: int = 0) -> BoostedProbe:
    """Return a probe of 60 gradient-boosted trees of 8 leaves (scikit-learn) that reads classes from states.

    A linear probe can order tokens reliably and wrongly: two halves of the data give the same order, because both miss
    the same. Trees read products and thresholds of features that a linear probe does not; where the orders of the
    two differ, `evaluation.rank_agreement(..., other=)` says so.

    Args:
        states: (n, d) of the profile.
        outputs: (n,) integer classes or (n, K) probabilities, of which three classes are drawn for each example.
        seed: the random seed for the draws and the trees.

    Raises:
        InvalidInputError: as `mutual_information`; or states of several sites.

    Example:
        >>> draw = torch.Generator().manual_seed(0)
        >>> states = torch.randn(2000, 2, generator=draw)
        >>> classes = (states.prod(1) > 0).long()  # the sign of a product: nothing linear
        >>> probe = fit_boosted_probe(states, classes)
        >>> probe.log_posterior(torch.tensor([[1.0, 1.0], [1.0, -1.0]])).argmax(-1)
        tensor([1, 0])
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    flat = read_states(states)
    if states.dim() != 2:
        raise InvalidInputError(f"states has shape {tuple(states.shape)}: a boosted probe is of one site, (n, d)")
    known = read_classes(outputs, flat.shape[1], seed)
    draws = known.labels[:, None]
    if known.soft:
        draws = torch.multinomial(known.values, DRAWS, replacement=True, generator=make_rng(seed, "boosted probe"))
    labels = known.present.nonzero()[:, 0][draws.flatten()]
    rows = flat[0].float().cpu().repeat_interleave(draws.shape[1], dim=0)
    model = HistGradientBoostingClassifier(
        max_iter=TREES, learning_rate=RATE, max_leaf_nodes=LEAVES, min_samples_leaf=FEWEST, random_state=seed
    )
    if int(labels.min()) == int(labels.max()):
        raise InvalidInputError("outputs: the classes that were drawn are all the same: there is nothing to read")
    model.fit(rows.numpy(), labels.numpy())
    prior = torch.zeros(len(known.present), dtype=torch.float64)
    prior[known.present] = known.values.mean(0)
    return BoostedProbe(model, torch.as_tensor(model.classes_, dtype=torch.long), prior)
