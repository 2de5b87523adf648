"""Methods that read scores off attention: received, rolled out, effective, efficient, or that of an attention head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.attention import rollout
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.methods.base import TokenScores
from hf_attn_mi.methods.batch import ScoringBatch
from hf_attn_mi.methods.heads import refuse_without_head
from hf_attn_mi.methods.layer_statistics import LayerStatistics
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target


@dataclass(frozen=True)
class AttentionScorer:
    """Scores by attention received: not negative (except effective attention), and not tied to a class.

    Attributes:
        name, reference: see `TokenScorer`.
        read: (statistics, index of the input) -> (tokens,) scores; None if the model gave no such attention.
        statistics: extra layer statistics that `read` needs.
        of_head: reads the attention head of `hf_attn_mi.heads`, which only its models have.
    """

    name: str
    reference: str
    read: Callable[[LayerStatistics, int], Tensor | None]
    statistics: frozenset[str] = frozenset()
    of_head: bool = False
    class_linked: bool = False
    needs_gradients: bool = False
    additive: bool = False
    cost: str = "1 forward"
    options: Mapping[str, Any] = field(default_factory=dict)

    def check(self, runner: EncoderRunner, options: Mapping[str, Any]) -> None:
        """Refuse a model without an attention head where its attention is the score."""
        if self.of_head:
            refuse_without_head(runner)

    def score(self, runner: EncoderRunner, batch: ScoringBatch, target: Target) -> TokenScores:
        """The scores of every input; see `TokenScorer.score`.

        Raises:
            InvalidInputError: the model computes no attention over the input's own tokens.
        """
        batch.run()
        self._refuse_other_tokens(runner, batch)
        rows = [None if batch.statistics is None else self.read(batch.statistics, i) for i in range(len(batch))]
        if any(row is None for row in rows):
            raise InvalidInputError(
                f"method {self.name!r} needs attention over the input's own tokens, which {runner.class_name} does not "
                "compute on this input (windows, patches or latents); use method='relevance'."
            )
        longest = max(one.token_count for one in batch.inputs)
        scores = torch.zeros(len(rows), longest, dtype=torch.float32)
        for i, row in enumerate(rows):
            assert row is not None
            scores[i, : row.shape[0]] = row
        return TokenScores(scores, space="attention received")

    def _refuse_other_tokens(self, runner: EncoderRunner, batch: ScoringBatch) -> None:
        """Refuse images and audio of which a part of the layers sees other tokens than the first layer."""
        skipped = [] if batch.is_text or batch.statistics is None else list(dict.fromkeys(batch.statistics.other_keys))
        if skipped:
            raise InvalidInputError(
                f"method {self.name!r} needs attention over the same positions in every layer; in {runner.class_name} "
                f"{len(skipped)} attention modules, such as {skipped[0]}, see windows of patches, merged patches or "
                "latents. Use method='relevance' or 'occlusion'."
            )


def _mean(values: Sequence[Tensor | None]) -> Tensor | None:
    """Mean over layers and heads of (heads, tokens) tensors; None if there are none."""
    present = [value.mean(0) for value in values if value is not None]
    return torch.stack(present).mean(0) if present else None


def _rollout(statistics: LayerStatistics, i: int) -> Tensor | None:
    if not statistics.matrices[i]:
        return None
    real = statistics.real[i, : statistics.lengths[i]].cpu()
    return rollout(statistics.matrices[i])[real].mean(0)


def _of_head(statistics: LayerStatistics, i: int) -> Tensor | None:
    if statistics.head is None or not statistics.head.layers[i]:
        return None
    return statistics.head.layers[i][0].received.mean(0)


SCORERS = (
    AttentionScorer(
        "attention",
        "attention received, mean over layers, heads and queries",
        lambda statistics, i: _mean([layer.received for layer in statistics.layers[i]]),
        frozenset({"received"}),
    ),
    AttentionScorer(
        "rollout",
        "Abnar and Zuidema, arXiv 2005.00928; mean over queries",
        _rollout,
        frozenset({"matrices"}),
    ),
    AttentionScorer(
        "effective",
        "Brunner et al., arXiv 1908.04211, received, mean over layers, heads and queries",
        lambda statistics, i: _mean([layer.received_effective for layer in statistics.layers[i]]),
        frozenset({"per_query_effective"}),
    ),
    AttentionScorer(
        "head",
        "attention of the classification head, mean over its heads and queries",
        _of_head,
        frozenset({"head"}),
        of_head=True,
    ),
    AttentionScorer(
        "efficient",
        "our operationalization of efficient attention (arXiv 2410.18541), received",
        lambda statistics, i: _mean(statistics.efficient_received[i]),
        frozenset({"efficient"}),
    ),
)
