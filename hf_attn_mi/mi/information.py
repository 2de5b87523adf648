"""Mutual information of states and outputs: one function, and a table of estimators."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.mi.auto import estimate_auto, estimate_probe
from hf_attn_mi.mi.continuous import estimate_gaussian_continuous, read_vectors
from hf_attn_mi.mi.entropy import entropy
from hf_attn_mi.mi.estimate import Estimate, Site
from hf_attn_mi.mi.folds import draw_folds
from hf_attn_mi.mi.gaussian import estimate_gaussian
from hf_attn_mi.mi.inputs import least_folds, read_problem, read_states, small_classes
from hf_attn_mi.mi.logistic import estimate_logistic
from hf_attn_mi.mi.neighbors import estimate_ksg, estimate_ksg_pca
from hf_attn_mi.mi.permutations import draw_shuffles
from hf_attn_mi.mi.principal import Principal
from hf_attn_mi.mi.result import MutualInformation
from hf_attn_mi.mi.sites import collect

ESTIMATORS: dict[str, tuple[Callable[[Site], Estimate], str]] = {  # and the coordinates it takes, see `sites.collect`
    "auto": (estimate_auto, "tamed"),
    "gaussian": (estimate_gaussian, "any"),
    "probe": (estimate_probe, "components"),
    "ksg": (estimate_ksg, "components"),
    "ksg_pca": (estimate_ksg_pca, "components"),
    "logistic": (estimate_logistic, "components"),
}
NOTHING = 1e-9  # nats
OF_VECTORS = "gaussian_continuous"


def mutual_information(
    states: Tensor,
    outputs: Tensor,
    *,
    estimator: str = "auto",
    folds: int = 10,
    permutations: int = 200,
    seed: int = 0,
    noise: float | Tensor | None = None,
) -> MutualInformation:
    """Return the mutual information of each site's states and the output, in nats, with intervals and p-values.

    A network is deterministic, so the output is its own random variable: the class drawn from P(. | input) for soft
    outputs, the class itself for hard ones, or a vector with declared noise. For classes
    I(state; Y) = H(Y) - H(Y | state) lies between 0 and the ceiling I(input; Y), which is exact. Definitions,
    estimators and their errors on data of known information: docs/methods/mutual_information.md.

    Args:
        states: (n, d) or (sites, n, d), floating point; every site has the same n examples.
        outputs: (n,) integer classes; (n, K) probabilities, softmax of the logits; or with noise (n, m) vectors.
        estimator: "auto"; "gaussian", closed form for Gaussian classes; "probe", a cross-fitted linear lower bound;
            "ksg" and "ksg_pca", nearest neighbors on the states or on eight principal components; "logistic",
            cross-fitted logistic regression; "gaussian_continuous" for vectors, which "auto" takes for them.
        folds: of cross-fitting and of the jackknife.
        permutations: of the test, the same in every site.
        seed: of folds, permutations, and draws of classes and noise.
        noise: standard deviation, (m,) or one for all, of independent normal noise on vector outputs: the information
            is that of states and outputs + noise, and means nothing without it.

    Raises:
        InvalidInputError: wrong shapes or dtypes, NaN, probabilities that do not sum to one, other lengths, one class only,
            fewer than 20 examples a class, an unknown estimator, too few or too many folds.

    Example:
        >>> draw = torch.Generator().manual_seed(0)
        >>> classes = torch.randint(2, (2000,), generator=draw)
        >>> states = torch.randn(2000, 16, generator=draw) + classes[:, None] * 0.5  # two standard deviations apart
        >>> found = mutual_information(states, classes)
        >>> round(found.nats.item(), 1), round(found.ceiling, 2), found.p_value.item() < 0.01  # true: 0.336
        (0.3, 0.69, True)
    """
    flat = read_states(states)
    single = states.dim() == 2
    _check(estimator, noise)
    least_folds(folds, permutations, flat.shape[1])
    if noise is not None:
        vectors = read_vectors(outputs, noise, flat.shape[1], seed)
        labels = torch.zeros(len(vectors), dtype=torch.long)
        fold_of = draw_folds(labels, folds, seed)
        shuffles = draw_shuffles(vectors, None, permutations, seed)

        def of_vectors(principal: Principal, order: Tensor) -> Estimate:
            return estimate_gaussian_continuous(principal, vectors[order], fold_of)

        return collect(flat, of_vectors, shuffles, None, OF_VECTORS, folds=folds, single=single)
    problem = read_problem(flat, outputs, seed)
    estimate, kind = ESTIMATORS[estimator]
    ceiling = float(entropy(problem.probabilities.mean(0)) - entropy(problem.probabilities).mean())
    fold_of = draw_folds(problem.labels, folds, seed)
    tested = None if kind == "any" else problem.labels  # neighbors are looked at among components
    shuffles = draw_shuffles(problem.probabilities, tested, permutations, seed)

    def of_classes(principal: Principal, order: Tensor) -> Estimate:
        if ceiling < NOTHING:
            return Estimate(0.0, torch.zeros(folds, dtype=torch.float64), "constant")
        permuted = problem.probabilities[order], problem.labels[order]
        return estimate(Site(principal, *permuted, fold_of, problem.soft))

    warnings = small_classes(problem)
    if ceiling < NOTHING:
        warnings += ("outputs are the same for every input: there is nothing that states could know",)
    return collect(
        flat, of_classes, shuffles, ceiling, estimator, folds=folds, single=single, kind=kind, warnings=warnings
    )


def _check(estimator: str, noise: float | Tensor | None) -> None:
    if estimator not in ESTIMATORS and estimator != OF_VECTORS:
        raise InvalidInputError(f"estimator is {estimator!r}: one of {', '.join([*ESTIMATORS, OF_VECTORS])}")
    if noise is None and estimator == OF_VECTORS:
        raise InvalidInputError(
            f'estimator="{OF_VECTORS}" needs noise=, the standard deviation of noise on the outputs'
        )
    if noise is not None and estimator not in ("auto", OF_VECTORS):
        raise InvalidInputError(f'estimator={estimator!r} is for classes; with noise= it is "auto" or "{OF_VECTORS}"')
