"""GlobEnc by its authors' code: `src/modeling/modeling_bert.py` and `src/attention_rollout.py`, as in their demo.

Repository: mohsenfayyaz/GlobEnc, a26b38b. It names transformers 4.18; runs unchanged with

    pip install torch transformers==4.30.2 numpy tqdm

As in the demo, scores are the row of [CLS] of `AttentionRollout().compute_flows` of the matrices N-Enc.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import exchange
import torch
from src.attention_rollout import AttentionRollout
from src.modeling.modeling_bert import BertForSequenceClassification

N_ENC = 4  # place of N-Enc among the norms of a layer


def make(name: str) -> dict[str, exchange.TokenExplainer]:
    """The explainers."""
    model = BertForSequenceClassification.from_pretrained(name, torch_dtype=torch.float32).eval()

    @torch.no_grad()
    def run(ids: Sequence[int]) -> tuple[Any, Any]:
        batch = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        logits, _, norms = model(**batch, output_attentions=True, output_norms=True, return_dict=False)
        return logits, torch.stack([norm[N_ENC][0] for norm in norms]).numpy()

    def logits(ids: Sequence[int], target: int) -> list[float]:
        return run(ids)[0][0].tolist()

    def globenc(ids: Sequence[int], target: int) -> list[float]:
        flows = AttentionRollout().compute_flows([run(ids)[1]], output_hidden_states=True, disable_tqdm=True)
        return flows[0][-1][0].tolist()

    return {"logits": logits, "GlobEnc": globenc}


if __name__ == "__main__":
    exchange.serve(make, (), "N-Enc of every layer, AttentionRollout, row of [CLS]", reads_ids=True)
