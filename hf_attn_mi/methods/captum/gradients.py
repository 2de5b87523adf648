"""Captum's gradient methods at the token embeddings. The score of a token is the sum over its embedding."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.errors import UnsupportedModelError
from hf_attn_mi.methods.base import TokenScores
from hf_attn_mi.methods.captum.embedding_forward import EmbeddingForward
from hf_attn_mi.methods.captum.options import Options, missing_share
from hf_attn_mi.methods.captum.rng import seeded
from hf_attn_mi.models.memory import out_of_memory


def saliency(network: EmbeddingForward, special: Tensor, real: Tensor, options: Options) -> TokenScores:
    """Norm of the gradient at each token's embedding, ||d f / d x_j||_2; not negative.

    Simonyan et al., arXiv 1312.6034; the norm over the embedding as in Atanasova et al., arXiv 2009.13295. One
    forward and one backward pass. For the arguments see `CaptumScorer`.

    Raises:
        UnsupportedModelError: no gradient reaches the embeddings.
    """
    from captum.attr import Saliency

    rows = list(range(real.shape[0]))
    attributions = Saliency(lambda x: network.differentiable(x, rows)).attribute(_leaf(network.embeddings), abs=False)
    return _scored(network, attributions.norm(dim=-1), real)


def input_x_gradient(network: EmbeddingForward, special: Tensor, real: Tensor, options: Options) -> TokenScores:
    """Inner product of each token's embedding and its gradient, <x_j, d f / d x_j>.

    Shrikumar et al., arXiv 1605.01713. One forward and one backward pass. For the arguments see `CaptumScorer`.

    Raises:
        UnsupportedModelError: no gradient reaches the embeddings.
    """
    from captum.attr import InputXGradient

    rows = list(range(real.shape[0]))
    attributions = InputXGradient(lambda x: network.differentiable(x, rows)).attribute(_leaf(network.embeddings))
    return _scored(network, attributions.sum(-1), real)


def integrated_gradients(network: EmbeddingForward, special: Tensor, real: Tensor, options: Options) -> TokenScores:
    """Integral of the gradient from a baseline b to the input, <x_j - b_j, int_0^1 d f(b + t (x - b)) / d x_j dt>.

    Sundararajan et al., arXiv 1703.01365; Gauss-Legendre quadrature of `steps` points, each a forward and a backward
    pass. Special tokens keep their own embedding in the baseline, so that their score is 0. The scores add up to
    f(x) - f(b) but for the error of the quadrature, which is the gap. For the arguments see `CaptumScorer`.

    Raises:
        InvalidInputError: the model has no token of the kind that the baseline asks for.
        UnsupportedModelError: no gradient reaches the embeddings.
    """
    from captum.attr import IntegratedGradients

    def attribute(value: Callable[[Tensor], Tensor], inputs: Tensor, baseline: Tensor) -> Tensor:
        attributions: Tensor = IntegratedGradients(value).attribute(inputs, baselines=baseline, n_steps=options.steps)
        return attributions

    return _from_baseline(network, attribute, special, real, options.baseline)


def gradient_shap(network: EmbeddingForward, special: Tensor, real: Tensor, options: Options) -> TokenScores:
    """Mean over random points of the way from a baseline b to the input, <x_j - b_j, d f / d x_j>.

    Expected gradients, Erion et al., arXiv 1906.10670, with a single baseline and no added noise: integrated
    gradients by Monte Carlo. `samples` points, each a forward and a backward pass; the same seed for every input.
    Special tokens keep their own embedding in the baseline. For the arguments see `CaptumScorer`.

    Raises:
        InvalidInputError: the model has no token of the kind that the baseline asks for.
        UnsupportedModelError: no gradient reaches the embeddings.
    """
    from captum.attr import GradientShap

    def attribute(value: Callable[[Tensor], Tensor], inputs: Tensor, baseline: Tensor) -> Tensor:
        with seeded(options.seed, inputs.device):
            attributions: Tensor = GradientShap(value).attribute(
                inputs, baselines=baseline, n_samples=options.samples, stdevs=0.0
            )
        return attributions

    return _from_baseline(network, attribute, special, real, options.baseline)


def deeplift(network: EmbeddingForward, special: Tensor, real: Tensor, options: Options) -> TokenScores:
    """Contributions to f(x) - f(b) by the rescale rule at the activations that Captum knows.

    Shrikumar et al., arXiv 1704.02685. Captum has rules for modules of ReLU, Tanh, Sigmoid, Softmax and the like;
    through GELU, layer normalization and attention it passes the plain gradient, so that on a transformer the scores
    do not add up; by how much is the gap. One forward and one backward pass over input and baseline. Special
    tokens keep their own embedding in the baseline. For the arguments see `CaptumScorer`.

    Raises:
        InvalidInputError: the model has no token of the kind that the baseline asks for.
        UnsupportedModelError: a module is used twice, or no gradient reaches the embeddings.
    """
    from captum.attr import DeepLift

    def attribute(value: Callable[[Tensor], Tensor], inputs: Tensor, baseline: Tensor) -> Tensor:
        before = {module: set(vars(module)) for module in network.runner.model.modules()}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the warning that hooks are set and removed
                attributions: Tensor = DeepLift(_AsModule(network.runner.model, value)).attribute(
                    inputs, baselines=baseline
                )
        except (RuntimeError, AssertionError, TypeError, IndexError) as error:
            if out_of_memory(error):
                raise
            raise UnsupportedModelError(
                f"{network.runner.class_name}: Captum's DeepLift cannot follow it ({' '.join(str(error).split())}). "
                "Use method='integrated_gradients'."
            ) from error
        finally:
            for module, names in before.items():
                for name in set(vars(module)) - names:  # captum keeps what a failed pass has recorded
                    delattr(module, name)
        return attributions

    return _from_baseline(network, attribute, special, real, options.baseline, whole=True)


class _AsModule(nn.Module):
    """The model as a module of its embeddings, for Captum's hooks."""

    def __init__(self, model: nn.Module, value: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.value = model, value

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.value(embeddings)


def _leaf(embeddings: Tensor) -> Tensor:
    return embeddings.clone().requires_grad_(True)


def _from_baseline(
    network: EmbeddingForward,
    attribute: Callable[..., Tensor],
    special: Tensor,
    real: Tensor,
    choice: str | None,
    *,
    whole: bool = False,
) -> TokenScores:
    """Attributions of each input against its baseline, and by how much their sum misses f(x) - f(baseline)."""
    baselines, name = network.baseline(special | ~real, choice)
    scores, gaps, ends_of = [], [], []
    for i in range(real.shape[0]):
        ends = torch.stack([network.embeddings[i], baselines[i]])
        run = network.forward if whole else network.differentiable

        def value(some: Tensor, i: int = i, run: Any = run) -> Tensor:
            attributions: Tensor = run(some, [i] * some.shape[0])
            return attributions

        attributions = attribute(value, _leaf(network.embeddings[i : i + 1]), baselines[i : i + 1]).detach().double()
        scores.append(attributions.sum((0, -1)))
        full, empty = network.values(ends, [i, i]).tolist()
        ends_of.append((full, empty))
        gaps.append(missing_share(full - empty, scores[-1] * real[i].to(scores[-1].device)))
    result = _scored(network, torch.stack(scores), real)
    full, empty = torch.tensor(ends_of, dtype=torch.float64).T
    return TokenScores(
        result.scores,
        torch.tensor(gaps),
        network.space,
        {"baseline": name},
        result.notes,
        values=full,
        bias=empty,
    )


def _scored(network: EmbeddingForward, scores: Tensor, real: Tensor) -> TokenScores:
    # not a product, because the scores of padding may not be finite
    cleared = torch.where(real.to(scores.device), scores, torch.zeros_like(scores))
    return TokenScores(cleared.detach().float().cpu(), space=network.space, notes=tuple(network.notes))
