"""The model that is timed, the calls that are timed, and the checks that come before any figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common import Row, check
from benchmarks.inputs import class_difference
from hf_attn_mi import capture_attention, explain
from hf_attn_mi.methods.relevance import relevance
from hf_attn_mi.models.runner import EncoderRunner

LARGEST_GAP = 1e-5  # completeness gap that is allowed
Rows = Iterator[Row]


@dataclass(frozen=True)
class TimedModel:
    """A classifier with its tokenizer and texts, and the size of a benchmark.

    Attributes:
        model: the model, in float32 and evaluation mode.
        tokenizer: the tokenizer of the model.
        texts: to take token ids from.
        most_turns: upper limit for the turns of every part.
        quick: small shapes that only check that the benchmark runs.
    """

    model: nn.Module
    tokenizer: Any
    texts: list[str]
    most_turns: int
    quick: bool = False

    def turns(self, most: int) -> int:
        """Return the turns of a part that takes at most this many."""
        return min(most, self.most_turns)

    @torch.no_grad()
    def forward(self, ids: Tensor) -> Any:
        """Run one plain forward pass."""
        return self.model(input_ids=ids)

    @torch.no_grad()
    def captured(self, ids: Tensor, consumer: Callable[[Any], None], **options: Any) -> Any:
        """Run the same forward pass inside a capture."""
        with capture_attention(self.model, consumer, **options):
            return self.model(input_ids=ids)

    def explain(self, ids: Tensor, method: str = "relevance") -> Any:
        """Explain the whole batch in one pass."""
        batch = {"input_ids": ids}
        return explain(self.model, batch, tokenizer=self.tokenizer, method=method, batch_size=ids.shape[0])

    def relevance(self, ids: Tensor, target: Tensor) -> Any:
        """Compute token scores without the statistics of the layers."""
        runner = EncoderRunner.of(self.model)
        with runner.session():
            return relevance(runner, {"input_ids": ids}, lambda outputs: class_difference(outputs.logits, target))


def ignore(record: Any) -> None:
    """Do nothing: the cheapest consumer of a capture."""


def check_explanations(timed: TimedModel, ids: Tensor, target: Tensor) -> dict[str, float]:
    """Check that every explanation is complete and explains the value of a plain forward pass."""
    explanations = timed.explain(ids)
    explanations = [explanations] if len(ids) == 1 else list(explanations)
    gap = max(float(explanation.completeness_gap) for explanation in explanations)
    check(gap <= LARGEST_GAP, f"completeness gap {gap:.1e} > {LARGEST_GAP:g}")
    result = timed.relevance(ids, target)
    expected = class_difference(timed.forward(ids).logits, target)
    check(
        torch.allclose(result.value.float(), expected.float(), rtol=1e-4, atol=1e-5), "relevance explains another value"
    )
    relevance_gap = float(result.gap.max())
    check(relevance_gap <= LARGEST_GAP, f"completeness gap of relevance {relevance_gap:.1e} > {LARGEST_GAP:g}")
    return {"completeness_gap": gap}


def check_capture(timed: TimedModel, ids: Tensor) -> dict[str, bool]:
    """Check that logits are bit-equal with and without capture and streamed states equal the model's own."""
    logits, states = timed.forward(ids).logits, []
    check(torch.equal(logits, timed.captured(ids, ignore).logits), "captured logits differ")
    with_states = timed.captured(ids, ignore, states=lambda record: states.append(record.states)).logits
    check(torch.equal(logits, with_states), "captured logits differ with states")
    with torch.no_grad():
        hidden_states = timed.model(input_ids=ids, output_hidden_states=True).hidden_states
    equal = len(hidden_states) == len(states) and all(map(torch.equal, hidden_states, states))
    check(equal, "streamed states differ")
    return {"logits_bit_equal": True}
