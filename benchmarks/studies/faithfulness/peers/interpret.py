"""transformers-interpret: `SequenceClassificationExplainer(model, tokenizer)(text, index=class)`, its defaults.

It computes layer integrated gradients of the class probability with 50 steps. It puts spaces around punctuation before
it tokenizes; where that changes the tokens, the input has no scores.

    pip install transformers-interpret
"""

from __future__ import annotations

import exchange
from transformers_interpret import SequenceClassificationExplainer


def make(name: str) -> dict[str, exchange.Explainer]:
    """The explainer."""
    model, tokenizer = exchange.load(name)
    explainer = SequenceClassificationExplainer(model, tokenizer)

    def explain(text: str, target: int) -> tuple[list[int], list[float]]:
        found = explainer(text, index=target)
        return explainer.input_ids[0].tolist(), [score for _, score in found]

    return {"transformers-interpret": explain}


if __name__ == "__main__":
    exchange.serve(make, ("transformers-interpret", "captum"), "SequenceClassificationExplainer, 50 steps, one batch")
