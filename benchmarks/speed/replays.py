"""Captum's perturbation methods through explain against plain calls of Captum, in turns, in processor seconds.

    python benchmarks/speed/replays.py            # writes benchmarks/speed/results/replays.jsonl
    python benchmarks/speed/replays.py --quick    # the embedded model, short texts, writes only where --output says

The peer is Captum's own class on the presence of the tokens, with a plain call of the model. It runs with the fastest
of several `perturbations_per_eval`, found before the turns. There are two baselines: "pad" puts [PAD] in the place of a
token, "removed" masks it as a key. Before a figure is taken, the scores of both must agree. Neither computes statistics
of the layers. Parts whose name ends in "operations" count the multiplications of both, by PyTorch, and time nothing:

    python benchmarks/speed/replays.py --operations --output benchmarks/speed/results/replays.jsonl
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # `benchmarks` is imported as a package

import captum.attr
import numpy as np
import torch
from captum.attr._core.lime import get_exp_kernel_similarity_function
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import EMBEDDED_MODEL, check, cpu_seconds_in_turns, result_row, run_parts
from benchmarks.inputs import cut_texts, load_classifier, load_tokenizer, model_folder, read_texts
from benchmarks.speed.timed_model import Rows, TimedModel
from hf_attn_mi import explain
from hf_attn_mi.methods.captum.linear_surrogate import WeightedRidge

RESULTS = Path(__file__).parent / "results" / "replays.jsonl"
LENGTHS = (25, 128)
SAMPLES = {25: {"lime": 200, "kernel_shap": 200, "shapley_sampling": 5}}
FEWER_SAMPLES = {"lime": 60, "kernel_shap": 60, "shapley_sampling": 1}  # at other lengths
METHODS = ("feature_ablation", "occlusion", "lime", "kernel_shap", "shapley_sampling")
BASELINES = ("pad", "removed")
PER_EVAL = (1, 8, 32, 64)  # perturbations_per_eval of the peer; the fastest counts
TARGET = 2.0
WINDOW = 3


def calls(
    timed: TimedModel, tokens: int, baseline: str
) -> Iterator[tuple[str, Callable[[], Any], Callable[[int], Tensor]]]:
    """The methods, each with its call of explain and that of Captum (of `perturbations_per_eval`), on one text."""
    samples = SAMPLES.get(tokens, FEWER_SAMPLES)
    ids = cut_texts(timed.texts, timed.tokenizer, 1, tokens)[0]
    target = int(timed.forward(ids).logits.argmax(1))
    value = removed_value if baseline == "removed" else replaced_value
    for method in METHODS:
        options: dict[str, Any] = {"baseline": baseline}
        if method in samples:
            options["samples"] = samples[method]
        ours = partial(
            explain,
            timed.model,
            {"input_ids": ids},
            tokenizer=timed.tokenizer,
            method=method,
            target=target,
            options=options,
            layers="none",
        )
        yield method, ours, partial(captum_scores, method, partial(value, timed, ids, target), ids, samples)


def against_captum(timed: TimedModel, tokens: int, baseline: str) -> Rows:
    """Time every method with one baseline on a text of this length."""
    for method, ours, peer in calls(timed, tokens, baseline):
        yield of_method(timed, method, baseline, tokens, ours, peer)


def multiplications(timed: TimedModel, tokens: int, baseline: str) -> Rows:
    """Count the floating-point operations of the products of matrices of both sides."""
    for method, ours, peer in calls(timed, tokens, baseline):
        ours()  # what is run once for a model
        counts = []
        for run in (ours, partial(peer, PER_EVAL[-1])):
            with FlopCounterMode(display=False) as counter:
                run()
            counts.append(counter.get_total_flops() / 1e9)
        check(min(counts) > 0, "no operation was counted")
        yield result_row(
            f"operations of perturbation methods/{method}, {baseline}, {tokens} tokens",
            "floating-point operations of products of matrices, over those of plain Captum",
            counts[:1],
            counts[1:],
            unit="GFLOP",
        )


def of_method(
    timed: TimedModel, method: str, baseline: str, tokens: int, ours: Callable[[], Any], peer: Callable[..., Tensor]
) -> dict[str, Any]:
    """Check that both give the same scores, find the fastest peer, and time both in turns."""
    scores = ours().scores[1:-1]
    seconds = {}
    for per_eval in PER_EVAL:
        started = time.process_time()
        expected = peer(per_eval)
        seconds[per_eval] = time.process_time() - started
    gap = float((scores - expected).abs().max())
    check(gap <= 1e-5, f"{method}, {baseline}: the scores differ from Captum's by {gap:.1e}")
    best = min(seconds, key=seconds.__getitem__)
    measured = cpu_seconds_in_turns({"ours": ours, "peer": partial(peer, best)}, timed.turns(3))
    return result_row(
        f"perturbation methods against plain Captum/{method}, {baseline}, {tokens} tokens",
        f"times faster than plain Captum: {method}, baseline {baseline}, a text of {tokens} tokens",
        measured["ours"],
        measured["peer"],
        faster=True,
        at_least=None if timed.quick else TARGET,
        tokens=tokens,
        baseline=baseline,
        method=method,
        perturbations_per_eval=best,
        largest_difference=gap,
    )


def replaced_value(timed: TimedModel, ids: Tensor, target: int, present: Tensor) -> Tensor:
    """Return the probability with [PAD] in place of the tokens that are not present."""
    rows = ids.repeat(len(present), 1)
    rows[:, 1:-1] = torch.where(present.bool(), rows[:, 1:-1], timed.tokenizer.pad_token_id)
    logits: Tensor = timed.forward(rows).logits
    return logits.softmax(1)[:, target]


@torch.no_grad()
def removed_value(timed: TimedModel, ids: Tensor, target: int, present: Tensor) -> Tensor:
    """Return the probability with the tokens that are not present masked as keys."""
    mask = torch.ones(len(present), ids.shape[1], dtype=torch.long)
    mask[:, 1:-1] = present.long()
    logits: Tensor = timed.model(input_ids=ids.repeat(len(present), 1), attention_mask=mask).logits
    return logits.softmax(1)[:, target]


def captum_scores(
    method: str, value: Callable[[Tensor], Tensor], ids: Tensor, samples: dict[str, int], per_eval: int
) -> Tensor:
    """Return the scores of a plain call of Captum, (tokens between the special ones,)."""
    present = torch.ones(1, ids.shape[1] - 2)
    torch.manual_seed(0)
    np.random.seed(0)
    options: dict[str, Any] = {"perturbations_per_eval": per_eval}
    if method in samples:
        options["n_samples"] = samples[method]
    if method == "occlusion":
        options["sliding_window_shapes"] = (WINDOW,)
    if method == "lime":
        kernel = get_exp_kernel_similarity_function("cosine", 0.25)
        attribution: Any = captum.attr.Lime(value, WeightedRidge(1.0), kernel)
    elif method == "kernel_shap":
        attribution = captum.attr.KernelShap(value)
        attribution.interpretable_model = WeightedRidge(0.0)  # Captum's own model needs scikit-learn
    else:
        kinds = {
            "feature_ablation": captum.attr.FeatureAblation,
            "occlusion": captum.attr.Occlusion,
            "shapley_sampling": captum.attr.ShapleyValueSampling,
        }
        attribution = kinds[method](value)
    scores: Tensor = attribution.attribute(present, **options)[0]
    return scores.float()


def main() -> int:
    """Run the comparison; the exit status is 1 where a check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a BERT-like classifier with its tokenizer")
    parser.add_argument("--data", type=Path, help="jsonl.gz with a field text")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="the embedded model, short texts, two turns")
    parser.add_argument("--output", type=Path, help="default results/replays.jsonl; none with --quick")
    parser.add_argument("--operations", action="store_true", help="count multiplications only")
    arguments = parser.parse_args()
    folder = EMBEDDED_MODEL if arguments.quick and arguments.model is None else model_folder(arguments.model)
    turns = min(arguments.turns, 2) if arguments.quick else arguments.turns
    timed = TimedModel(
        load_classifier(folder), load_tokenizer(folder), read_texts(arguments.data, 200), turns, arguments.quick
    )
    lengths = [10] if arguments.quick else arguments.lengths
    parts = [
        (f"{tokens} tokens, {baseline}{suffix}", partial(part, timed, tokens, baseline), [1])
        for part, suffix in ((against_captum, ""), (multiplications, ", operations"))
        if suffix or not arguments.operations
        for tokens in lengths
        for baseline in BASELINES
    ]
    output = arguments.output or (None if arguments.quick or arguments.operations else RESULTS)
    _, failures = run_parts(parts, output, model=folder.name)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
