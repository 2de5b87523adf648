"""Does the order of attention agree with the order of information? With intervals, and what can be expected at most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.mi.bootstrap import percentile_interval, resampled_means
from hf_attn_mi.mi.ranks import rank_correlations

Interval = tuple[float, float]
FEWEST_TOKENS = 3  # two tokens have one order or the other, no degree of agreement
FEW_INPUTS = 10
CHUNK = 1 << 22  # signs of pairs of tokens held at once


@dataclass(frozen=True)
class Agreement:
    """Mean rank agreement with 95 % bootstrap intervals; None where nothing could be measured.

    Attributes:
        tau: mean of Kendall's tau-b.
        tau_interval: (low, high); None for fewer than two inputs.
        rho: mean of Spearman's rho.
        rho_interval: (low, high).
        inputs: inputs that count.
        pairs: (input, head) pairs in the mean.
        left_out: pairs without an order: fewer than 3 tokens, or all weights or all informations equal.
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
    """Pairs whose attention is about equally spread: `low` and `high` bound H(attention) / ln(tokens) among them."""

    low: float | None
    high: float | None
    agreement: Agreement


@dataclass(frozen=True)
class Reliability:
    """How well the order of information is known: it came from a profile that was a sample.

    Attributes:
        halves: agreement of the information by one half of the profile with that by the other.
        stepped_up: 2 r / (1 + r) of the halves' rho (Spearman-Brown): the rho to expect between two profiles of
            the full size, and so what agrees as well as information agrees with itself.
        stepped_up_interval: its 95 % interval.
        ceiling: the square root of `stepped_up`: the rho with this information of an order that is exactly true. By
            classical test theory nothing can agree better on average (0 where stepped_up is below).
        ceiling_interval: its 95 % interval.
    """

    halves: Agreement
    stepped_up: float | None
    stepped_up_interval: Interval | None
    ceiling: float | None
    ceiling_interval: Interval | None


@dataclass(frozen=True)
class RankAgreement:
    """Rank agreement of attention with per-token information.

    Attributes:
        heads: one `Agreement` a head.
        overall: all pairs of an input and a head.
        strata: the pairs by spread of their attention, the most uneven first, the flattest last; () for fewer than 2.
        contrast: agreement of the first stratum less that of the last, from the same resamples; None without strata.
        reliability: None without `halves`.
        inputs: how many there were.
        bootstrap: resamples behind each interval.
        seed: of the resamples.
        warnings: what a reader has to know.
    """

    heads: tuple[Agreement, ...]
    overall: Agreement
    strata: tuple[Stratum, ...]
    contrast: Agreement | None
    reliability: Reliability | None
    inputs: int
    bootstrap: int
    seed: int
    warnings: tuple[str, ...]

    def table(self) -> list[list[str]]:
        """Return rows of strings for printing, a header first: what, inputs, tau-b and rho with their intervals."""
        rows = [["", "inputs", "tau-b", "rho"], _row("all heads", self.overall)]
        if len(self.heads) > 1:
            rows += [_row(f"head {number}", head) for number, head in enumerate(self.heads)]
        for stratum in self.strata:
            bounds = "none" if stratum.low is None else f"{stratum.low:.2f} to {stratum.high:.2f}"
            rows.append(_row(f"spread {bounds}", stratum.agreement))
        if self.contrast is not None:
            rows.append(_row("most uneven less flattest", self.contrast))
        if self.reliability is not None:
            found = self.reliability
            rows.append(_row("split halves", found.halves))
            for name, mean, interval in (
                ("full profile (Spearman-Brown)", found.stepped_up, found.stepped_up_interval),
                ("ceiling", found.ceiling, found.ceiling_interval),
            ):
                rows.append([name, str(found.halves.inputs), "", _cell(mean, interval)])
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that `json.dumps(..., allow_nan=False)` takes."""
        return asdict(self)


def rank_agreement(
    attention: Sequence[Tensor],
    information: Sequence[Tensor],
    *,
    halves: Sequence[Tensor] | None = None,
    strata: int = 3,
    bootstrap: int = 1000,
    seed: int = 0,
) -> RankAgreement:
    """Return how well the order of attention over the tokens of a text agrees with the order of their information.

    Tau-b and rho are taken within each input and head, over its tokens, and averaged over inputs. Intervals resample
    inputs, not tokens or heads, which depend on each other; see `percentile_interval`. What is compared is the caller's
    choice: leave out special tokens (`x[:, ~special]`) where they are not meant, in all three arguments alike.

    Strata answer whether the agreement depends on how even attention is (Wen et al., arXiv 2211.07714): all
    (input, head) pairs are sorted by the normalized entropy H(a) / ln(tokens), a divided by its sum (by magnitude where
    effective attention is negative), and cut at its quantiles; equal entropies stay together.

    Args:
        attention: for each input (tokens,) or (heads, tokens): attention received, or any score of tokens.
        information: for each input (tokens,): nats.
        halves: for each input (2, tokens): the information by two disjoint halves of the profile.
        strata: groups of equal size by spread; 1 for none.
        bootstrap: resamples.
        seed: of the resamples.

    Returns:
        A `RankAgreement`. Nothing measured is None there, never 0 or NaN.

    Raises:
        InvalidInputError: lengths, shapes or numbers of heads that differ, or entries that are not finite.

    Example:
        >>> texts = [torch.rand(9, generator=torch.Generator().manual_seed(i)) for i in range(20)]
        >>> found = rank_agreement([x.square() for x in texts], texts)
        >>> found.overall.tau, found.overall.inputs, found.reliability
        (1.0, 20, None)
    """
    for name, number, fewest in (("strata", strata, 1), ("bootstrap", bootstrap, 100)):
        if type(number) is not int or number < fewest:
            raise InvalidInputError(f"{name} must be a whole number of {fewest} or more, not {number!r}.")
    weights, nats, both = _read(attention, information, halves)
    measured, spread = _measure(weights, nats)  # (2, inputs, heads) tau and rho, NaN without an order
    _, inputs, heads = measured.shape
    ordered = measured[0].isfinite()
    strata_of, bounds = _strata(spread, ordered, strata)
    wanted = torch.stack([*(ordered & (torch.arange(heads) == head) for head in range(heads)), ordered, *strata_of])
    counts = wanted.sum(-1).T  # (inputs, columns): the heads, all of them, the strata, and last the halves
    sums = torch.einsum("cih,mih->mic", wanted.double(), measured.nan_to_num())
    if both is not None:
        between, _ = _measure([x[:1] for x in both], [x[1] for x in both])
        counts = torch.cat([counts, between[0].isfinite().long()], 1)
        sums = torch.cat([sums, between.nan_to_num()], 2)
    # (2, bootstrap, columns); the same seed gives tau and rho the same resamples
    draws = torch.stack([resampled_means(part, counts, bootstrap=bootstrap, seed=seed) for part in sums])
    out_of = [inputs] * heads + [inputs * heads] + [None] * len(strata_of) + [inputs]
    made = [_agreement(sums[..., c], counts[:, c], draws[..., c], out_of[c]) for c in range(counts.shape[1])]
    parts = tuple(Stratum(*bound, found) for bound, found in zip(bounds, made[heads + 1 :]))
    uneven, flattest = heads + 1, heads + len(parts)
    return RankAgreement(
        heads=tuple(made[:heads]),
        overall=made[heads],
        strata=parts,
        contrast=_contrast(made[uneven], made[flattest], draws[..., uneven] - draws[..., flattest]) if parts else None,
        reliability=None if both is None else _reliability(made[-1], draws[1][:, -1]),
        inputs=inputs,
        bootstrap=bootstrap,
        seed=seed,
        warnings=_warnings(made[heads], heads * inputs),
    )


def _read(
    attention: Sequence[Tensor], information: Sequence[Tensor], halves: Sequence[Tensor] | None
) -> tuple[list[Tensor], list[Tensor], list[Tensor] | None]:
    """The arguments as float64 tensors on the CPU: (heads, tokens), (tokens,) and (2, tokens) for each input."""
    weights, nats = _tensors("attention", attention), _tensors("information", information)
    weights = [x[None] if x.dim() == 1 else x for x in weights]
    both = None if halves is None else _tensors("halves", halves)
    for name, found in (("attention", weights), ("halves", both)):
        if found is not None and len(found) != len(nats):
            raise InvalidInputError(
                f"{name} has {len(found)} inputs and information has {len(nats)}; the same are wanted."
            )
    if not nats:
        raise InvalidInputError("information is empty; one tensor for each input is wanted.")
    for index, nat in enumerate(nats):
        _check_shape("information", index, nat, (nat.numel(),))
        _check_shape("attention", index, weights[index], (weights[0].shape[0], len(nat)))
        if both is not None:
            _check_shape("halves", index, both[index], (2, len(nat)))
    return weights, nats, both


def _tensors(name: str, given: Sequence[Tensor]) -> list[Tensor]:
    tensors = [torch.as_tensor(x).detach().to("cpu", torch.float64) for x in given]
    for index, tensor in enumerate(tensors):
        if not bool(tensor.isfinite().all()):
            raise InvalidInputError(f"{name}[{index}] has entries that are NaN or infinite; leave such inputs out.")
    return tensors


def _check_shape(name: str, index: int, found: Tensor, wanted: tuple[int, ...]) -> None:
    if tuple(found.shape) != wanted:
        raise InvalidInputError(
            f"{name}[{index}] has shape {tuple(found.shape)}, and {wanted} is wanted: information is (tokens,), "
            "attention (tokens,) or (heads, tokens) with as many heads in every input, halves (2, tokens)."
        )


def _measure(weights: list[Tensor], nats: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Tau and rho (2, inputs, heads), NaN without an order, and the spread (inputs, heads); equal lengths together."""
    heads = weights[0].shape[0]
    measured = torch.full((2, len(nats), heads), math.nan, dtype=torch.float64)
    spread = torch.full((len(nats), heads), math.nan, dtype=torch.float64)
    for tokens in sorted({len(nat) for nat in nats if len(nat) >= FEWEST_TOKENS}):
        alike = [index for index, nat in enumerate(nats) if len(nat) == tokens]
        block = max(1, CHUNK // (heads * tokens**2))
        for start in range(0, len(alike), block):
            some = alike[start : start + block]
            first = torch.stack([weights[index] for index in some])
            second = torch.stack([nats[index] for index in some])[:, None]
            measured[:, some] = torch.stack(rank_correlations(first, second))
            spread[some] = _spread(first)
    return measured, spread


def _spread(weights: Tensor) -> Tensor:
    """Entropy over ln(tokens) along the last dimension: 0 for one token only, 1 for all alike."""
    shares = weights.abs() / weights.abs().sum(-1, keepdim=True)
    entropy: Tensor = torch.special.entr(shares).sum(-1)
    return entropy / math.log(weights.shape[-1])


def _strata(
    spread: Tensor, ordered: Tensor, strata: int
) -> tuple[list[Tensor], list[tuple[float | None, float | None]]]:
    """Masks (inputs, heads) of the pairs in each stratum, and the smallest and largest spread in it."""
    found = spread[ordered].sort().values
    if strata < 2 or len(found) == 0:
        return [], []
    edges = found[[max(0, len(found) * number // strata - 1) for number in range(1, strata)]]
    group = torch.bucketize(spread, edges)  # edges[k - 1] < spread <= edges[k]
    masks = [ordered & (group == number) for number in range(strata)]
    inside = [spread[mask] for mask in masks]
    return masks, [(float(x.min()), float(x.max())) if len(x) else (None, None) for x in inside]


def _agreement(sums: Tensor, counts: Tensor, draws: Tensor, out_of: int | None) -> Agreement:
    """One column: sums (2, inputs), counts (inputs,), draws (2, bootstrap)."""
    pairs, inputs = int(counts.sum()), int((counts > 0).sum())
    means = [float(part.sum()) / pairs if pairs else None for part in sums]
    intervals = [percentile_interval(part, inputs) for part in draws]
    left_out = 0 if out_of is None else out_of - pairs
    return Agreement(means[0], intervals[0], means[1], intervals[1], inputs, pairs, left_out)


def _contrast(uneven: Agreement, flattest: Agreement, draws: Tensor) -> Agreement:
    inputs = min(uneven.inputs, flattest.inputs)
    intervals = [percentile_interval(part, inputs) for part in draws]
    less = [
        None if one is None or other is None else one - other
        for one, other in ((uneven.tau, flattest.tau), (uneven.rho, flattest.rho))
    ]
    return Agreement(less[0], intervals[0], less[1], intervals[1], inputs, uneven.pairs + flattest.pairs, 0)


def _reliability(halves: Agreement, draws: Tensor) -> Reliability:
    stepped, roots = _step_up(draws), _step_up(draws).clamp_min(0).sqrt()
    mean = None if halves.rho is None or halves.rho <= -1 else float(_step_up(torch.tensor(halves.rho)))
    return Reliability(
        halves,
        mean,
        percentile_interval(stepped, halves.inputs),
        None if mean is None else math.sqrt(max(0.0, mean)),
        percentile_interval(roots, halves.inputs),
    )


def _step_up(rho: Tensor) -> Tensor:
    return 2 * rho / (1 + rho)


def _warnings(overall: Agreement, pairs: int) -> tuple[str, ...]:
    found = []
    if overall.left_out:
        found.append(
            f"{overall.left_out} of {pairs} pairs of an input and a head are left out: they have no order (fewer than "
            f"{FEWEST_TOKENS} tokens, or all weights or all informations equal)."
        )
    if overall.inputs < FEW_INPUTS:
        found.append(f"{overall.inputs} inputs are too few for bootstrap intervals: they are too short.")
    return tuple(found)


def _row(name: str, found: Agreement) -> list[str]:
    return [name, str(found.inputs), _cell(found.tau, found.tau_interval), _cell(found.rho, found.rho_interval)]


def _cell(mean: float | None, interval: Interval | None) -> str:
    if mean is None:
        return "none"
    return f"{mean:+.3f}" + ("" if interval is None else f" [{interval[0]:+.3f}, {interval[1]:+.3f}]")
