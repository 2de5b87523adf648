"""Captum's methods behind the interface of a token-scoring method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.methods.base import TokenScores
from hf_attn_mi.methods.batch import ScoringBatch
from hf_attn_mi.methods.captum import gradients, perturbation
from hf_attn_mi.methods.captum.embedding_forward import EmbeddingForward
from hf_attn_mi.methods.captum.options import Options, check_option
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target


class Attribution(Protocol):
    """A method of Captum on the embeddings of the tokens."""

    def __call__(self, network: EmbeddingForward, special: Tensor, real: Tensor, options: Options) -> TokenScores:
        """The scores of a batch.

        Args:
            network: the explained value as a function of the embeddings.
            special: (batch, tokens) bool; special tokens are never replaced, and keep their embedding in the baseline.
            real: (batch, tokens) bool, False at padding, whose score is exactly 0.
            options: the options of the method.
        """


@dataclass(frozen=True)
class CaptumScorer:
    """A method of Captum.

    Attributes:
        name, reference, cost, additive: see `TokenScorer`.
        attribution: computes the scores.
        option_names: the fields of `Options` that it reads.
        defaults: the default values of these options.
        needs_gradients: it differentiates the target's value; other methods explain the class probability.
        replaces_tokens: replaces tokens by a baseline, so that it matters which of them are special.
        more: the option to increase if the scores do not add up; None if there is none.
    """

    name: str
    reference: str
    cost: str
    attribution: Attribution
    option_names: tuple[str, ...]
    defaults: Options = field(default_factory=Options)
    needs_gradients: bool = False
    replaces_tokens: bool = False
    additive: bool = False
    more: str | None = None
    class_linked: bool = True
    gap_reason: str = ""

    @property
    def adds_up_to(self) -> str:
        """What the sum of the scores should be: the change of the explained value from the baseline."""
        return "f(x) - f(baseline)" if self.additive else ""

    @property
    def options(self) -> Mapping[str, Any]:
        """Name -> default."""
        return {name: getattr(self.defaults, name) for name in self.option_names}

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Refuse values of the wrong type or range."""
        for name, value in options.items():
            check_option(self.name, name, value)

    def check(self, runner: EncoderRunner, options: Mapping[str, Any]) -> None:
        """Refuse the baseline "mask" without a tokenizer that has a mask token."""
        if options.get("baseline") == "mask" and runner.mask_token_id is None:
            raise InvalidInputError(
                "options['baseline'] is 'mask', but there is no tokenizer with a mask token: pass tokenizer=..., or "
                "'pad' or 'zero'."
            )

    def gap_note(self, gap: float) -> str:
        """Interpret a completeness gap of the scores."""
        if self.gap_reason:
            return f"DeepLift's scores miss {gap:.0%} of f(x) - f(baseline) (convergence delta): {self.gap_reason}."
        hint = "." if self.more is None else f": pass options={{{self.more!r}: ...}} with more of them."
        return f"The scores miss {gap:.0%} of f(x) - f(baseline){hint}"

    def score(self, runner: EncoderRunner, batch: ScoringBatch, target: Target, **options: Any) -> TokenScores:
        """The scores of every input; see `TokenScorer.score`."""
        batch.require_positions(self.name)
        settled = batch.settle(target)
        values = Options(**{**self.options, **options})
        network = EmbeddingForward(
            runner, batch, settled, probability=not self.needs_gradients, internal_batch=values.internal_batch
        )
        scores = self.attribution(network, batch.special, batch.real, values)
        notes = list(scores.notes)
        if self.replaces_tokens and not batch.special_known:
            notes.append("Without a tokenizer it is not known which tokens are special: all of them were replaced.")
        assert settled.explained is not None
        known = all(one.probability is not None for one in settled.explained)
        explained = "probability of the class" if known else "the target's value"
        if self.needs_gradients:
            explained = "the target's value, as for method 'relevance'"
        info = {"options": {name: getattr(values, name) for name in self.option_names}, "explained": explained}
        return replace(scores, info={**info, **scores.info}, notes=tuple(notes))


_Gradient = partial(CaptumScorer, needs_gradients=True)
_Perturbation = partial(CaptumScorer, replaces_tokens=True, defaults=Options(internal_batch=None))
SCORERS = (
    _Gradient(
        "saliency",
        "Simonyan et al., arXiv 1312.6034; L2 norm of the gradient, not negative",
        "1 forward + 1 backward",
        gradients.saliency,
        ("internal_batch",),
        class_linked=False,
    ),
    _Gradient(
        "input_x_gradient",
        "Shrikumar et al., arXiv 1605.01713; sum over the embedding",
        "1 forward + 1 backward",
        gradients.input_x_gradient,
        ("internal_batch",),
    ),
    _Gradient(
        "integrated_gradients",
        "Sundararajan et al., arXiv 1703.01365; sum over the embedding",
        "`steps` forwards + backwards",
        gradients.integrated_gradients,
        ("steps", "baseline", "internal_batch"),
        replaces_tokens=True,
        additive=True,
        more="steps",
    ),
    _Gradient(
        "deeplift",
        "Shrikumar et al., arXiv 1704.02685, rescale rule of Captum; sum over the embedding",
        "2 forwards + 2 backwards",
        gradients.deeplift,
        ("baseline",),
        replaces_tokens=True,
        additive=True,
        gap_reason="Captum has no rule for attention, layer normalization or GELU",
    ),
    _Gradient(
        "gradient_shap",
        "Erion et al., arXiv 1906.10670, one baseline, no noise; sum over the embedding",
        "`samples` forwards + backwards",
        gradients.gradient_shap,
        ("samples", "seed", "baseline", "internal_batch"),
        replaces_tokens=True,
        additive=True,
        more="samples",
    ),
    _Perturbation(
        "occlusion",
        "Zeiler and Fergus, arXiv 1311.2901, windows of tokens",
        "n forwards",
        perturbation.occlusion,
        ("window", "baseline", "internal_batch"),
    ),
    _Perturbation(
        "feature_ablation",
        "leave-one-out, Li et al., arXiv 1612.08220",
        "n + 1 forwards",
        perturbation.feature_ablation,
        ("baseline", "internal_batch"),
    ),
    _Perturbation(
        "lime",
        "Ribeiro et al., arXiv 1602.04938, ridge regression on the presence of tokens",
        "`samples` forwards",
        perturbation.lime,
        ("samples", "penalty", "seed", "baseline", "internal_batch"),
        defaults=Options(samples=1000, internal_batch=None),
    ),
    _Perturbation(
        "kernel_shap",
        "Lundberg and Lee, arXiv 1705.07874",
        "`samples` forwards",
        perturbation.kernel_shap,
        ("samples", "seed", "baseline", "internal_batch"),
        defaults=Options(samples=1000, internal_batch=None),
        additive=True,
        more="samples",
    ),
    _Perturbation(
        "shapley_sampling",
        "Strumbelj and Kononenko, JMLR 11 (2010), random orders of tokens",
        "`samples` x n forwards",
        perturbation.shapley_sampling,
        ("samples", "seed", "baseline", "internal_batch"),
        additive=True,
    ),
)
