"""ALTI by its authors' code: `src/contributions.py` and `src/utils_contributions.py`, called as in `attributions.py`.

Repository: mt-upc/transformer-contributions, 4f89039. It names Python 3.7 and transformers 4.17; runs unchanged with

    pip install torch transformers==4.30.2 captum datasets==2.19.2 pandas matplotlib pyaml-env python-dotenv ipywidgets

Its configuration is read by a path relative to the checkout, so that the adapter changes into it. Their distances have
the 1e-6 that `torch.nn.functional.pairwise_distance` adds to every difference.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import exchange
import torch
import transformers

checkout = next(folder for folder in map(Path, sys.path) if (folder / "src" / "config.yaml").exists())
os.chdir(checkout)

from src.contributions import ModelWrapper  # noqa: E402
from src.utils_contributions import compute_joint_attention, normalize_contributions  # noqa: E402


def make(name: str) -> dict[str, exchange.TokenExplainer]:
    """The explainer."""
    kind = transformers.AutoModelForSequenceClassification
    wrapped = ModelWrapper(kind.from_pretrained(name, torch_dtype=torch.float32).eval())

    def run(ids: Sequence[int]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        batch = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        scores, _, _, contributions = wrapped(batch)
        return scores[0], contributions

    def logits(ids: Sequence[int], target: int) -> list[float]:
        return run(ids)[0].tolist()

    def alti(ids: Sequence[int], target: int) -> list[float]:
        data = run(ids)[1]
        norm = torch.norm(torch.squeeze(data["resultants"]), p=1, dim=-1)
        shares = normalize_contributions(data["contributions"], scaling="min_sum", resultant_norm=norm)
        return compute_joint_attention(shares)[-1][0].tolist()

    return {"logits": logits, "ALTI": alti}


if __name__ == "__main__":
    packages = ("captum", "datasets")
    exchange.serve(
        make, packages, "L1 distance, scaling 'min_sum' with the resultant's norm, row of [CLS]", reads_ids=True
    )
