"""The table of methods: how each makes token scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.attention import rollout
from hf_attn_mi.methods.captum import BASELINES, Baseline
from hf_attn_mi.methods.layer_statistics import LayerCollector
from hf_attn_mi.methods.relevance import Rows


@dataclass(frozen=True)
class Method:
    """A row of the table of methods."""

    gradients: bool
    reference: str
    score: Callable[[LayerCollector, int], Tensor] | None  # None: relevance, or a baseline
    baseline: Baseline | None = None
    rows: Rows = "constant"  # how relevance takes attention rows
    staged: bool = False  # scored again without the top tokens; see `hf_attn_mi.methods.relevance.staged_scores`


def _mean(values: list[Tensor]) -> Tensor:
    return torch.stack([value.mean(0) for value in values]).mean(0)


METHODS: dict[str, Method] = {
    "relevance": Method(True, "Ali et al., arXiv 2202.07304; our operationalization", None),
    "attnlrp": Method(
        True,
        "Achtibat et al., arXiv 2402.05602; our operationalization: relevance through queries and keys too",
        None,
        rows="linear",
    ),
    "attnlrp_iterative": Method(
        True,
        "attnlrp in stages, each without the top tokens of those before; our operationalization",
        None,
        rows="linear",
        staged=True,
    ),
    "attention": Method(
        False,
        "attention received, mean over layers, heads and queries",
        lambda seen, i: _mean([layer.received for layer in seen.layers[i]]),
    ),
    "rollout": Method(
        False,
        "Abnar and Zuidema, arXiv 2005.00928; mean over queries",
        lambda seen, i: rollout(seen.means[i])[seen.masks[i, : seen.lengths[i]].cpu()].mean(0),
    ),
    "effective": Method(
        False,
        "Brunner et al., arXiv 1908.04211, received, mean over layers, heads and queries",
        lambda seen, i: _mean([x for layer in seen.layers[i] if (x := layer.received_effective) is not None]),
    ),
    "head": Method(
        False,
        "attention of the classification head, mean over its heads and queries",
        lambda seen, i: torch.empty(0) if seen.head is None else seen.head.layers[i][0].received.mean(0),
    ),
    "efficient": Method(
        False,
        "our operationalization of efficient attention (arXiv 2410.18541), received",
        lambda seen, i: _mean(seen.efficient_received[i]),
    ),
}
METHODS |= {name: Method(row.gradients, row.reference, None, row) for name, row in BASELINES.items()}
