"""Methods that others are compared with: random scores, and the norms of value-weighted attention."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.capture import AttentionCall
from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError
from hf_attn_mi.methods.base import TokenScores
from hf_attn_mi.methods.batch import ScoringBatch
from hf_attn_mi.methods.captum.options import check_option
from hf_attn_mi.models.encoded_input import MAIN_KEYS
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target


@dataclass(frozen=True)
class RandomScorer:
    """Uniform draws from [0, 1), without a forward pass: the baseline for every method.

    The draws depend on the seed and on the input itself: the same in any batch, different for another text.
    """

    name: str = "random"
    reference: str = "uniform draws from [0, 1)"
    class_linked: bool = False
    needs_gradients: bool = False
    additive: bool = False
    cost: str = "no pass"
    options: Mapping[str, Any] = field(default_factory=lambda: {"seed": 0})

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Check the options: `seed` must be a whole number of at least 0."""
        for name, value in options.items():
            check_option(self.name, name, value)

    def score(self, runner: EncoderRunner, batch: ScoringBatch, target: Target, *, seed: int = 0) -> TokenScores:
        """The scores of every input; see `TokenScorer.score`."""
        batch.require_positions(self.name)
        main = next(value for key in MAIN_KEYS if (value := batch.arguments.get(key)) is not None)
        scores = torch.zeros(batch.real.shape, dtype=torch.float32)
        for i, keep in enumerate(batch.real.cpu()):
            values = main[i].detach().cpu()
            content = (values[keep] if batch.is_text else values).double().numpy().tobytes()
            generator = torch.Generator().manual_seed(zlib.crc32(content, seed))  # crc32 takes 32 bits of the seed
            scores[i, keep] = torch.rand(int(keep.sum()), generator=generator, dtype=torch.float32)
        info = {"options": {"seed": seed}, "explained": "nothing"}
        return TokenScores(scores, space="none", info=info)


@dataclass(frozen=True)
class ValueNormScorer:
    """Norm of what each token contributes to the output of attention, ||sum_h a_ij^h f_h(x_j)||, received.

    Kobayashi et al., arXiv 2004.10102: f_h(x_j) = v_j^h W_O^h, heads added before the norm; mean over the real queries
    i and over layers.
    """

    name: str = "value_norms"
    reference: str = "Kobayashi et al., arXiv 2004.10102, heads added before the norm, received"
    class_linked: bool = False
    needs_gradients: bool = False
    additive: bool = False
    cost: str = "1 forward"
    options: Mapping[str, Any] = field(default_factory=dict)

    def score(self, runner: EncoderRunner, batch: ScoringBatch, target: Target) -> TokenScores:
        """The scores of every input; see `TokenScorer.score`.

        Raises:
            InvalidInputError: no attention over the input's own tokens.
            UnsupportedModelError: the attention has no linear output map W_O, or cannot be captured.
        """
        batch.require_positions(self.name)
        norms: ValueNorms = batch.observed(self.observer)
        if not norms.layers:
            raise InvalidInputError(
                f"method {self.name!r} needs attention over the input's own tokens, which {runner.class_name} does not "
                "compute on this input; use method='relevance'."
            )
        info = {"options": {}, "explained": "nothing"}
        return TokenScores(torch.stack(norms.layers).mean(0).float(), space="attention received", info=info)

    def observer(self, batch: ScoringBatch) -> ValueNorms:
        """The consumer of the attention calls of this batch; see `TokenScorer`."""
        return ValueNorms(batch.real, batch.runner.encoder_prefix)


class ValueNorms:
    """Consumer of attention calls: the norms that each token receives, layer by layer.

    Args:
        real: (batch, tokens) bool, True for real tokens.
        encoder: prefix of the modules to keep; "" keeps all.

    Attributes:
        layers: (batch, tokens) float64 of each layer.
    """

    def __init__(self, real: Tensor, encoder: str) -> None:
        self.real, self.prefix = real, f"{encoder}." if encoder else ""
        self.layers: list[Tensor] = []

    def __call__(self, call: AttentionCall) -> None:
        """Add the norms of a call over the input's own tokens."""
        shape = (call.output.shape[0], call.output.shape[2], call.value.shape[2])
        if shape == (*self.real.shape, self.real.shape[1]) and call.module_name.startswith(self.prefix):
            with torch.no_grad():
                self.layers.append(_received(call, self.real))


def _received(call: AttentionCall, real: Tensor) -> Tensor:
    """(batch, tokens) float64 mean over real queries of ||sum_h a_ij^h f_h(x_j)||."""
    output = call.output_weight
    if output is None:
        raise UnsupportedModelError(
            f"{call.module_name}: its attention is not followed to a linear W_O, so that a token's contribution has no "
            "norm. Use method='attention'."
        )
    rows = call.attention().detach().double()
    real = real.to(rows.device)
    moved = torch.einsum("bhkd,hde->bkhe", call.values_per_head().detach().double(), output.detach().double())
    # ||sum_h a_h f_h||^2 = a^T G a with G = F F^T for each key: nothing of size queries x keys x hidden is formed.
    gram = moved @ moved.transpose(-1, -2)  # (batch, keys, heads, heads)
    squares = torch.einsum("bhqk,bkhg,bgqk->bqk", rows, gram, rows)
    norms = squares.clamp_min(0).sqrt() * real[:, :, None] * real[:, None]
    return (norms.sum(1) / real.sum(1, keepdim=True).clamp_min(1)).cpu()


SCORERS = (RandomScorer(), ValueNormScorer())
