"""Rows that replace a model's attention while it runs, and what is recorded of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hf_attn_mi.attention import effective_attention, efficient_attention, necessity_distance, unit_noise
from hf_attn_mi.capture import AttentionCall
from hf_attn_mi.results.certificate import LayerCertificate

CONTROLS = ("null-space noise", "visible noise", "uniform", "permuted")
_MISSED = 5e-7  # residual above which a row is solved again with every digit of the values
_SUM = 5e-7  # where the model's rows sum to less or more than one by more than this, the new rows get the same sums


@dataclass(frozen=True, eq=False)
class ReplacedRows:
    """The rows of one attention call, batch and heads in one dimension, in float32 or wider.

    Attributes:
        rows: (heads, queries, keys), zero at keys that are not allowed.
        values: (heads, keys, head_dim).
        allowed: (heads, queries or 1, keys) bool; 1: all queries see the same keys.
        shape: (batch, heads, queries, keys) of the call.
    """

    rows: Tensor
    values: Tensor
    allowed: Tensor
    shape: tuple[int, ...]

    @property
    def mask(self) -> Tensor:
        """Allowed keys as `efficient_attention` reads them."""
        return self.allowed[:, 0] if self.allowed.shape[1] == 1 else self.allowed


def read_rows(call: AttentionCall) -> ReplacedRows:
    """Return the rows, values and allowed keys of a call."""

    def wide(tensor: Tensor | None) -> Tensor | None:
        half = tensor is not None and tensor.dtype in (torch.float16, torch.bfloat16)
        return tensor.float() if half and tensor is not None else tensor

    value = call.value if call.value.dtype in (torch.float32, torch.float64) else call.value.float()
    call = replace(
        call,
        query=wide(call.query),
        key=wide(call.key),
        value=value,
        rows=wide(call.rows),
        mask=wide(call.mask),
        raw_logits=wide(call.raw_logits),
    )
    rows = call.attention()
    allowed = call.allowed().expand(rows.shape)
    rows = (rows * allowed).flatten(0, 1)
    allowed = allowed.flatten(0, 1)
    if bool((allowed == allowed[:, :1]).all()):
        allowed = allowed[:, :1]
    shape = (*call.output.shape[:3], call.value.shape[2])
    return ReplacedRows(rows, call.values_per_head().flatten(0, 1), allowed, shape)


@dataclass
class RowReplacement:
    """Puts effective or efficient rows in the place of attention, and certifies them layer by layer.

    Args:
        form: "efficient", "effective" or "effective_affine".
        tolerance: of the efficient rows.
        chosen: for each call by its index, the rows whose necessity is computed (numbers below batch * heads * queries,
            long); calls that are not in it stay as they are.
    """

    form: str
    tolerance: float
    chosen: dict[int, Tensor]
    layers: list[LayerCertificate] = field(default_factory=list)
    norms: dict[int, Tensor] = field(default_factory=dict)  # (heads, queries) ||new row - attention||
    smallest: list[Tensor] = field(default_factory=list)  # of each checked row
    checked_keys: int = 0

    def __call__(self, call: AttentionCall) -> Tensor | None:
        """Return the new rows of this call, None to leave it alone."""
        if call.index not in self.chosen:
            return None
        given = read_rows(call)
        residual: Tensor | None = None
        unproved = 0
        if self.form == "efficient":
            new, residual, optimal = _efficient(given, self.tolerance)
            unproved = int((~optimal).sum())
        else:
            affine = self.form == "effective_affine"  # in float64, as the efficient rows: the residual is no rounding
            rows, values = given.rows.double(), given.values.double()
            new = effective_attention(rows, values, given.mask, affine=affine).attention
        if self.form == "efficient":  # a distribution; the model's own row may sum to less (dropout, sinks)
            own, found = given.rows.double().sum(-1, keepdim=True), new.double().sum(-1, keepdim=True)
            apart = ((own - found).abs() > _SUM) & (found > 0)
            new = torch.where(apart, new * (own / found.where(apart, torch.ones_like(found))).to(new.dtype), new)
        self.norms[call.index] = (new.double() - given.rows.double()).norm(dim=-1)
        self._record(call, given, new, residual, unproved)
        return new.view(given.shape)

    def _record(
        self, call: AttentionCall, given: ReplacedRows, new: Tensor, residual: Tensor | None, unproved: int
    ) -> None:
        own, values = given.rows.double(), given.values.double()
        some = own.sum(-1) > 0
        allowed = given.allowed.expand(own.shape)
        seen = allowed.sum(-1)
        target = own @ values
        if residual is None:
            scale = target
            if self.tolerance > 0:
                mean = (allowed.double() @ values) / seen.clamp_min(1)[..., None]
                scale = target - mean * own.sum(-1, keepdim=True)
            missed = (new.double() @ values - target).norm(dim=-1)
            residual = torch.where(missed == 0, missed, missed / scale.norm(dim=-1).clamp_min(1e-300))
        support = (new != 0).sum(-1)
        smallest = self._necessity(new, given, target, self.chosen[call.index])
        self.layers.append(
            LayerCertificate(
                layer=call.layer,
                name=call.module_name,
                heads=call.heads,
                rows=int(some.sum()),
                changed=int(((new != given.rows).any(-1) & some).sum()),
                keys=int(seen.max()),
                support_mean=float(support[some].double().mean()) if bool(some.any()) else 0.0,
                support_max=int(support.max()),
                dropped=1 - int(support[some].sum()) / max(1, int(seen[some].sum())),
                relative_change=_mean(self.norms[call.index], own.norm(dim=-1), some),
                residual=_max(residual[some]),
                sum_error=_max((new.double().sum(-1) - own.sum(-1)).abs()[some]),
                own_sum_error=_max((own.sum(-1) - 1).abs()[some]),
                smallest_weight=float(new.where(new != 0, torch.full_like(new, torch.inf)).min()),
                unproved=unproved,
                checked=len(smallest),
                necessity=float(smallest.min()) if len(smallest) else None,
            )
        )

    def _necessity(self, new: Tensor, given: ReplacedRows, target: Tensor, chosen: Tensor) -> Tensor:
        """The smallest relative distance of each chosen row that has weight."""
        if self.form != "efficient":
            return torch.zeros(0)
        chosen = chosen.to(new.device)
        chosen = chosen[(new.flatten(0, 1)[chosen] > 0).any(-1)]
        clean = given.values.where(given.allowed.any(1)[..., None], torch.zeros_like(given.values))
        distance = necessity_distance(new, clean, chosen)
        size = (target / given.rows.double().sum(-1, keepdim=True)).flatten(0, 1)[chosen].norm(dim=-1, keepdim=True)
        self.checked_keys += int((~distance.isnan()).sum())
        smallest = torch.where(distance.isnan(), torch.inf, distance / size.clamp_min(1e-300)).amin(1).cpu()
        self.smallest.append(smallest)
        return smallest


def _efficient(given: ReplacedRows, tolerance: float) -> tuple[Tensor, Tensor | None, Tensor]:
    """Efficient rows, their residual (None with a tolerance, which is judged later), and whether they are optimal."""
    solved = efficient_attention(given.rows, given.values, given.mask, tolerance=tolerance)
    new, residual, optimal = solved.attention, solved.residual, solved.optimal
    if tolerance > 0:
        return new, None, optimal
    short = residual > _MISSED
    if bool(short.any()):
        # A direction in which the values differ by no more than their rounding was ignored, and it shows in these
        # outputs: here the values are taken at every digit.
        again = efficient_attention(given.rows.double(), given.values.double(), given.mask)
        new = torch.where(short[..., None], again.attention, new.double())
        residual, optimal = (
            torch.where(short, a, b) for a, b in ((again.residual, residual), (again.optimal, optimal))
        )
    return new, residual, optimal


def control(name: str, norms: dict[int, Tensor], sums: bool, seed: int) -> Callable[[AttentionCall], Tensor | None]:
    """Return a replacement for the calls in `norms`: one of `CONTROLS`.

    Args:
        name: which.
        norms: (heads, queries) norm of the noise for each call, by its index.
        sums: the null-space noise keeps row sums.
        seed: of the noise and the permutations.
    """
    generator = torch.Generator().manual_seed(seed)

    def rows(call: AttentionCall) -> Tensor | None:
        if call.index not in norms:
            return None
        given = read_rows(call)
        if name == "uniform":
            return _uniform(given).view(given.shape)
        if name == "permuted":
            return _permuted(given, generator).view(given.shape)
        noise = unit_noise(
            given.values.where(given.allowed.any(1)[..., None], torch.zeros_like(given.values)),
            given.allowed,
            given.rows.shape[1],
            generator=generator,
            keep_sums=sums,
        )[name == "visible noise"]
        return (given.rows + noise * norms[call.index][..., None]).view(given.shape)

    return rows


def _uniform(given: ReplacedRows) -> Tensor:
    allowed = given.allowed.expand(given.rows.shape).to(given.rows.dtype)
    return allowed / allowed.sum(-1, keepdim=True).clamp_min(1) * given.rows.sum(-1, keepdim=True)


def _permuted(given: ReplacedRows, generator: torch.Generator) -> Tensor:
    """The weights of each row on its allowed keys in a random order."""
    allowed = given.allowed.expand(given.rows.shape)
    draw = torch.rand(given.rows.shape, generator=generator).to(allowed.device)
    places = (~allowed).to(torch.uint8).argsort(dim=-1, stable=True)  # allowed keys first, in order
    order = draw.masked_fill(~allowed, 2.0).argsort(dim=-1)  # allowed keys first, at random
    return torch.zeros_like(given.rows).scatter(-1, places, given.rows.gather(-1, order))


def _mean(top: Tensor, bottom: Tensor, some: Tensor) -> float:
    return float((top / bottom.clamp_min(1e-300))[some].mean()) if bool(some.any()) else 0.0


def _max(numbers: Tensor) -> float:
    return float(numbers.max()) if numbers.numel() else 0.0
