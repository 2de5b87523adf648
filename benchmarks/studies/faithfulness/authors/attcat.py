"""AttCAT by `BERT_explainability` of qiangyao1988/AttCAT: `Generator(model).generate_TransCAM(ids, mask, index=class)`.

Environment and patches are those of transformer_attribution.py. The repository's BERT is that of
hila-chefer/Transformer-Explainability.
"""

from __future__ import annotations

from typing import Any

import chefer_bert
import exchange


def make(name: str) -> dict[str, exchange.TokenExplainer]:
    """The explainers: as published, and of the value that ours explains."""
    chefer_bert.patch()
    from BERT_explainability.modules.BERT.ExplanationGenerator import Generator

    def explainer(model: Any) -> exchange.TokenExplainer:
        def explain(ids: Any, target: int) -> Any:
            return Generator(model).generate_TransCAM(**chefer_bert.batch(ids), index=target).tolist()

        return explain

    return chefer_bert.explainers(name, explainer)


if __name__ == "__main__":
    exchange.serve(make, (), "Generator.generate_TransCAM, index=class", reads_ids=True)
