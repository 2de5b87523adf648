"""Rank agreement of attention with per-token information, with bootstrap intervals and split-half reliability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.evaluation.rank_correlation import rank_correlations
from hf_attn_mi.evaluation.statistics import Interval, percentile_interval, resampled_means

MIN_TOKENS = 3  # with two tokens, a rank correlation can only be 1 or -1
FEW_INPUTS = 10
EXPECTED_RHO = 0.9  # rho that is expected of two probes if no reliability is known
CHUNK = 1 << 22  # signs of pairs of tokens in memory at once


@dataclass(frozen=True)
class Agreement:
    """Mean rank agreement with 95 % bootstrap intervals; None if no pair has an order.

    Attributes:
        tau: mean of Kendall's tau-b.
        tau_interval: (low, high); None for fewer than two inputs.
        rho: mean of Spearman's rho.
        rho_interval: (low, high).
        inputs: number of inputs in the mean.
        pairs: number of (input, head) pairs in the mean.
        left_out: number of pairs without an order: fewer than 3 tokens, or all weights or all values of information
            equal.
    """

    tau: float | None
    tau_interval: Interval | None
    rho: float | None
    rho_interval: Interval | None
    inputs: int
    pairs: int
    left_out: int


@dataclass(frozen=True)
class Stratum:
    """Pairs of similar spread of attention: `low` and `high` are the range of H(attention) / ln(tokens) among them."""

    low: float | None
    high: float | None
    agreement: Agreement


@dataclass(frozen=True)
class Reliability:
    """Split-half reliability of the order of information, which is estimated from a sample of inputs.

    By classical test theory, an order that was exactly true would have mean rho `index` with this information. That
    holds only where the probe is well specified, and is no upper limit: both halves miss what the probe cannot read.
    `RankAgreement.probes` compares it with a second probe.

    Attributes:
        halves: agreement of the information by one half of the profile with that by the other.
        full: 2 r / (1 + r) of the halves' rho r (Spearman-Brown): the reliability of the full profile, that is the rho
            to expect between two profiles of this size.
        full_interval: its 95 % interval.
        index: index of reliability, the square root of `full` (0 if that is negative).
        index_interval: its 95 % interval.
    """

    halves: Agreement
    full: float | None
    full_interval: Interval | None
    index: float | None
    index_interval: Interval | None


@dataclass(frozen=True)
class RankAgreement:
    """Rank agreement of attention with per-token information.

    Attributes:
        heads: one `Agreement` a head.
        overall: all pairs of an input and a head.
        strata: the pairs by spread of their attention, the most concentrated first; () for fewer than 2.
        contrast: agreement of the first stratum minus that of the last, from the same resamples; None without strata.
        reliability: None without `halves`.
        other: all pairs, with the information of the second probe in place of the first; None without `other`.
        probes: agreement of the first probe's information with the second's, one pair an input; None without `other`.
        inputs: number of inputs.
        bootstrap: number of resamples of each interval.
        seed: the random seed for the resamples.
        warnings: what limits the result.
    """

    heads: tuple[Agreement, ...]
    overall: Agreement
    strata: tuple[Stratum, ...]
    contrast: Agreement | None
    reliability: Reliability | None
    other: Agreement | None
    probes: Agreement | None
    inputs: int
    bootstrap: int
    seed: int
    warnings: tuple[str, ...]

    def table(self) -> list[list[str]]:
        """Return rows of strings for printing, a header first: name, inputs, tau-b and rho with their intervals."""
        rows = [["", "inputs", "tau-b", "rho"], _row("all heads", self.overall)]
        if len(self.heads) > 1:
            rows += [_row(f"head {number}", head) for number, head in enumerate(self.heads)]
        for stratum in self.strata:
            bounds = "none" if stratum.low is None else f"{stratum.low:.2f} to {stratum.high:.2f}"
            rows.append(_row(f"spread {bounds}", stratum.agreement))
        if self.contrast is not None:
            rows.append(_row("most concentrated minus flattest", self.contrast))
        if self.other is not None and self.probes is not None:
            rows += [_row("all heads, second probe", self.other), _row("first probe with second", self.probes)]
        if self.reliability is not None:
            reliability = self.reliability
            rows.append(_row("split halves", reliability.halves))
            for name, mean, interval in (
                ("reliability (Spearman-Brown)", reliability.full, reliability.full_interval),
                ("index of reliability", reliability.index, reliability.index_interval),
            ):
                rows.append([name, str(reliability.halves.inputs), "", _cell(mean, interval)])
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that `json.dumps(..., allow_nan=False)` accepts."""
        return asdict(self)


def rank_agreement(
    attention: Sequence[Tensor],
    information: Sequence[Tensor],
    *,
    halves: Sequence[Tensor] | None = None,
    other: Sequence[Tensor] | None = None,
    strata: int = 3,
    bootstrap: int = 1000,
    seed: int = 0,
) -> RankAgreement:
    """Return how well the order of attention over the tokens of a text agrees with the order of their information.

    Tau-b and rho are computed within each input and head, over its tokens, and averaged over inputs. Intervals resample
    inputs, not tokens or heads, which depend on each other; see `percentile_interval`. Leave special tokens out of all
    arguments (`x[:, ~special]`) where they should not count.

    Strata show whether the agreement depends on how even attention is (Wen et al., arXiv 2211.07714): all
    (input, head) pairs are sorted by the normalized entropy H(|a| / sum |a|) / ln(tokens) and cut at its quantiles;
    pairs of equal entropy are in the same stratum.

    Args:
        attention: for each input (tokens,) or (heads, tokens): attention received, or any score of tokens.
        information: for each input (tokens,): nats.
        halves: for each input (2, tokens): the information by two disjoint halves of the profile.
        other: for each input (tokens,): the information by a second probe, such as `mi.fit_boosted_probe`. Halves of a
            probe that misses something agree with each other all the same; a second kind of probe may not.
        strata: groups of equal size by spread; 1 for none.
        bootstrap: resamples.
        seed: the random seed for the resamples.

    Returns:
        A `RankAgreement`. What could not be measured is None, never 0 or NaN.

    Raises:
        InvalidInputError: lengths, shapes or numbers of heads that differ, or entries that are not finite.

    Example:
        >>> texts = [torch.rand(9, generator=torch.Generator().manual_seed(i)) for i in range(20)]
        >>> result = rank_agreement([x.square() for x in texts], texts)
        >>> result.overall.tau, result.overall.inputs, result.reliability
        (1.0, 20, None)
    """
    for name, number, fewest in (("strata", strata, 1), ("bootstrap", bootstrap, 100)):
        if type(number) is not int or number < fewest:
            raise InvalidInputError(f"{name} must be a whole number of {fewest} or more, not {shown(number)}.")
    weights, nats, both = _read(attention, information, halves)
    second = None if other is None else _tensors("other", other)
    if second is not None and [x.shape for x in second] != [x.shape for x in nats]:
        raise InvalidInputError("other and information have different numbers of inputs or tokens; they must be equal.")
    measured, spread = _measure(weights, nats)  # (2, inputs, heads) tau and rho, NaN without an order
    _, inputs, heads = measured.shape
    ordered = measured[0].isfinite()
    strata_of, bounds = _strata(spread, ordered, strata)
    columns = torch.stack([*(ordered & (torch.arange(heads) == head) for head in range(heads)), ordered, *strata_of])
    counts = columns.sum(-1).T  # (inputs, columns): each head, all heads, the strata, and last the halves
    sums = torch.einsum("cih,mih->mic", columns.double(), measured.nan_to_num())
    if both is not None:
        between, _ = _measure([x[:1] for x in both], [x[1] for x in both])
        counts = torch.cat([counts, between[0].isfinite().long()], 1)
        sums = torch.cat([sums, between.nan_to_num()], 2)
    if second is not None:
        for scores, targets in ((weights, second), ([x[None] for x in nats], second)):
            extra, _ = _measure(scores, targets)
            counts = torch.cat([counts, extra[0].isfinite().sum(1, keepdim=True)], 1)
            sums = torch.cat([sums, extra.nan_to_num().sum(2, keepdim=True)], 2)
    # (2, bootstrap, columns); the same seed gives tau and rho the same resamples
    draws = torch.stack([resampled_means(part, counts, bootstrap=bootstrap, seed=seed) for part in sums])
    totals = [inputs] * heads + [inputs * heads] + [None] * len(strata_of) + [inputs] * (both is not None)
    totals += [inputs * heads, inputs] * (second is not None)
    results = [_agreement(sums[..., c], counts[:, c], draws[..., c], totals[c]) for c in range(counts.shape[1])]
    parts = tuple(Stratum(*bound, agreement) for bound, agreement in zip(bounds, results[heads + 1 :]))
    first, last = heads + 1, heads + len(parts)
    reliability = None if both is None else _reliability(results[last + 1], draws[1][:, last + 1])
    probes = None if second is None else results[-1]
    return RankAgreement(
        heads=tuple(results[:heads]),
        overall=results[heads],
        strata=parts,
        contrast=_contrast(results[first], results[last], draws[..., first] - draws[..., last]) if parts else None,
        reliability=reliability,
        other=None if second is None else results[-2],
        probes=probes,
        inputs=inputs,
        bootstrap=bootstrap,
        seed=seed,
        warnings=_warnings(results[heads], heads * inputs) + _misled(reliability, probes),
    )


def _read(
    attention: Sequence[Tensor], information: Sequence[Tensor], halves: Sequence[Tensor] | None
) -> tuple[list[Tensor], list[Tensor], list[Tensor] | None]:
    """Return the arguments as float64 tensors on the CPU: (heads, tokens), (tokens,) and (2, tokens) for each input."""
    weights, nats = _tensors("attention", attention), _tensors("information", information)
    weights = [x[None] if x.dim() == 1 else x for x in weights]
    both = None if halves is None else _tensors("halves", halves)
    for name, values in (("attention", weights), ("halves", both)):
        if values is not None and len(values) != len(nats):
            raise InvalidInputError(
                f"{name} has {len(values)} inputs and information has {len(nats)}; the numbers must be equal."
            )
    if not nats:
        raise InvalidInputError("information is empty; pass one tensor for each input.")
    for index, nat in enumerate(nats):
        _check_shape("information", index, nat, (nat.numel(),))
        _check_shape("attention", index, weights[index], (weights[0].shape[0], len(nat)))
        if both is not None:
            _check_shape("halves", index, both[index], (2, len(nat)))
    return weights, nats, both


def _tensors(name: str, values: Sequence[Tensor]) -> list[Tensor]:
    tensors = [torch.as_tensor(x).detach().to("cpu", torch.float64) for x in values]
    for index, tensor in enumerate(tensors):
        if not bool(tensor.isfinite().all()):
            raise InvalidInputError(f"{name}[{index}] has entries that are NaN or infinite; leave such inputs out.")
    return tensors


def _check_shape(name: str, index: int, values: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(values.shape) != shape:
        raise InvalidInputError(
            f"{name}[{index}] has shape {tuple(values.shape)}, not {shape}: information is (tokens,), "
            "attention (tokens,) or (heads, tokens) with as many heads in every input, halves (2, tokens)."
        )


def _measure(weights: list[Tensor], nats: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return tau and rho (2, inputs, heads), NaN without an order, and the spread (inputs, heads).

    Inputs of equal length are computed together.
    """
    heads = weights[0].shape[0]
    measured = torch.full((2, len(nats), heads), math.nan, dtype=torch.float64)
    spread = torch.full((len(nats), heads), math.nan, dtype=torch.float64)
    for tokens in sorted({len(nat) for nat in nats if len(nat) >= MIN_TOKENS}):
        indices = [index for index, nat in enumerate(nats) if len(nat) == tokens]
        block = max(1, CHUNK // (heads * tokens**2))
        for start in range(0, len(indices), block):
            some = indices[start : start + block]
            first = torch.stack([weights[index] for index in some])
            second = torch.stack([nats[index] for index in some])[:, None]
            measured[:, some] = torch.stack(rank_correlations(first, second))
            spread[some] = _spread(first)
    return measured, spread


def _spread(weights: Tensor) -> Tensor:
    """Return the entropy over ln(tokens) along the last dimension: 0 for a single token, 1 for equal weights."""
    shares = weights.abs() / weights.abs().sum(-1, keepdim=True)
    entropy: Tensor = torch.special.entr(shares).sum(-1)
    return entropy / math.log(weights.shape[-1])


def _strata(
    spread: Tensor, ordered: Tensor, strata: int
) -> tuple[list[Tensor], list[tuple[float | None, float | None]]]:
    """Return masks (inputs, heads) of the pairs in each stratum, and the smallest and largest spread in it."""
    values = spread[ordered].sort().values
    if strata < 2 or len(values) == 0:
        return [], []
    edges = values[[max(0, len(values) * number // strata - 1) for number in range(1, strata)]]
    group = torch.bucketize(spread, edges)  # edges[k - 1] < spread <= edges[k]
    masks = [ordered & (group == number) for number in range(strata)]
    inside = [spread[mask] for mask in masks]
    return masks, [(float(x.min()), float(x.max())) if len(x) else (None, None) for x in inside]


def _agreement(sums: Tensor, counts: Tensor, draws: Tensor, total: int | None) -> Agreement:
    """Return the agreement of one column: sums (2, inputs), counts (inputs,), draws (2, bootstrap)."""
    pairs, inputs = int(counts.sum()), int((counts > 0).sum())
    means = [float(part.sum()) / pairs if pairs else None for part in sums]
    intervals = [percentile_interval(part, inputs) for part in draws]
    left_out = 0 if total is None else total - pairs
    return Agreement(means[0], intervals[0], means[1], intervals[1], inputs, pairs, left_out)


def _contrast(first: Agreement, last: Agreement, draws: Tensor) -> Agreement:
    inputs = min(first.inputs, last.inputs)
    intervals = [percentile_interval(part, inputs) for part in draws]
    tau, rho = (None if a is None or b is None else a - b for a, b in ((first.tau, last.tau), (first.rho, last.rho)))
    return Agreement(tau, intervals[0], rho, intervals[1], inputs, first.pairs + last.pairs, 0)


def _reliability(halves: Agreement, draws: Tensor) -> Reliability:
    full = _spearman_brown(draws)
    mean = None if halves.rho is None or halves.rho <= -1 else float(_spearman_brown(torch.tensor(halves.rho)))
    return Reliability(
        halves,
        mean,
        percentile_interval(full, halves.inputs),
        None if mean is None else math.sqrt(max(0.0, mean)),
        percentile_interval(full.clamp_min(0).sqrt(), halves.inputs),
    )


def _spearman_brown(rho: Tensor) -> Tensor:
    return 2 * rho / (1 + rho)


def _warnings(overall: Agreement, pairs: int) -> tuple[str, ...]:
    notes = []
    if overall.left_out:
        notes.append(
            f"{overall.left_out} of {pairs} pairs of an input and a head are left out: they have no order (fewer than "
            f"{MIN_TOKENS} tokens, or all weights or all values of information equal)."
        )
    if overall.inputs < FEW_INPUTS:
        notes.append(f"{overall.inputs} inputs are too few for a bootstrap: the intervals are too short.")
    return tuple(notes)


def _misled(reliability: Reliability | None, probes: Agreement | None) -> tuple[str, ...]:
    """Return a warning where two probes agree less than the reliability of the first suggests."""
    if probes is None or probes.rho is None:
        return ()
    expected = EXPECTED_RHO if reliability is None or reliability.full is None else reliability.full
    high = probes.rho if probes.rho_interval is None else probes.rho_interval[1]
    if high >= expected:
        return ()
    return (
        f"the two probes order tokens alike only with rho {probes.rho:.2f}, less than {expected:.2f}: what one of them "
        "reads, the other misses. The reliability of the first is no limit of the agreement with the true information.",
    )


def _row(name: str, row: Agreement) -> list[str]:
    return [name, str(row.inputs), _cell(row.tau, row.tau_interval), _cell(row.rho, row.rho_interval)]


def _cell(mean: float | None, interval: Interval | None) -> str:
    if mean is None:
        return "none"
    return f"{mean:+.3f}" + ("" if interval is None else f" [{interval[0]:+.3f}, {interval[1]:+.3f}]")
