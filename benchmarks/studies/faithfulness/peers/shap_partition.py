"""shap's partition explainer on a text-classification pipeline: `shap.Explainer(pipeline)(texts)`, its defaults.

Masked tokens are "[MASK]" in the text, 500 evaluations, probabilities. The text masker's segments are the
tokenizer's tokens, including special tokens, so that a value belongs to a token.

    pip install shap
"""

from __future__ import annotations

import exchange
import shap
import transformers


def make(name: str) -> dict[str, exchange.Explainer]:
    """The explainer."""
    model, tokenizer = exchange.load(name)
    pipeline = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)
    explainer = shap.Explainer(pipeline, seed=0)
    explainer(["a short text"], silent=True)  # numba compiles on the first call: no cost of an input

    def explain(text: str, target: int) -> tuple[list[int], list[float]]:
        values = explainer([text], silent=True)
        return tokenizer(text)["input_ids"], values.values[0][:, target].tolist()

    return {"shap partition": explain}


if __name__ == "__main__":
    exchange.serve(make, ("shap", "numba"), "shap.Explainer(pipeline), max_evals 500, [MASK] for what is left out")
