"""What single discrete coordinates say: states of counts or symbols, a few of which have to do with the output."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_attn_mi.mi.calibration import out_of_fold
from hf_attn_mi.mi.estimate import Estimate, Site, from_series
from hf_attn_mi.mi.linear import mean_series

MOST_VALUES = 32  # distinct ones, of every coordinate
FIRST_ROWS = 100  # that show whether a coordinate takes more
MOST_CELLS = 2**24  # of all tables: 128 MB
CHANCE = 0.05  # that any coordinate is chosen where none has to do with the output


def discrete_information(site: Site) -> Estimate | None:
    """Return the calibrated, cross-fitted information of coordinates taken one by one (naive Bayes); None where not.

    Scores are sums of log p(value | class) / p(value) over those coordinates whose table of values and classes stands
    out: its likelihood ratio is one that any of d coordinates reaches by chance with probability 0.05. Tables, and
    with them the choice of coordinates, are made without the fold that is scored; temperature and offsets likewise.
    So it is a lower bound whatever depends on what: it can miss what only two coordinates together say, and invent
    nothing. `missing` is what estimated tables lose to first order, degrees of freedom / 2 n (Miller 1955).

    Args:
        site: of which the balanced states are used; None comes back if any coordinate takes more than 32 values, or
            if no coordinate stands out.
    """
    coded = _codes(site.principal.balanced)
    folds, classes = int(site.fold_of.max()) + 1, site.probabilities.shape[1]
    if coded is None or folds * coded.shape[1] * (int(coded.max()) + 1) * classes > MOST_CELLS:
        return None
    codes = coded[:, coded.amax(0) > 0]  # states are not constant: `principal_components` would have said so
    tables = _tables(codes, site.probabilities, site.fold_of)
    scores = torch.zeros(len(codes), classes, dtype=torch.float64)
    chosen, lost = 0, 0.0
    for fold, left_out in enumerate(tables):
        evidence, kept, loss = _evidence(tables.sum(0) - left_out)
        chosen, lost = chosen + len(kept), lost + loss / folds
        inside = (site.fold_of == fold).nonzero()[:, 0]
        scores[inside] = evidence[torch.arange(len(kept)), codes[inside][:, kept]].sum(1)
    if chosen == 0:
        return None
    share = site.probabilities.mean(0)
    posterior = out_of_fold(scores, site.probabilities, site.fold_of)
    pointwise = (site.probabilities * (posterior - share.log())).sum(1)
    return from_series(mean_series(pointwise, site.fold_of), "discrete", missing=lost)


def _codes(states: Tensor) -> Tensor | None:
    """Return (n, d) the place of each entry among the values of its coordinate; None if one takes more than 32."""
    if len(torch.unique(states[:FIRST_ROWS, 0])) > MOST_VALUES:  # the rule for hidden states: no need to look on
        return None
    for rows in (states[:FIRST_ROWS], states):
        values, order = rows.T.contiguous().sort(1)  # (d, rows)
        fresh = torch.zeros_like(order)
        fresh[:, 1:] = values[:, 1:] != values[:, :-1]
        place = fresh.cumsum(1)
        if int(place[:, -1].max()) >= MOST_VALUES:
            return None
    return torch.empty_like(place).scatter_(1, order, place).T.contiguous()


def _tables(codes: Tensor, probabilities: Tensor, fold_of: Tensor) -> Tensor:
    """Return (folds, d, values, K) sums of probabilities for each value of each coordinate."""
    d, values, folds = codes.shape[1], int(codes.max()) + 1, int(fold_of.max()) + 1
    cells = codes + torch.arange(d) * values
    found = torch.zeros(folds, d * values, probabilities.shape[1], dtype=torch.float64)
    for fold, table in enumerate(found):
        inside = fold_of == fold
        table.index_add_(0, cells[inside].flatten(), probabilities[inside].repeat_interleave(d, 0))
    return found.view(folds, d, values, -1)


def _evidence(table: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return (kept, values, K) log p(value | class) / p(value) of the coordinates that stand out, which, and the loss.

    Counts of a class are moved toward the value's share in all classes, as if one example for each value had been
    seen there. Likelihood ratios are held against chi-square by Wilson and Hilferty's cube root.

    Args:
        table: (d, values, K) sums of probabilities.
    """
    by_value, by_class, size = table.sum(2), table.sum(1), table.sum((1, 2))
    parts = [torch.special.xlogy(x, x).flatten(1).sum(1) for x in (table, by_value, by_class, size[:, None])]
    ratio = 2 * (parts[0] - parts[1] - parts[2] + parts[3])
    free = (((by_value > 0).sum(1) - 1) * ((by_class > 0).sum(1) - 1)).clamp_min(1).double()
    spread = 2 / (9 * free)
    normal = ((ratio / free).clamp_min(0) ** (1 / 3) - (1 - spread)) / spread.sqrt()
    chance = torch.special.ndtri(torch.tensor(1 - CHANCE / len(table), dtype=torch.float64))
    kept = (normal > chance).nonzero()[:, 0]
    values = table.shape[1]
    share = by_value[kept] / size[kept, None]  # (kept, values)
    given = (table[kept] + values * share[..., None]) / (by_class[kept][:, None] + values)
    evidence = torch.where(share[..., None] > 0, given / share[..., None].clamp_min(1e-300), 1.0).log()
    return evidence, kept, float((free / (2 * size))[kept].sum())
