"""Other people's token scores behind one signature: gradients, perturbations, and what they have to beat.

Every method is a function of (model, arguments, aim, special, real, options) and returns `TokenScores`:

- model: a PreTrainedModel in evaluation mode; left as it was.
- arguments: keyword arguments of its forward, batch first; segments, positions and masks are passed on unchanged.
- aim: (outputs, rows) -> (n,) explained values, where row k of the outputs is a variant of input rows[k].
- special: (batch, tokens) bool; special tokens are never replaced, and stand in every baseline.
- real: (batch, tokens) bool, False at padding, whose score is exactly 0.
- options: see `Options`; a row of `BASELINES` names those that its method reads.

Example:
    >>> import torch
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=9)
    >>> model = BertForSequenceClassification(BertConfig(**sizes)).eval()
    >>> ids = torch.tensor([[2, 5, 6, 3]])
    >>> special, real = torch.tensor([[True, False, False, True]]), torch.ones(1, 4, dtype=torch.bool)
    >>> method = BASELINES["integrated_gradients"]
    >>> found = method.score(model, {"input_ids": ids}, lambda o, rows: o.logits[:, 0], special, real, method.default)
    >>> (found.scores != 0).tolist(), found.baseline
    ([[False, True, True, False]], 'embedding of the pad token (id 0)')
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hf_attn_mi.methods.captum import controls, gradients, perturbation
from hf_attn_mi.methods.captum.base import Aim, Options, TokenScores, missing_share, read_options
from hf_attn_mi.methods.captum.embedding_forward import out_of_memory

__all__ = ["BASELINES", "Aim", "Baseline", "Options", "TokenScores", "missing_share", "out_of_memory", "read_options"]


@dataclass(frozen=True)
class Baseline:
    """A row of the table of baseline methods."""

    score: Callable[..., TokenScores]
    reference: str
    allowed: tuple[str, ...]  # options
    default: Options = field(default_factory=Options)
    gradients: bool = False  # explained value and its gradient; else the probability of the class
    perturbs: bool = False  # replaces tokens: which ones are special matters


_BATCH, _FROM = ("internal_batch",), ("baseline", "internal_batch")
BASELINES: dict[str, Baseline] = {
    "saliency": Baseline(
        gradients.saliency,
        "Simonyan et al., arXiv 1312.6034; L2 norm of the gradient, not negative",
        _BATCH,
        gradients=True,
    ),
    "input_x_gradient": Baseline(
        gradients.input_x_gradient,
        "Shrikumar et al., arXiv 1605.01713; sum over the embedding",
        _BATCH,
        gradients=True,
    ),
    "integrated_gradients": Baseline(
        gradients.integrated_gradients,
        "Sundararajan et al., arXiv 1703.01365; sum over the embedding",
        ("steps", *_FROM),
        gradients=True,
        perturbs=True,
    ),
    "deeplift": Baseline(
        gradients.deeplift,
        "Shrikumar et al., arXiv 1704.02685, rescale rule of Captum; sum over the embedding",
        ("baseline",),
        gradients=True,
        perturbs=True,
    ),
    "gradient_shap": Baseline(
        gradients.gradient_shap,
        "Erion et al., arXiv 1906.10670, one baseline, no noise; sum over the embedding",
        ("samples", "seed", *_FROM),
        gradients=True,
        perturbs=True,
    ),
    "occlusion": Baseline(
        perturbation.occlusion,
        "Zeiler and Fergus, arXiv 1311.2901, windows of tokens",
        ("window", *_FROM),
        perturbs=True,
    ),
    "feature_ablation": Baseline(
        perturbation.feature_ablation, "leave-one-out, Li et al., arXiv 1612.08220", _FROM, perturbs=True
    ),
    "lime": Baseline(
        perturbation.lime,
        "Ribeiro et al., arXiv 1602.04938, ridge regression on the presence of tokens",
        ("samples", "penalty", "seed", *_FROM),
        Options(samples=1000),
        perturbs=True,
    ),
    "kernel_shap": Baseline(
        perturbation.kernel_shap,
        "Lundberg and Lee, arXiv 1705.07874",
        ("samples", "seed", *_FROM),
        Options(samples=1000),
        perturbs=True,
    ),
    "shapley_sampling": Baseline(
        perturbation.shapley_sampling,
        "Strumbelj and Kononenko, JMLR 11 (2010), random orders of tokens",
        ("samples", "seed", *_FROM),
        perturbs=True,
    ),
    "random": Baseline(controls.random, "uniform draws from [0, 1)", ("seed",)),
    "value_norms": Baseline(
        controls.value_norms, "Kobayashi et al., arXiv 2004.10102, heads added before the norm, received", ()
    ),
}
