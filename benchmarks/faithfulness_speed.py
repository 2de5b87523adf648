"""Part "speed" of faithfulness.py: relevance against Captum's usual methods, in turns, one thread, one text at a time.

Run it on a quiet machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from against_captum import fastest_captum, integrated_gradients
from bench import Bench, check_explanations
from materials import MODEL, cut_texts, load, load_tokenizer, read_texts
from measuring import in_turns, line, once, row
from torch import Tensor

from hf_attn_mi import explain

LENGTHS = (128, 180)
RIVALS = ("lime", "kernel_shap", "feature_ablation")
OWN = ("attnlrp", "attnlrp_iterative")
TARGETS = {"integrated_gradients": 30.0, "lime": 100.0, "kernel_shap": 100.0, "feature_ablation": 100.0}


def speed(turns: int, lengths: tuple[int, ...] = LENGTHS) -> Iterator[dict[str, Any]]:
    """How many times as long as relevance they take; every turn explains another review."""
    bench = Bench(load(MODEL), load_tokenizer(MODEL), read_texts(None, 200), SimpleNamespace(quick=False, turns=turns))
    for tokens in lengths:
        texts = cut_texts(bench.texts, bench.tokenizer, turns, tokens)
        choice, _ = fastest_captum(bench, texts[0])
        found: dict[str, list[float]] = {name: [] for name in ("relevance", "explain", *OWN, *TARGETS)}
        for turn, ids in enumerate(texts):
            chosen = bench.forward(ids).logits.argmax(1)
            check_explanations(bench, ids, chosen)
            for name in list(found)[:: -1 if turn % 2 else 1]:
                found[name].append(_seconds(bench, name, ids, chosen, choice))
        for name in OWN:
            what = f"times as long as relevance: {name}, through explain, texts of {tokens} tokens"
            result = row(f"{name} over relevance/{tokens} tokens", what, found[name], found["explain"], tokens=tokens)
            print(line(result), flush=True)
            yield result
        for name, target in TARGETS.items():
            for ours in ("relevance", "explain"):
                what = f"times faster than {name}: {ours}, texts of {tokens} tokens"
                goal = target if ours == "relevance" and (name != "integrated_gradients" or tokens == 180) else None
                result = row(
                    f"{ours} against {name}/{tokens} tokens",
                    what,
                    found[ours],
                    found[name],
                    faster=True,
                    at_least=goal,
                    tokens=tokens,
                )
                print(line(result), flush=True)
                yield result


def _seconds(bench: Bench, name: str, ids: Tensor, chosen: Tensor, choice: dict[str, Any]) -> float:
    """Of one text. Captum's integrated gradients with the fastest internal batch, called without our wrapper."""
    if name == "relevance":
        return in_turns({"": lambda: bench.relevance(ids, chosen)}, 1)[""][0]
    if name == "explain":
        return in_turns({"": lambda: bench.explain(ids)}, 1)[""][0]
    if name == "integrated_gradients":
        return once(lambda: integrated_gradients(bench, ids, chosen, **choice))
    return once(lambda: explain(bench.model, {"input_ids": ids}, tokenizer=bench.tokenizer, method=name))
