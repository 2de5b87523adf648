"""Seconds a text against Captum: the same token ids, the same target, in turns in one process.

    python benchmarks/speed/against_captum.py            # writes benchmarks/speed/results/against_captum.jsonl
    python benchmarks/speed/against_captum.py --quick    # short texts and two turns, writes only where --output says

Correctness is checked first. Captum's integrated gradients run with the fastest of several internal batch sizes and
without their convergence delta. `--rivals` adds Captum's other methods (LIME, KernelSHAP, feature ablation), which
take minutes a text.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # `benchmarks` is imported as a package

import torch
from captum.attr import LayerIntegratedGradients
from torch import Tensor

from benchmarks.common import check, format_row, result_row, run_parts, seconds_of, time_in_turns
from benchmarks.inputs import class_difference, cut_texts, load_classifier, load_tokenizer, model_folder, read_texts
from benchmarks.speed.timed_model import Rows, TimedModel, check_explanations
from hf_attn_mi import explain

RESULTS = Path(__file__).parent / "results" / "against_captum.jsonl"
STEPS = 50  # steps of integrated gradients
INTERNAL_BATCHES = (5, 10, 25, 50)  # internal batch sizes of integrated gradients; the fastest counts
STUDY_LENGTHS = (128, 180)
OTHER_SCORES = ("attnlrp", "attnlrp_iterative")
TARGETS = {"integrated_gradients": 30.0, "lime": 100.0, "kernel_shap": 100.0, "feature_ablation": 100.0}


def against_integrated_gradients(timed: TimedModel) -> Rows:
    """Time explain and relevance against Captum's LayerIntegratedGradients."""
    tokens = 40 if timed.quick else 180
    texts = cut_texts(timed.texts, timed.tokenizer, timed.turns(5), tokens)
    settings, delta = fastest_settings(timed, texts[0])
    seconds: dict[str, list[float]] = {"explain": [], "relevance": [], "captum": []}
    gaps = []
    for turn, ids in enumerate(texts):
        target = timed.forward(ids).logits.argmax(1)
        gaps.append(check_explanations(timed, ids, target)["completeness_gap"])
        for name in list(seconds)[:: -1 if turn % 2 else 1]:
            method = "integrated_gradients" if name == "captum" else name
            seconds[name].append(seconds_a_text(timed, method, ids, target, settings))
    fields = {
        "faster": True,
        "at_least": None if timed.quick else 30.0,
        "completeness_gap": max(gaps),
        "captum_convergence_delta": delta,
        "captum_settings": settings,
    }
    what = f"times faster than Captum's LayerIntegratedGradients, {STEPS} steps, texts of {tokens} tokens: "
    for name, part in (("explain", "explain with its layer statistics"), ("relevance", "relevance alone")):
        yield result_row(f"against Captum/{name}", what + part, seconds[name], seconds["captum"], **fields)


def against_other_methods(timed: TimedModel, lengths: tuple[int, ...] = STUDY_LENGTHS) -> Rows:
    """Time relevance and explain against Captum's usual methods; each turn explains another review."""
    for tokens in lengths:
        texts = cut_texts(timed.texts, timed.tokenizer, timed.most_turns, tokens)
        settings, _ = fastest_settings(timed, texts[0])
        seconds: dict[str, list[float]] = {name: [] for name in ("relevance", "explain", *OTHER_SCORES, *TARGETS)}
        for turn, ids in enumerate(texts):
            target = timed.forward(ids).logits.argmax(1)
            check_explanations(timed, ids, target)
            for name in list(seconds)[:: -1 if turn % 2 else 1]:
                seconds[name].append(seconds_a_text(timed, name, ids, target, settings))
        for name in OTHER_SCORES:
            what = f"times as long as relevance: {name}, through explain, texts of {tokens} tokens"
            key = f"{name} over relevance/{tokens} tokens"
            yield result_row(key, what, seconds[name], seconds["explain"], tokens=tokens)
        for name, target_ratio in TARGETS.items():
            for ours in ("relevance", "explain"):
                applies = ours == "relevance" and (name != "integrated_gradients" or tokens == STUDY_LENGTHS[-1])
                yield result_row(
                    f"{ours} against {name}/{tokens} tokens",
                    f"times faster than {name}: {ours}, texts of {tokens} tokens",
                    seconds[ours],
                    seconds[name],
                    faster=True,
                    at_least=target_ratio if applies else None,
                    tokens=tokens,
                )


def seconds_a_text(timed: TimedModel, name: str, ids: Tensor, target: Tensor, settings: dict[str, Any]) -> float:
    """Return the seconds of one text; integrated gradients are called without this package's wrapper."""
    if name == "relevance":
        return time_in_turns({name: lambda: timed.relevance(ids, target)}, 1)[name][0]
    if name == "explain":
        return time_in_turns({name: lambda: timed.explain(ids)}, 1)[name][0]
    if name == "integrated_gradients":
        return seconds_of(lambda: integrated_gradients(timed, ids, target, **settings))
    return seconds_of(lambda: explain(timed.model, {"input_ids": ids}, tokenizer=timed.tokenizer, method=name))


def fastest_settings(timed: TimedModel, ids: Tensor) -> tuple[dict[str, Any], float]:
    """Return Captum's fastest settings on this text, and the convergence delta relative to the explained value."""
    target = timed.forward(ids).logits.argmax(1)
    candidates = [{"internal_batch": batch, "frozen": False} for batch in INTERNAL_BATCHES]
    integrated_gradients(timed, ids, target, **candidates[0])  # warms up
    seconds = [seconds_of(partial(integrated_gradients, timed, ids, target, **choice)) for choice in candidates]
    best = candidates[seconds.index(min(seconds))]
    frozen = {**best, "frozen": True}
    if seconds_of(lambda: integrated_gradients(timed, ids, target, **frozen)) < min(seconds):
        best = frozen
    scores, delta = integrated_gradients(timed, ids, target, **best, with_delta=True)
    relative = abs(float(delta)) / max(abs(float(scores.sum())), 1e-12)
    check(relative <= 0.05, f"integrated gradients have not converged: delta {relative:.1e}")
    return best, relative


def integrated_gradients(
    timed: TimedModel, ids: Tensor, target: Tensor, *, internal_batch: int, frozen: bool, with_delta: bool = False
) -> Any:
    """Return Captum's scores (1, tokens, hidden), with the convergence delta on request (which costs time).

    The baseline is [PAD] between [CLS] and [SEP].

    Args:
        timed: the model.
        ids: (1, tokens).
        target: (1,) class.
        internal_batch: Captum's internal_batch_size.
        frozen: parameters do not require gradients.
        with_delta: also return the convergence delta.
    """

    def value(some_ids: Tensor) -> Tensor:
        return class_difference(timed.model(input_ids=some_ids).logits, target.expand(some_ids.shape[0]))

    baseline = torch.full_like(ids, timed.tokenizer.pad_token_id)
    baseline[:, 0], baseline[:, -1] = ids[:, 0], ids[:, -1]
    timed.model.requires_grad_(not frozen)
    try:
        method = LayerIntegratedGradients(value, timed.model.get_input_embeddings())
        return method.attribute(
            ids,
            baselines=baseline,
            n_steps=STEPS,
            internal_batch_size=internal_batch,
            return_convergence_delta=with_delta,
        )
    finally:
        timed.model.requires_grad_(True)


def study_rows(turns: int) -> Rows:
    """Time against Captum's usual methods on the fine-tuned classifier, for the study of faithfulness."""
    folder = model_folder(None)
    timed = TimedModel(load_classifier(folder), load_tokenizer(folder), read_texts(None, 200), turns)
    for row in against_other_methods(timed):
        print(format_row(row), flush=True)
        yield row


def main() -> int:
    """Run the comparison; the exit status is 1 where a check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a BERT-like classifier with its tokenizer")
    parser.add_argument("--data", type=Path, help="jsonl.gz with a field text")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--rivals", action="store_true", help="also LIME, KernelSHAP and feature ablation: minutes")
    parser.add_argument("--quick", action="store_true", help="short texts, two turns")
    parser.add_argument("--output", type=Path, help="default results/against_captum.jsonl; none with --quick")
    arguments = parser.parse_args()
    folder = model_folder(arguments.model)
    turns = min(arguments.turns, 2) if arguments.quick else arguments.turns
    texts = read_texts(arguments.data, 200)
    timed = TimedModel(load_classifier(folder), load_tokenizer(folder), texts, turns, arguments.quick)
    parts = [("integrated gradients", partial(against_integrated_gradients, timed), arguments.threads)]
    if arguments.rivals:
        lengths = (40,) if arguments.quick else STUDY_LENGTHS
        parts.append(("other methods", partial(against_other_methods, timed, lengths), [1]))
    _, failures = run_parts(parts, arguments.output or (None if arguments.quick else RESULTS))
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
