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
from typing import Any

from torch import Tensor

from benchmarks.studies.faithfulness.rankings.registry import RANKINGS


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


EQUAL_VALUE = "explained value set equal"

COMPARISONS = (
    Comparison(
        "transformer attribution",
        "transformer_attribution",
        "hila-chefer/Transformer-Explainability",
        "published",
        difference_is="gradients of the logit of the class; ours are of that logit minus the mean of the others",
    ),
    Comparison(
        "transformer attribution",
        "transformer_attribution",
        "hila-chefer/Transformer-Explainability",
        "equal value",
        EQUAL_VALUE,
    ),
)
