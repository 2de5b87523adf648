"""The explainers that ferret's Benchmark runs by default: LIME, gradient, gradient x input and integrated gradients.

Each explainer is run alone, with its defaults, for the class that is asked for. Scores are for the tokenizer's tokens.
Its SHAP is shap's partition explainer with the same settings and gives the same scores: see shap_partition.py.
ferret-xai 0.4 wants transformers 4 and numpy 1; pip then picks a pyarrow that needs numpy 2, hence the last part:

    pip install ferret-xai "pyarrow<20"
"""

from __future__ import annotations

import exchange
import numpy
from ferret import Benchmark

NAMES = {
    "LIME": "ferret LIME",
    "Gradient": "ferret gradient",
    "Gradient (x Input)": "ferret gradient x input",
    "Integrated Gradient": "ferret IG (gradients alone)",
    "Integrated Gradient (x Input)": "ferret IG",
}


def make(name: str) -> dict[str, exchange.Explainer]:
    """The explainers by the name they have in the tables."""
    model, tokenizer = exchange.load(name)
    benchmark = Benchmark(model, tokenizer)

    def explainer(own: object) -> exchange.Explainer:
        def explain(text: str, target: int) -> tuple[list[int], list[float]]:
            found = own(text, target)  # type: ignore[operator]
            return tokenizer.convert_tokens_to_ids(list(found.tokens)), found.scores.tolist()

        return explain

    numpy.random.seed(0)  # LIME draws from the global generator
    return {NAMES[own.NAME]: explainer(own) for own in benchmark.explainers if own.NAME in NAMES}


if __name__ == "__main__":
    exchange.serve(
        make,
        ("ferret-xai", "captum", "shap", "lime"),
        "Benchmark(model, tokenizer).explainers: LIME min(tokens^2, 5000) samples, IG 50 steps",
    )
