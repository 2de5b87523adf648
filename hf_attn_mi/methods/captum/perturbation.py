"""Captum's perturbation methods over the presence of tokens: 1 keeps a token, 0 replaces it or leaves it out.

The features are the real tokens that are not special. Special tokens and padding are never changed and score 0.

The algorithms are Captum's; the passes are not: each set of present tokens is run once, in batches of a budget of
tokens (see `models.replays`). A method whose algorithm asks in many small calls is run twice: first to gather the sets
of all inputs of the batch, then with the answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from hf_attn_mi.methods.base import TokenScores
from hf_attn_mi.methods.captum.embedding_forward import EmbeddingForward
from hf_attn_mi.methods.captum.linear_surrogate import WeightedRidge
from hf_attn_mi.methods.captum.options import Options, missing_share
from hf_attn_mi.methods.captum.presence import LEFT_OUT, Answers, Asked, Presence, ReplacedTokens, sets_of
from hf_attn_mi.methods.captum.rng import seeded

SPACE = "presence of tokens"

LIME_WIDTH = 0.25  # width of the kernel over cosine distance: 25 over distance x 100 in the package lime
Value = Callable[[Tensor], Tensor]
Grid = tuple[int, int] | None


def feature_ablation(network: EmbeddingForward, special: Tensor, real: Tensor, options: Options) -> TokenScores:
    """Leave-one-out: f(x) minus f with this token alone replaced by the baseline.

    Li et al., arXiv 1612.08220. One forward pass, and one for each token. For the arguments see `CaptumScorer`.

    Raises:
        InvalidInputError: the model has no token of the kind that the baseline asks for.
    """
    from captum.attr import FeatureAblation

    def attribute(value: Value, present: Tensor, grid: Grid) -> Tensor:
        attributions: Tensor = FeatureAblation(value).attribute(present, perturbations_per_eval=present.shape[1])
        return attributions

    return _by_presence(network, special, real, options, attribute, complete=False, gather=True)


def occlusion(network: EmbeddingForward, special: Tensor, real: Tensor, options: Options) -> TokenScores:
    """Mean, over the windows of neighboring tokens that hold this token, of f(x) minus f without the window.

    Zeiler and Fergus, arXiv 1311.2901. `window` tokens (all, where there are fewer) of the sequence without its
    special tokens: in a pair of texts a window may hold the end of the first and the start of the second. Where patches
    form a grid, a window is a square of `window` x `window` patches. One forward pass, and one for each window. For the
    arguments see `CaptumScorer`.

    Raises:
        InvalidInputError: the model has no token of the kind that the baseline asks for.
    """
    from captum.attr import Occlusion

    def attribute(value: Value, present: Tensor, grid: Grid) -> Tensor:
        shape = (present.shape[1],) if grid is None else grid  # in two dimensions a window is a square of patches
        attributions: Tensor = Occlusion(lambda some: value(some.flatten(1))).attribute(
            present.reshape(1, *shape),
            sliding_window_shapes=tuple(min(options.window, size) for size in shape),
            perturbations_per_eval=present.shape[1],
        )
        return attributions

    return _by_presence(network, special, real, options, attribute, complete=False, gather=True)


def shapley_sampling(network: EmbeddingForward, special: Tensor, real: Tensor, options: Options) -> TokenScores:
    """Shapley values by `samples` random orders in which tokens are put back, one by one, into the baseline.

    Strumbelj and Kononenko 2010 (JMLR 11); Castro et al. 2009. `samples` x tokens forward passes, and one. The sum
    of scores is f(x) - f(baseline) for any number of samples. For the arguments see `CaptumScorer`.

    Raises:
        InvalidInputError: the model has no token of the kind that the baseline asks for.
    """
    from captum.attr import ShapleyValueSampling

    def attribute(value: Value, present: Tensor, grid: Grid) -> Tensor:
        attributions: Tensor = ShapleyValueSampling(value).attribute(
            present, n_samples=options.samples, perturbations_per_eval=present.shape[1]
        )
        return attributions

    return _by_presence(network, special, real, options, attribute, complete=True, gather=True)


def kernel_shap(network: EmbeddingForward, special: Tensor, real: Tensor, options: Options) -> TokenScores:
    """Shapley values by least squares over `samples` random subsets of tokens, drawn by the Shapley kernel.

    Lundberg and Lee, arXiv 1705.07874. The empty and the full subset come first with a weight of a million, so that
    the scores add up to f(x) - f(baseline). Needs more samples than tokens; with fewer, the solution of least norm.
    `samples` forward passes. For the arguments see `CaptumScorer`.

    Raises:
        InvalidInputError: the model has no token of the kind that the baseline asks for.
    """
    from captum.attr import KernelShap

    def attribute(value: Value, present: Tensor, grid: Grid) -> Tensor:
        if present.shape[1] == 1:  # the kernel has no subset to draw; the Shapley value of a single player
            full, empty = value(torch.cat([present, torch.zeros_like(present)]))
            single: Tensor = (full - empty).reshape(1, 1)
            return single
        method = KernelShap(value)
        method.interpretable_model = WeightedRidge(0.0)  # captum's own model needs scikit-learn
        attributions: Tensor = method.attribute(
            present, n_samples=options.samples, perturbations_per_eval=options.samples
        )
        return attributions

    return _by_presence(network, special, real, options, attribute, complete=True)


def lime(network: EmbeddingForward, special: Tensor, real: Tensor, options: Options) -> TokenScores:
    """Coefficients of a ridge regression of f on which tokens are present, near the input.

    Ribeiro et al., arXiv 1602.04938. `samples` subsets that keep each token with probability 1/2; weight
    exp(-d^2 / (2 w^2)) with d the cosine distance to the full text and w = 0.25; ridge penalty as in the package lime
    (1, the intercept free), without its selection of features. `samples` forward passes. For the arguments see
    `CaptumScorer`.

    Raises:
        InvalidInputError: the model has no token of the kind that the baseline asks for.
    """
    from captum.attr import Lime
    from captum.attr._core.lime import get_exp_kernel_similarity_function

    def attribute(value: Value, present: Tensor, grid: Grid) -> Tensor:
        method = Lime(value, WeightedRidge(options.penalty), get_exp_kernel_similarity_function("cosine", LIME_WIDTH))
        attributions: Tensor = method.attribute(
            present, n_samples=options.samples, perturbations_per_eval=options.samples
        )
        return attributions

    return _by_presence(network, special, real, options, attribute, complete=False)


def _by_presence(
    network: EmbeddingForward,
    special: Tensor,
    real: Tensor,
    options: Options,
    attribute: Callable[[Value, Tensor, Grid], Tensor],
    *,
    complete: bool,
    gather: bool = False,
) -> TokenScores:
    """Attributions to the presence of each token.

    Args:
        network, special, real, options: see `CaptumScorer`.
        attribute: Captum's algorithm on the presence of the tokens of one input. Which sets it asks for depends on the
            seed alone, not on the answers.
        complete: the attributions should add up.
        gather: find out first what it asks for, and run the sets of all inputs together.
    """
    presence: Presence
    if options.baseline in LEFT_OUT:
        presence = LEFT_OUT[options.baseline](network, special, real, options.internal_batch)
    else:
        presence = ReplacedTokens(network, special, real, options.baseline)
    answers = Answers(presence)
    counts = [len(places) for places in presence.places]
    scored = [i for i, count in enumerate(counts) if count]

    def attributions_of(i: int, value: Value) -> Tensor:
        with seeded(options.seed, network.runner.device):
            return attribute(value, torch.ones(1, counts[i]), network.grids[i]).detach().double().reshape(-1)

    if gather:
        asked = list[Asked]()

        def record(i: int, present: Tensor) -> Tensor:
            asked.extend(sets_of(i, present))
            return torch.zeros(len(present), dtype=torch.float64)

        for i in scored:
            attributions_of(i, partial(record, i))
        with seeded(options.seed, network.runner.device):
            answers.gather(asked)
    scores, gaps = torch.zeros(real.shape, dtype=torch.float32), torch.zeros(real.shape[0], dtype=torch.float64)
    ends = torch.zeros(2, real.shape[0], dtype=torch.float64)
    for i in scored:
        attributions = attributions_of(i, partial(answers.values, i))
        scores[i, presence.places[i]] = attributions.float()
        if complete:
            ends[:, i] = answers.values(i, torch.tensor([[1.0], [0.0]]).expand(2, counts[i]))
            gaps[i] = missing_share(float(ends[0, i] - ends[1, i]), attributions)
    for i in set(range(len(counts))).difference(scored) if complete else ():
        ends[:, i] = answers.values(i, torch.ones(1, 0))
    token_scores = TokenScores(scores, space=SPACE, info={"baseline": presence.name}, notes=tuple(presence.notes))
    return replace(token_scores, gaps=gaps, values=ends[0], bias=ends[1]) if complete else token_scores
