"""What is compared with the code of authors: one entry a comparison.

A new one takes an adapter in this folder and an entry here. The adapter is a script that imports `exchange` (of
../peers) and the modules of the authors' repository, both of which the check puts on the path, and ends in
`exchange.serve(make, packages, settings, reads_ids=True)`. `make` takes the model's folder and returns functions of
token ids and class by name: at least `logits`, which shows that the authors' code runs the same model, and one for
each entry that names the adapter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from benchmarks.studies.faithfulness.rankings.registry import RANKINGS
from benchmarks.studies.faithfulness.rankings.transformer_attribution import transformer_attribution


@dataclass(frozen=True)
class Comparison:
    """One method of the authors' code beside ours.

    Attributes:
        method: the method, by its name in tables.
        script: the adapter.
        repository: owner/name on GitHub.
        explainer: the name that the adapter gives to the authors' scores.
        setting: "published" for the authors' code as it is called in their repository, else what was set equal.
        difference_is: why the scores differ; "" where they are to be the same up to rounding.
        ours: (model, token ids, class) -> scores; by default the method of this name in ../rankings.
    """

    method: str
    script: str
    repository: str
    explainer: str
    setting: str = "published"
    difference_is: str = ""
    ours: Callable[[Any, Tensor, int], Tensor] | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Identifies the row of the results."""
        return self.method, self.setting

    def score(self, model: Any, ids: Tensor, target: int) -> Tensor:
        """Our scores, (n,)."""
        return (self.ours or RANKINGS[self.method])(model, ids, target)


TRANSFORMER_ATTRIBUTION = (
    "transformer attribution",
    "transformer_attribution",
    "hila-chefer/Transformer-Explainability",
)
GENERIC_ATTENTION = ("generic attention", "generic_attention", "hila-chefer/Transformer-MM-Explainability")
ATTCAT = ("AttCAT", "attcat", "qiangyao1988/AttCAT")
GIM = ("GIM", "gim_explain", "corticph/gim")
EQUAL_VALUE = "explained value set equal"
OTHER_VALUE = "their value is the logit of the class, ours that logit minus the mean of the others"
ROW_SUMS = "they divide each row of I + A by its sum, which the paper does not"
FUSED = "PyTorch's fused attention, which BERT of transformers calls, keeps the gradient of its softmax"

COMPARISONS = (
    Comparison(*TRANSFORMER_ATTRIBUTION, "published", difference_is=f"{OTHER_VALUE}; {ROW_SUMS}"),
    Comparison(*TRANSFORMER_ATTRIBUTION, "equal value", EQUAL_VALUE, ROW_SUMS),
    Comparison(
        *TRANSFORMER_ATTRIBUTION,
        "equal value",
        "explained value and division by row sums set equal",
        ours=partial(transformer_attribution, normalize_rows=True),
    ),
    Comparison(*GENERIC_ATTENTION, "published", difference_is=OTHER_VALUE),
    Comparison(*GENERIC_ATTENTION, "equal value", EQUAL_VALUE),
    Comparison(*ATTCAT, "published", difference_is=OTHER_VALUE),
    Comparison(*ATTCAT, "equal value", EQUAL_VALUE),
    Comparison(
        *GIM,
        "published",
        difference_is=f"{OTHER_VALUE}; they multiply gradients by the embedding minus that of [PAD]; {FUSED}",
    ),
    Comparison(*GIM, "fused, equal value", "explained value and embedding set equal", FUSED),
    Comparison(*GIM, "equal value", "explained value and embedding set equal, softmax outside of the fused attention"),
)
