"""Information of discrete states: of single coordinates (naive Bayes), and of states that take few values."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_attn_mi.mi.calibration import calibrated_information
from hf_attn_mi.mi.estimator import SiteData, SiteEstimate
from hf_attn_mi.mi.folds import all_and_left_out
from hf_attn_mi.mi.inputs import entropy
from hf_attn_mi.mi.rng import draw_normal, make_rng

MAX_VALUES = 32  # largest number of distinct values of a coordinate
FIRST_ROWS = 100  # rows that are tested first: most states already have too many distinct values in these
MAX_CELLS = 2**24  # entries of all tables together: 128 MB
CHANCE = 0.05  # probability that any coordinate is selected where none depends on the output
EXAMPLES_A_CELL = 5  # examples needed for each cell of the table of distinct states and classes


def discrete_information(site: SiteData) -> SiteEstimate | None:
    """Return the calibrated, cross-fitted information of coordinates taken one by one (naive Bayes).

    Scores are sums of log p(value | class) / p(value) over the coordinates whose table of values and classes is
    significant: by a likelihood ratio test at level 0.05, corrected for the number of coordinates. Tables and the
    selection of coordinates are computed without the fold that is scored, and so are temperature and offsets. The
    result is therefore a lower bound without assumptions on dependence; it misses what only several coordinates
    together reveal. `missing` is the first-order loss from estimated tables, degrees of freedom / 2 n (Miller 1955).

    Args:
        site: the site; its balanced states are used.

    Returns:
        None if any coordinate takes more than 32 values, or if no coordinate is significant.
    """
    coded = _codes(site.whitened.balanced)
    folds, classes = int(site.fold_of.max()) + 1, site.outputs.shape[1]
    if coded is None or folds * coded.shape[1] * (int(coded.max()) + 1) * classes > MAX_CELLS:
        return None
    codes = coded[:, coded.amax(0) > 0]  # not empty: `principal_components` returns None for constant states
    tables = _tables(codes, site.outputs, site.fold_of)
    scores = torch.zeros(len(codes), classes, dtype=torch.float64)
    selected, lost = 0, 0.0
    for fold, left_out in enumerate(tables):
        evidence, kept, loss = _evidence(tables.sum(0) - left_out)
        selected, lost = selected + len(kept), lost + loss / folds
        inside = (site.fold_of == fold).nonzero()[:, 0]
        scores[inside] = evidence[torch.arange(len(kept)), codes[inside][:, kept]].sum(1)
    if selected == 0:
        return None
    pointwise = calibrated_information(scores, site.outputs, site.fold_of)
    return SiteEstimate.from_pointwise(pointwise, site.fold_of, "discrete", missing=lost)


def _codes(states: Tensor) -> Tensor | None:
    """Return (n, d) the index of each entry among the values of its coordinate; None if one takes more than 32."""
    if len(torch.unique(states[:FIRST_ROWS, 0])) > MAX_VALUES:  # as hidden states usually do
        return None
    for rows in (states[:FIRST_ROWS], states):
        values, order = rows.T.contiguous().sort(1)  # (d, rows)
        is_new = torch.zeros_like(order)
        is_new[:, 1:] = values[:, 1:] != values[:, :-1]
        index = is_new.cumsum(1)
        if int(index[:, -1].max()) >= MAX_VALUES:
            return None
    return torch.empty_like(index).scatter_(1, order, index).T.contiguous()


def _tables(codes: Tensor, probabilities: Tensor, fold_of: Tensor) -> Tensor:
    """Return (folds, d, values, K) sums of probabilities for each value of each coordinate."""
    d, values, folds = codes.shape[1], int(codes.max()) + 1, int(fold_of.max()) + 1
    cells = codes + torch.arange(d) * values
    tables = torch.zeros(folds, d * values, probabilities.shape[1], dtype=torch.float64)
    for fold, table in enumerate(tables):
        inside = fold_of == fold
        table.index_add_(0, cells[inside].flatten(), probabilities[inside].repeat_interleave(d, 0))
    return tables.view(folds, d, values, -1)


def _evidence(table: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return the evidence of the significant coordinates, their indices (kept,), and the loss from estimated tables.

    The evidence (kept, values, K) is log p(value | class) / p(value). Counts of a class are smoothed toward the value's
    share in all classes by one pseudo-count for each value. Likelihood ratios are compared with chi-square quantiles by
    Wilson and Hilferty's cube root.

    Args:
        table: (d, values, K) sums of probabilities.
    """
    by_value, by_class, size = table.sum(2), table.sum(1), table.sum((1, 2))
    parts = [torch.special.xlogy(x, x).flatten(1).sum(1) for x in (table, by_value, by_class, size[:, None])]
    ratio = 2 * (parts[0] - parts[1] - parts[2] + parts[3])
    free = (((by_value > 0).sum(1) - 1) * ((by_class > 0).sum(1) - 1)).clamp_min(1).double()
    spread = 2 / (9 * free)
    normal = ((ratio / free).clamp_min(0) ** (1 / 3) - (1 - spread)) / spread.sqrt()
    threshold = torch.special.ndtri(torch.tensor(1 - CHANCE / len(table), dtype=torch.float64))
    kept = (normal > threshold).nonzero()[:, 0]
    values = table.shape[1]
    share = by_value[kept] / size[kept, None]  # (kept, values)
    conditional = (table[kept] + values * share[..., None]) / (by_class[kept][:, None] + values)
    evidence = torch.where(share[..., None] > 0, conditional / share[..., None].clamp_min(1e-300), 1.0).log()
    return evidence, kept, float((free / (2 * size))[kept].sum())


def repeated_information(site: SiteData) -> SiteEstimate | None:
    """Return the information of the contingency table of distinct states and classes.

    Plug-in entropies, less the bias (R - 1)(K - 1) / 2 n of R states and K classes (Miller 1955). It is used where
    there are five examples for each of the R K cells; then no assumption about the states is needed.

    Returns:
        None if there are more distinct states.
    """
    n, classes = site.outputs.shape
    max_states = n // (classes * EXAMPLES_A_CELL)
    if len(torch.unique(site.whitened.balanced[:, :1])) > max_states:  # the first feature alone takes more values
        return None
    distinct, state_of = torch.unique(_row_codes(site.whitened.balanced), return_inverse=True)
    rows = len(distinct)
    if rows > max_states:
        return None
    folds = int(site.fold_of.max()) + 1
    tables = torch.zeros(folds, rows, classes, dtype=torch.float64)
    tables.index_put_((site.fold_of, state_of), site.outputs, accumulate=True)
    series = all_and_left_out(tables)  # (1 + folds, R, K)
    size = series.sum((1, 2))
    joint = series / size[:, None, None]
    plug_in = entropy(joint.sum(2)) + entropy(joint.sum(1)) - entropy(joint.flatten(1))
    return SiteEstimate.from_series(plug_in - (rows - 1) * (classes - 1) / (2 * size), "counts")


def _row_codes(balanced: Tensor) -> Tensor:
    """Return (n,) a number that is equal for equal rows: a sum with random weights, in a fixed order."""
    weights = draw_normal(balanced.shape[1:], make_rng(0, "marks"), balanced)
    return (balanced.double() * weights).sum(1)
