"""Predictors of the output from a state, fitted without the fold that they predict: what lower bounds rest on.

A predictor is one function with one line in `_SPECS`. From another package, call `register_predictor`. A poor predictor
makes a lower bound loose, never wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.kernels.neighbors.torch import largest
from hf_attn_mi.mi.calibration import out_of_fold
from hf_attn_mi.mi.discriminant import linear_fits
from hf_attn_mi.mi.estimator import SiteData
from hf_attn_mi.mi.rng import draw_classes, make_rng

Effort = Literal["fast", "default", "thorough"]
Predictor = Callable[[SiteData], list[Tensor]]
NEIGHBOR_COMPONENTS = (3, 8)
NEIGHBORS = (15, 60)
MAX_POINTS = 5000  # points that nearest neighbors are taken from: the cost is quadratic in n
TILE_ELEMENTS = 2**18  # distances held at a time: 1 MB, which fits the cache of a core
DRAWS = 3  # classes drawn from each soft output to fit trees to: weighted examples would take a hundred times longer


@dataclass(frozen=True)
class PredictorSpec:
    """An entry of the registry.

    Attributes:
        name: the name of the predictor.
        function: maps the data of a site to one or more (n, K) float64 log probabilities, those of each example fitted
            without its fold. It must not change its argument: sites run in threads.
        effort: the least effort that includes it.
        summary: one line for help texts.
    """

    name: str
    function: Predictor
    effort: Effort
    summary: str


def predict_prior(site: SiteData) -> list[Tensor]:
    """The mean output of the other folds: the information of this predictor is about zero, so no bound is below it."""
    folds = int(site.fold_of.max()) + 1
    sums = torch.zeros(folds, site.outputs.shape[1], dtype=torch.float64).index_add_(0, site.fold_of, site.outputs)
    rest = sums.sum(0) - sums
    return [(rest / rest.sum(1, keepdim=True)).clamp_min(1e-12).log()[site.fold_of]]


def predict_linear(site: SiteData) -> list[Tensor]:
    """Ridge discriminants on a path of ridges, for soft outputs also the regression of the log odds; calibrated."""
    fits = site.once(linear_fits)
    return [out_of_fold(fit.scores, site.outputs, site.fold_of, fit.calibration) for fit in fits]


def predict_neighbors(site: SiteData) -> list[Tensor]:
    """Mean output of the nearest neighbors in other folds, on three and on eight principal components."""
    predictions = []
    prior = predict_prior(site)[0].exp()
    for count in NEIGHBOR_COMPONENTS:
        for total, neighbors in _outputs_of_neighbors(site.points[:, :count].float(), site.outputs, site.fold_of):
            predictions.append(((total + prior) / (neighbors + 1)).clamp_min(1e-12).log())
        if site.points.shape[1] < count:
            break
    return predictions


def _outputs_of_neighbors(points: Tensor, outputs: Tensor, fold_of: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the sum of the outputs (n, K) of the nearest points in other folds, and their number (n, 1), for each k.

    Among the first 5,000 points, one fold at a time, so that a tile of distances stays in cache. All points as near as
    the k-th are taken: their outputs are summed by a product with zeros and ones, which is cheaper than to sort them. A
    column of ones counts them; the product has few rows and many columns, the fast one of the two orders.
    """
    known = min(len(points), MAX_POINTS)
    sizes = torch.bincount(fold_of[:known], minlength=int(fold_of.max()) + 1)
    ranks = [min(neighbors, known - int(sizes.max())) for neighbors in NEIGHBORS]
    sums = [outputs.new_empty(len(outputs), outputs.shape[1] + 1) for _ in ranks]
    counted = torch.cat([outputs, torch.ones_like(outputs[:, :1])], 1).float()
    for fold in range(len(sizes)):
        rows, others = (fold_of == fold).nonzero()[:, 0], (fold_of[:known] != fold).nonzero()[:, 0]
        candidates, values = points[others], counted[others].T.contiguous()
        squares = candidates.square().sum(1)
        for part in rows.split(max(1, TILE_ELEMENTS // len(others))):  # type: ignore[no-untyped-call]
            proximity = torch.addmm(squares, points[part], candidates.T, beta=-1, alpha=2)
            nearest = largest(proximity, max(ranks))
            inside = torch.empty_like(proximity)
            for rank, total in zip(ranks, sums):
                torch.ge(proximity, nearest[:, rank - 1 : rank], out=inside)
                total[part] = (values @ inside.T).T.double()
    return [(total[:, :-1], total[:, -1:]) for total in sums]


def predict_trees(site: SiteData) -> list[Tensor]:
    """Gradient-boosted trees (scikit-learn) on the states themselves, 60 trees of 8 leaves."""
    return [_boosted(site, trees=60, rate=0.1, leaves=8)]


def predict_many_trees(site: SiteData) -> list[Tensor]:
    """Gradient-boosted trees of more and smaller steps, with 8 and with 4 leaves."""
    return [_boosted(site, trees=300, rate=0.04, leaves=8), _boosted(site, trees=300, rate=0.04, leaves=4)]


def _boosted(site: SiteData, *, trees: int, rate: float, leaves: int) -> Tensor:
    from sklearn.ensemble import HistGradientBoostingClassifier

    # scikit-learn computes on the CPU.
    features, fold_of = site.whitened.balanced.cpu().numpy(), site.fold_of.cpu()
    result = torch.full(site.outputs.shape, 1e-9, dtype=torch.float64, device="cpu")
    draws = site.labels.cpu()[:, None]
    if site.soft:
        draws = draw_classes(site.outputs, DRAWS, make_rng(0, "trees")).cpu()
    for fold in range(int(fold_of.max()) + 1):
        rest, held = (fold_of != fold).nonzero()[:, 0], (fold_of == fold).nonzero()[:, 0]
        rows, labels = rest.repeat_interleave(draws.shape[1]), draws[rest].flatten()
        if int(labels.min()) == int(labels.max()):
            result[held, labels[0]] = 1.0
            continue
        model = HistGradientBoostingClassifier(
            max_iter=trees, learning_rate=rate, max_leaf_nodes=leaves, min_samples_leaf=20, random_state=fold
        )
        model.fit(features[rows.numpy()], labels.numpy())
        columns = torch.as_tensor(model.classes_, dtype=torch.long, device="cpu")
        predicted = torch.from_numpy(model.predict_proba(features[held.numpy()]))
        result[held[:, None], columns[None]] = predicted.clamp_min(1e-9)
    return (result / result.sum(1, keepdim=True)).log().to(site.outputs.device)


_SPECS = {
    spec.name: spec
    for spec in (
        PredictorSpec("prior", predict_prior, "fast", "the mean output"),
        PredictorSpec("linear", predict_linear, "fast", "calibrated ridge discriminants"),
        PredictorSpec("neighbors", predict_neighbors, "fast", "nearest neighbors on principal components"),
        PredictorSpec("trees", predict_trees, "default", "60 gradient-boosted trees"),
        PredictorSpec("many_trees", predict_many_trees, "thorough", "600 gradient-boosted trees"),
    )
}


def register_predictor(name: str, function: Predictor, *, effort: Effort = "fast", summary: str = "") -> None:
    """Add a predictor to the mixture that the lower bounds of `mutual_information` rest on.

    Args:
        name: a new name.
        function: see `PredictorSpec`.
        effort: the least effort that includes it.
        summary: one line for help texts.

    Raises:
        InvalidInputError: the name is taken or empty, the function cannot be called, or the effort is unknown.

    Example:
        >>> register_predictor("uniform", lambda site: [torch.zeros_like(site.outputs).log_softmax(1)])
        >>> "uniform" in list_predictors()
        True
        >>> unregister_predictor("uniform")
    """
    if not isinstance(name, str) or not name:
        raise InvalidInputError(f"name is {shown(name)}: it must be a string that is not empty")
    if name in _SPECS:
        raise InvalidInputError(f"name is {name!r}: there is a predictor of this name already; choose another one")
    if not callable(function):
        raise InvalidInputError(f"predictor {name!r} is {type(function).__name__}: it must be a function")
    check_effort(effort)
    _SPECS[name] = PredictorSpec(name, function, effort, summary)


def unregister_predictor(name: str) -> None:
    """Take a predictor out of the registry.

    Raises:
        InvalidInputError: nothing is registered under this name.
    """
    if name not in _SPECS:
        raise InvalidInputError(f"predictor {shown(name)} is not known: one of {', '.join(_SPECS)}")
    del _SPECS[name]


def list_predictors(effort: Effort = "thorough") -> tuple[str, ...]:
    """Return the names of the predictors that this effort includes.

    Example:
        >>> list_predictors("fast")
        ('prior', 'linear', 'neighbors')
    """
    check_effort(effort)
    order = get_args(Effort)
    return tuple(spec.name for spec in _SPECS.values() if order.index(spec.effort) <= order.index(effort))


def check_effort(effort: object) -> None:
    """Check that the value is one of the efforts.

    Raises:
        InvalidInputError: it is not.
    """
    if not isinstance(effort, str) or effort not in get_args(Effort):
        raise InvalidInputError(f"effort is {shown(effort)}: one of {', '.join(map(repr, get_args(Effort)))}")


def predictions_of(site: SiteData, effort: Effort) -> tuple[tuple[str, ...], Tensor]:
    """Return the names of all members, and (members, n, K) float64 log probabilities of each example.

    Raises:
        InvalidInputError: a registered predictor returned another shape, or numbers that are not log probabilities.
    """
    names: list[str] = []
    members: list[Tensor] = []
    for name in list_predictors(effort):
        for prediction in _SPECS[name].function(site):
            total = prediction.double().logsumexp(1) if prediction.shape == site.outputs.shape else None
            if total is None or not bool((total.abs() < 1e-3).all()):
                raise InvalidInputError(
                    f"predictor {name!r} must return (n, K) = {tuple(site.outputs.shape)} log probabilities"
                )
            names.append(name)
            members.append(prediction.double())
    return tuple(names), torch.stack(members)
