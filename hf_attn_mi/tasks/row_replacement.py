"""Rows that replace a model's attention while it runs, and the measurements recorded for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hf_attn_mi.attention import effective_attention, efficient_attention, necessity_distance, unit_noise
from hf_attn_mi.capture import AttentionCall
from hf_attn_mi.results.certificate import LayerCertificate

CONTROLS = ("null-space noise", "visible noise", "uniform", "permuted")
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


def in_full_precision(call: AttentionCall) -> AttentionCall:
    """Return the call with half-precision tensors in float32; its output and masks of other types stay."""

    def wide(tensor: Tensor | None) -> Tensor | None:
        half = tensor is not None and tensor.dtype in (torch.float16, torch.bfloat16)
        return tensor.float() if half and tensor is not None else tensor

    value = call.value if call.value.dtype in (torch.float32, torch.float64) else call.value.float()
    return replace(
        call,
        query=wide(call.query),
        key=wide(call.key),
        value=value,
        rows=wide(call.rows),
        mask=wide(call.mask),
        raw_logits=wide(call.raw_logits),
    )


def read_rows(call: AttentionCall) -> ReplacedRows:
    """Return the rows, values and allowed keys of a call."""
    call = in_full_precision(call)
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
    """Replaces attention by effective or efficient rows, and certifies them layer by layer.

    Args:
        form: "efficient", "effective" or "effective_affine".
        tolerance: the tolerance of the efficient rows.
        chosen: for each call by its index, the rows whose necessity is computed (numbers below batch * heads * queries,
            long); calls that are not in it stay as they are.
    """

    form: str
    tolerance: float
    chosen: dict[int, Tensor]
    layers: list[LayerCertificate] = field(default_factory=list)
    norms: dict[int, Tensor] = field(default_factory=dict)  # (heads, queries) ||new row - attention||
    smallest: list[Tensor] = field(default_factory=list)  # smallest distance of each checked row
    checked_keys: int = 0

    def __call__(self, call: AttentionCall) -> Tensor | None:
        """Return the new rows of this call, None to leave it alone."""
        if call.index not in self.chosen:
            return None
        attention_rows = read_rows(call)
        residual: Tensor | None = None
        unproved = 0
        if self.form == "efficient":
            new, residual, optimal = _efficient(attention_rows, self.tolerance)
            unproved = int((~optimal).sum())
        else:
            affine = self.form == "effective_affine"  # in float64, like efficient rows: the residual is not rounding
            rows, values = attention_rows.rows.double(), attention_rows.values.double()
            new = effective_attention(rows, values, attention_rows.mask, affine=affine).attention
        if self.form == "efficient":  # a distribution; the model's own row may sum to less (dropout, sinks)
            model_rows, new_sums = (
                attention_rows.rows.double().sum(-1, keepdim=True),
                new.double().sum(-1, keepdim=True),
            )
            apart = ((model_rows - new_sums).abs() > _SUM) & (new_sums > 0)
            new = torch.where(
                apart, new * (model_rows / new_sums.where(apart, torch.ones_like(new_sums))).to(new.dtype), new
            )
        self.norms[call.index] = (new.double() - attention_rows.rows.double()).norm(dim=-1)
        self._record(call, attention_rows, new, residual, unproved)
        return new.view(attention_rows.shape)

    def _record(
        self, call: AttentionCall, attention_rows: ReplacedRows, new: Tensor, residual: Tensor | None, unproved: int
    ) -> None:
        model_rows, values = attention_rows.rows.double(), attention_rows.values.double()
        nonempty = model_rows.sum(-1) > 0
        allowed = attention_rows.allowed.expand(model_rows.shape)
        key_counts = allowed.sum(-1)
        target = model_rows @ values
        if residual is None:
            scale = target
            if self.tolerance > 0:
                mean = (allowed.double() @ values) / key_counts.clamp_min(1)[..., None]
                scale = target - mean * model_rows.sum(-1, keepdim=True)
            missed = (new.double() @ values - target).norm(dim=-1)
            residual = torch.where(missed == 0, missed, missed / scale.norm(dim=-1).clamp_min(1e-300))
        support = (new != 0).sum(-1)
        smallest = self._necessity(new, attention_rows, target, self.chosen[call.index])
        self.layers.append(
            LayerCertificate(
                layer=call.layer,
                name=call.module_name,
                heads=call.heads,
                rows=int(nonempty.sum()),
                changed=int(((new != attention_rows.rows).any(-1) & nonempty).sum()),
                keys=int(key_counts.max()),
                support_mean=float(support[nonempty].double().mean()) if bool(nonempty.any()) else 0.0,
                support_max=int(support.max()),
                dropped=1 - int(support[nonempty].sum()) / max(1, int(key_counts[nonempty].sum())),
                relative_change=_mean(self.norms[call.index], model_rows.norm(dim=-1), nonempty),
                residual=_max(residual[nonempty]),
                sum_error=_max((new.double().sum(-1) - model_rows.sum(-1)).abs()[nonempty]),
                own_sum_error=_max((model_rows.sum(-1) - 1).abs()[nonempty]),
                smallest_weight=float(new.where(new != 0, torch.full_like(new, torch.inf)).min()),
                unproved=unproved,
                checked=len(smallest),
                necessity=float(smallest.min()) if len(smallest) else None,
            )
        )

    def _necessity(self, new: Tensor, attention_rows: ReplacedRows, target: Tensor, chosen: Tensor) -> Tensor:
        """The smallest relative distance of each chosen row that has weight."""
        if self.form != "efficient":
            return torch.zeros(0, dtype=torch.float32)
        chosen = chosen.to(new.device)
        chosen = chosen[(new.flatten(0, 1)[chosen] > 0).any(-1)]
        clean = attention_rows.values.where(
            attention_rows.allowed.any(1)[..., None], torch.zeros_like(attention_rows.values)
        )
        distance = necessity_distance(new, clean, chosen)
        size = (
            (target / attention_rows.rows.double().sum(-1, keepdim=True))
            .flatten(0, 1)[chosen]
            .norm(dim=-1, keepdim=True)
        )
        self.checked_keys += int((~distance.isnan()).sum())
        smallest = torch.where(distance.isnan(), torch.inf, distance / size.clamp_min(1e-300)).amin(1).cpu()
        self.smallest.append(smallest)
        return smallest


def _efficient(attention_rows: ReplacedRows, tolerance: float) -> tuple[Tensor, Tensor | None, Tensor]:
    """Efficient rows, their residual (None with a tolerance, which is judged later), and whether they are optimal."""
    rows = attention_rows.rows.double()  # so that the new rows are not rounded to the model's precision
    solved = efficient_attention(rows, attention_rows.values, attention_rows.mask, tolerance=tolerance)
    new, residual, optimal = solved.attention, solved.residual, solved.optimal
    return new, None if tolerance > 0 else residual, optimal


def control(name: str, norms: dict[int, Tensor], sums: bool, seed: int) -> Callable[[AttentionCall], Tensor | None]:
    """Return a replacement for the calls in `norms`: one of `CONTROLS`.

    Args:
        name: the name of the control.
        norms: (heads, queries) norm of the noise for each call, by its index.
        sums: whether the null-space noise keeps row sums.
        seed: the random seed for the noise and the permutations.
    """
    generator = torch.Generator().manual_seed(seed)

    def rows(call: AttentionCall) -> Tensor | None:
        if call.index not in norms:
            return None
        attention_rows = read_rows(call)
        if name == "uniform":
            return _uniform(attention_rows).view(attention_rows.shape)
        if name == "permuted":
            return _permuted(attention_rows, generator).view(attention_rows.shape)
        noise = unit_noise(
            attention_rows.values.where(
                attention_rows.allowed.any(1)[..., None], torch.zeros_like(attention_rows.values)
            ),
            attention_rows.allowed,
            attention_rows.rows.shape[1],
            generator=generator,
            keep_sums=sums,
        )[name == "visible noise"]
        return (attention_rows.rows + noise * norms[call.index][..., None]).view(attention_rows.shape)

    return rows


def _uniform(attention_rows: ReplacedRows) -> Tensor:
    allowed = attention_rows.allowed.expand(attention_rows.rows.shape).to(attention_rows.rows.dtype)
    return allowed / allowed.sum(-1, keepdim=True).clamp_min(1) * attention_rows.rows.sum(-1, keepdim=True)


def _permuted(attention_rows: ReplacedRows, generator: torch.Generator) -> Tensor:
    """The weights of each row on its allowed keys in a random order."""
    allowed = attention_rows.allowed.expand(attention_rows.rows.shape)
    draw = torch.rand(attention_rows.rows.shape, generator=generator, dtype=torch.float32).to(allowed.device)
    places = (~allowed).to(torch.uint8).argsort(dim=-1, stable=True)  # allowed keys first, in order
    order = draw.masked_fill(~allowed, 2.0).argsort(dim=-1)  # allowed keys first, at random
    return torch.zeros_like(attention_rows.rows).scatter(-1, places, attention_rows.rows.gather(-1, order))


def _mean(top: Tensor, bottom: Tensor, nonempty: Tensor) -> float:
    return float((top / bottom.clamp_min(1e-300))[nonempty].mean()) if bool(nonempty.any()) else 0.0


def _max(numbers: Tensor) -> float:
    return float(numbers.max()) if numbers.numel() else 0.0
