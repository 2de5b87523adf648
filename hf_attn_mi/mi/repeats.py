"""States that take few values: the information is that of a table of counts."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_attn_mi.mi.entropy import entropy
from hf_attn_mi.mi.estimate import Estimate, Site, from_series
from hf_attn_mi.mi.rng import stream

EXAMPLES_A_CELL = 5  # of the table of distinct states and classes


def repeated_information(site: Site) -> Estimate | None:
    """Return the information of a table of distinct states and classes; None where states do not repeat enough.

    Plug-in entropies, less the bias (R - 1)(K - 1) / 2 n of R states and K classes (Miller 1955). Taken where there
    are five examples for each of the R K cells: then nothing about the states has to be assumed.
    """
    n, classes = site.probabilities.shape
    most = n // (classes * EXAMPLES_A_CELL)
    if len(torch.unique(site.principal.balanced[:, :1])) > most:  # one feature takes more values: no need to look on
        return None
    found, place = torch.unique(_marks(site.principal.balanced), return_inverse=True)
    rows = len(found)
    if rows > most:
        return None
    folds = int(site.fold_of.max()) + 1
    tables = torch.zeros(folds, rows, classes, dtype=torch.float64)
    tables.index_put_((site.fold_of, place), site.probabilities, accumulate=True)
    series = torch.cat([tables.sum(0)[None], tables.sum(0) - tables])  # (1 + folds, R, K)
    size = series.sum((1, 2))
    joint = series / size[:, None, None]
    plug_in = entropy(joint.sum(2)) + entropy(joint.sum(1)) - entropy(joint.flatten(1))
    return from_series(plug_in - (rows - 1) * (classes - 1) / (2 * size), "counts")


def _marks(balanced: Tensor) -> Tensor:
    """Return (n,) one number for each distinct row: sums in a fixed order of entries with random weights."""
    weights = torch.randn(balanced.shape[1], generator=stream(0, "marks"), dtype=torch.float64)
    return (balanced.double() * weights).sum(1)
