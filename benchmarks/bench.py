"""The model under test, the calls that are timed, and the checks that come before any figure."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from materials import class_difference
from measuring import check
from torch import Tensor, nn

from hf_attn_mi import capture_attention, explain
from hf_attn_mi.methods.relevance import relevance

Rows = Iterator[dict[str, Any]]
GAP = 1e-5  # largest completeness gap


@dataclass(frozen=True)
class Bench:
    """What every part needs."""

    model: nn.Module
    tokenizer: Any
    texts: list[str]
    arguments: argparse.Namespace

    def turns(self, most: int) -> int:
        """Number of turns of a part that takes at most this many."""
        return min(most, self.arguments.turns)

    @torch.no_grad()
    def forward(self, ids: Tensor) -> Any:
        """One plain forward pass."""
        return self.model(input_ids=ids)

    @torch.no_grad()
    def captured(self, ids: Tensor, consumer: Callable[[Any], None], **options: Any) -> Any:
        """The same inside a capture."""
        with capture_attention(self.model, consumer, **options):
            return self.model(input_ids=ids)

    def explain(self, ids: Tensor, method: str = "relevance") -> Any:
        """The whole batch in one pass."""
        batch = {"input_ids": ids}
        return explain(self.model, batch, tokenizer=self.tokenizer, method=method, batch_size=ids.shape[0])

    def relevance(self, ids: Tensor, chosen: Tensor) -> Any:
        """Token scores without the statistics of the layers."""
        return relevance(self.model, {"input_ids": ids}, lambda outputs: class_difference(outputs.logits, chosen))


def ignore(record: Any) -> None:
    """A consumer that does nothing."""


def check_explanations(bench: Bench, ids: Tensor, chosen: Tensor) -> dict[str, float]:
    """Completeness of every explanation, and that relevance and a plain forward explain the same value."""
    explained = bench.explain(ids)
    explained = explained if isinstance(explained, list) else [explained]
    gap = max(float(explanation.completeness_gap) for explanation in explained)
    check(gap <= GAP, f"completeness gap {gap:.1e} > {GAP:g}")
    found = bench.relevance(ids, chosen)
    wanted = class_difference(bench.forward(ids).logits, chosen)
    check(torch.allclose(found.value, wanted, rtol=1e-4, atol=1e-5), "relevance explains another value")
    check(float(found.gap.max()) <= GAP, f"completeness gap of relevance {float(found.gap.max()):.1e} > {GAP:g}")
    return {"completeness_gap": gap}


def check_capture(bench: Bench, ids: Tensor) -> dict[str, bool]:
    """Logits bit-equal with and without the capture; streamed states equal to the model's own."""
    plain, states = bench.forward(ids).logits, []
    check(torch.equal(plain, bench.captured(ids, ignore).logits), "captured logits differ")
    watched = bench.captured(ids, ignore, states=lambda record: states.append(record.states)).logits
    check(torch.equal(plain, watched), "captured logits differ with states")
    with torch.no_grad():
        own = bench.model(input_ids=ids, output_hidden_states=True).hidden_states
    check(len(own) == len(states) and all(map(torch.equal, own, states)), "streamed states differ")
    return {"logits_bit_equal": True}
