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

from torch import Tensor, ones_like

from benchmarks.studies.faithfulness.rankings.decompx import decompx_without_biases
from benchmarks.studies.faithfulness.rankings.registry import RANKINGS
from benchmarks.studies.faithfulness.rankings.transformer_attribution import transformer_attribution
from hf_attn_mi import explain


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


def relevance(model: Any, ids: Tensor, target: int) -> Tensor:
    """The package's default score of a model of texts, (n,)."""
    batch = {"input_ids": ids[None], "attention_mask": ones_like(ids)[None]}
    return explain(model, batch, target=target, layers="none").scores


TRANSFORMER_ATTRIBUTION = (
    "transformer attribution",
    "transformer_attribution",
    "hila-chefer/Transformer-Explainability",
)
GENERIC_ATTENTION = ("generic attention", "generic_attention", "hila-chefer/Transformer-MM-Explainability")
ATTCAT = ("AttCAT", "attcat", "qiangyao1988/AttCAT")
GIM = ("GIM", "gim_explain", "corticph/gim")
ALTI = ("ALTI", "alti", "mt-upc/transformer-contributions")
GLOBENC = ("GlobEnc", "globenc", "mohsenfayyaz/GlobEnc")
ATMAN = ("AtMan", "atman", "Aleph-Alpha/AtMan")
POSITION_LRP = ("position-aware LRP", "pe_aware_lrp", "YardenBakish/PE-AWARE-LRP")
DECOMPX = ("decompx", "mohsenfayyaz/DecompX")
LIBRAGRAD = ("LibraGrad", "libragrad_modules", "NightMachinery/pytorch-image-models-libragrad-v1")
EQUAL_VALUE = "explained value set equal"
OTHER_VALUE = "their value is the logit of the class, ours that logit minus the mean of the others"
ROW_SUMS = "they divide each row of I + A by its sum, which the paper does not"
FUSED = "PyTorch's fused attention, which BERT of transformers calls, keeps the gradient of its softmax"
SIMILAR = "they also suppress tokens whose embeddings have a cosine similarity of .6 or more"
NO_SUM = "their sums give no relevance where they are zero: one entry of the embeddings in two of the inputs"
START = "they start after the embedding layer: position, type and two biases count to the token"

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
    Comparison(*ALTI, "ALTI", difference_is="they add 1e-6 to every entry of a distance"),
    Comparison(*GLOBENC, "GlobEnc"),
    Comparison(*ATMAN, "AtMan", "as for their documents"),
    Comparison(*ATMAN, "AtMan, similar tokens too", difference_is=SIMILAR),
    Comparison(*POSITION_LRP, "published", difference_is=OTHER_VALUE),
    Comparison(*POSITION_LRP, "equal value", EQUAL_VALUE, NO_SUM),
    Comparison(
        "relevance", *DECOMPX, "DecompX W/O Bias, from word embeddings", "without biases, from words", ours=relevance
    ),
    Comparison("relevance", *DECOMPX, "DecompX W/O Bias", "without biases", START, relevance),
    Comparison("relevance", *DECOMPX, "DecompX", difference_is=f"{START}; they share all biases", ours=relevance),
    Comparison("DecompX", *DECOMPX, "DecompX W/O Bias", "without biases", ours=decompx_without_biases),
    Comparison("DecompX", *DECOMPX, "DecompX, bias token", "biases as a further token", ours=decompx_without_biases),
    Comparison(*LIBRAGRAD, "equal value", "their modules in BERT, explained value set equal"),
)
