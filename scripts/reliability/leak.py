"""Thousands of calls: memory, tensors, hooks and descriptors stay flat.

python -m scripts.reliability.leak --count 2000 --seed 0

The calls go through every task in turns, on inputs of changing length, refused ones among them. Memory is compared
between the middle and the end of the run: the allocator of the system settles in the first half.
"""

from __future__ import annotations

import ctypes
import random
import sys
import time
import warnings
from contextlib import suppress
from typing import Any

import torch

from hf_attn_mi import InvalidInputError, attention_maps, capture_attention, certify, compare, explain, minimal_tokens
from scripts.reliability.common import (
    arguments,
    changes,
    live_tensors,
    model_state,
    models,
    process_state,
    quick_collections,
    report,
    resident_mib,
    tokenizer,
)

WORDS = ("a", "film", "that", "is", "warm", "funny", "dull", "slow", "very", "not", "but", "and", "so", "of", "its")
MOST_GROWTH = 8.0  # MiB in half of the calls
WARM_UP = 60  # calls before anything is counted: libraries import and cache


class Calls:
    """A call of each task in turns."""

    def __init__(self, seed: int) -> None:
        self.rng, self.models = random.Random(seed), models()

    def text(self) -> str:
        """A text of 1 to 30 words."""
        return " ".join(self.rng.choice(WORDS) for _ in range(self.rng.randint(1, 30)))

    def make(self, number: int) -> None:
        """The call of this number."""
        model, words = self.models[("bert", "distilbert", "llama")[number % 3]], {"tokenizer": tokenizer()}
        texts = [self.text() for _ in range(2)]
        kind = number % 10
        if kind < 4:
            method = ("relevance", "effective", "attention", "integrated_gradients")[kind]
            explain(model, texts, method=method, **words)
        elif kind == 4:
            certify(model, texts[0], checked_rows=2, **words)
        elif kind == 5:
            minimal_tokens(model, texts[0], budget=5.0, **words)
        elif kind == 6:
            attention_maps(model, texts, **words)
        elif kind == 7:
            compare(model, texts, methods=["random"], **words)
        elif kind == 8:
            with torch.no_grad(), capture_attention(model):
                model(**tokenizer()(texts[0], return_tensors="pt", return_token_type_ids=False))
        else:
            with suppress(InvalidInputError, AttributeError):
                explain(model, texts, target=lambda outputs: outputs.none, **words)


def run(count: int, seed: int) -> dict[str, Any]:
    """Make the calls and compare."""
    started, calls = time.perf_counter(), Calls(seed)
    with warnings.catch_warnings(), quick_collections():
        warnings.simplefilter("ignore")
        for number in range(WARM_UP):
            calls.make(number)
        states = {name: model_state(model) for name, model in calls.models.items()}
        process, tensors = process_state(), live_tensors()
        memory = [resident_mib()]
        for number in range(count):
            calls.make(number)
            if (number + 1) in (count // 2, count):
                _give_back()
                memory.append(resident_mib())
        more = live_tensors() - tensors
        after = process_state()
    failures = [f"state of the process: {item} changed" for item in changes(process, after)]
    for name, model in calls.models.items():
        failures += [f"model {name}: {item} changed" for item in changes(states[name], model_state(model))]
    growth = memory[2] - memory[1]
    if more > 0:
        failures.append(f"{more} tensors more are alive")
    if growth > MOST_GROWTH:
        failures.append(f"memory grew by {growth:.1f} MiB in the second half")
    return {
        "count": count,
        "seed": seed,
        "tensors": more,
        "memory_mib": [round(value, 1) for value in memory],
        "growth_mib": round(growth, 1),
        "descriptors": after["descriptors"] - process["descriptors"],
        "threads": len(after["threads"]) - len(process["threads"]),
        "seconds": round(time.perf_counter() - started, 1),
        "failures": failures,
    }


def _give_back() -> None:
    """Let the allocator return what is free, so that only what is held is measured."""
    process_state()  # collects
    with suppress(AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def main() -> int:
    """Run and report."""
    options = arguments("Thousands of calls.", 2000).parse_args()
    torch.set_num_threads(1)
    result = run(options.count, options.seed)
    for failure in result["failures"]:
        print(failure, file=sys.stderr)
    sentence = (
        f"{result['count']} calls: {result['growth_mib']:+} MiB of memory between the middle and the end, "
        f"{result['tensors']:+} tensors, {result['descriptors']:+} descriptors, {result['threads']:+} threads; hooks "
        f"and state of the models {'as before' if not result['failures'] else 'NOT as before, or growth'}."
    )
    report("leak", result, sentence, write=options.write)
    return int(bool(result["failures"]))


if __name__ == "__main__":
    sys.exit(main())
