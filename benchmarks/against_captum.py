"""Seconds a text against Captum's LayerIntegratedGradients: the same token ids, the same target."""

from __future__ import annotations

from typing import Any

import torch
from bench import Bench, Rows, check_explanations
from captum.attr import LayerIntegratedGradients
from materials import class_difference, cut_texts
from measuring import check, in_turns, once, row
from torch import Tensor

STEPS = 50  # of integrated gradients
INTERNAL_BATCHES = (5, 10, 25, 50)  # of integrated gradients; the fastest counts


def against_captum(bench: Bench) -> Rows:
    """Seconds a text, explain and relevance against LayerIntegratedGradients, the same ids and the same target."""
    tokens = 40 if bench.arguments.quick else 180
    texts = cut_texts(bench.texts, bench.tokenizer, bench.turns(5), tokens)
    choice, delta = fastest_captum(bench, texts[0])
    ours, alone, peer = [], [], []
    gaps = [check_explanations(bench, ids, bench.forward(ids).logits.argmax(1))["completeness_gap"] for ids in texts]
    for turn, ids in enumerate(texts):
        chosen = bench.forward(ids).logits.argmax(1)
        tasks = [
            lambda ids, chosen: peer.append(once(lambda: integrated_gradients(bench, ids, chosen, **choice))),
            lambda ids, chosen: ours.append(in_turns({"": lambda: bench.explain(ids)}, 1)[""][0]),
            lambda ids, chosen: alone.append(in_turns({"": lambda: bench.relevance(ids, chosen)}, 1)[""][0]),
        ]
        for task in tasks[:: -1 if turn % 2 else 1]:
            task(ids, chosen)
    more = {
        "faster": True,
        "at_least": None if bench.arguments.quick else 30.0,
        "completeness_gap": max(gaps),
        "captum_convergence_delta": delta,
        "captum_settings": choice,
    }
    what = f"times faster than Captum's LayerIntegratedGradients, {STEPS} steps, texts of {tokens} tokens: "
    yield row("against Captum/explain", what + "explain with its layer statistics", ours, peer, **more)
    yield row("against Captum/relevance", what + "relevance alone", alone, peer, **more)


def fastest_captum(bench: Bench, ids: Tensor) -> tuple[dict[str, Any], float]:
    """The fastest settings on this text, and the convergence delta relative to the explained difference."""
    chosen = bench.forward(ids).logits.argmax(1)
    settings = [{"internal_batch": batch, "frozen": False} for batch in INTERNAL_BATCHES]
    integrated_gradients(bench, ids, chosen, **settings[0])
    seconds = [once(lambda choice=choice: integrated_gradients(bench, ids, chosen, **choice)) for choice in settings]
    best = settings[seconds.index(min(seconds))]
    if once(lambda: integrated_gradients(bench, ids, chosen, **{**best, "frozen": True})) < min(seconds):
        best = {**best, "frozen": True}
    scores, delta = integrated_gradients(bench, ids, chosen, **best, with_delta=True)
    relative = abs(float(delta)) / max(abs(float(scores.sum())), 1e-12)
    check(relative <= 0.05, f"integrated gradients have not converged: delta {relative:.1e}")
    return best, relative


def integrated_gradients(
    bench: Bench, ids: Tensor, chosen: Tensor, *, internal_batch: int, frozen: bool, with_delta: bool = False
) -> Any:
    """Captum's scores (1, tokens, hidden), with the convergence delta on request (it costs time).

    Baseline: [PAD] between [CLS] and [SEP]. `frozen`: parameters ask for no gradient.
    """

    def value(some: Tensor) -> Tensor:
        return class_difference(bench.model(input_ids=some).logits, chosen.expand(some.shape[0]))

    baseline = torch.full_like(ids, bench.tokenizer.pad_token_id)
    baseline[:, 0], baseline[:, -1] = ids[:, 0], ids[:, -1]
    bench.model.requires_grad_(not frozen)
    try:
        method = LayerIntegratedGradients(value, bench.model.get_input_embeddings())
        return method.attribute(
            ids,
            baselines=baseline,
            n_steps=STEPS,
            internal_batch_size=internal_batch,
            return_convergence_delta=with_delta,
        )
    finally:
        bench.model.requires_grad_(True)
