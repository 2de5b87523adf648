"""Transformer attribution by `BERT_explainability` of hila-chefer/Transformer-Explainability.

`Generator(model).generate_LRP(ids, mask, index=class, start_layer=0)`, as in the repository's notebook for BERT.

    pip install transformers==4.30.2 "numpy<2"

The repository names transformers 3.5.1. To run with a later one and without a GPU: `Tensor.cuda` returns the tensor,
`gensim` (imported, not used here) is an empty module, and the model returns tuples (`return_dict=False`).
"""

from __future__ import annotations

from typing import Any

import chefer_bert
import exchange

START_LAYER = 0


def make(name: str) -> dict[str, exchange.TokenExplainer]:
    """The explainers: as published, and of the value that ours explains."""
    chefer_bert.patch()
    from BERT_explainability.modules.BERT.ExplanationGenerator import Generator

    def explainer(model: Any) -> exchange.TokenExplainer:
        def explain(ids: Any, target: int) -> Any:
            batch = chefer_bert.batch(ids)
            return Generator(model).generate_LRP(**batch, index=target, start_layer=START_LAYER)[0].tolist()

        return explain

    return chefer_bert.explainers(name, explainer)


if __name__ == "__main__":
    exchange.serve(make, (), f"Generator.generate_LRP, start_layer={START_LAYER}, index=class", reads_ids=True)
