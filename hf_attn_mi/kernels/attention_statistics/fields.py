"""The results of a pass while it runs: filled tile by tile, closed into an AttentionStatistics."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.kernels.attention_statistics.result import AttentionStatistics
from hf_attn_mi.kernels.checks import KernelInputs

ROW_FIELDS = (
    "log_sum_exp",
    "entropy",
    "largest",
    "norm",
    "difference_norm",
    "total_variation",
    "negative_mass",
)


@dataclass(frozen=True, eq=False)
class Fields:
    """Buffers of one analysis, filled in place; heads stand as (kv_heads, groups)."""

    rows: dict[str, Tensor]  # each (batch, kv_heads, groups, queries)
    heads: dict[str, Tensor]  # rank, n, condition: (batch, kv_heads, groups)
    received: Tensor  # (batch, kv_heads, groups, keys) sums until closed
    effective: Tensor | None  # the same of effective attention, None where it was not asked for
    queries: Tensor  # (batch, queries) bool
    counts: Tensor  # (batch, kv_heads, groups) rows that count

    @staticmethod
    def empty(call: KernelInputs, statistics: str) -> Fields:
        """Zeros in the shapes of the call, for the fields that were asked for."""
        batch, kv_heads, keys, _ = call.value.shape
        lead = (batch, kv_heads, call.groups)
        dtype, device = call.dtype, call.value.device
        names = {"all": ROW_FIELDS, "summary": ROW_FIELDS[:5], "raw": ROW_FIELDS[:4], "received": ()}[statistics]
        if call.rows is not None:
            names = tuple(name for name in names if name != "log_sum_exp")
        return Fields(
            rows={name: torch.zeros(*lead, call.queries.shape[1], dtype=dtype, device=device) for name in names},
            heads={
                "rank": torch.zeros(lead, dtype=torch.long, device=device),
                "n": torch.zeros(lead, dtype=torch.long, device=device),
                "condition": torch.zeros(lead, dtype=torch.float64, device=device),
            },
            received=torch.zeros(*lead, keys, dtype=dtype, device=device),
            effective=None if statistics == "raw" else torch.zeros(*lead, keys, dtype=dtype, device=device),
            queries=call.queries,
            counts=call.queries.sum(1)[:, None, None].expand(lead).clone(),
        )

    def put_rows(self, name: str, examples: slice, kv: slice, queries: slice, found: Tensor) -> None:
        """Store one statistic of a tile's rows."""
        place = self.rows[name][examples, kv, :, queries]
        place.copy_(found.reshape(place.shape))

    def put_head(self, name: str, examples: slice, kv: slice, found: Tensor) -> None:
        """Store one figure of each key and value head, for all its query heads."""
        place = self.heads[name][examples, kv]
        place.copy_(found.reshape(place.shape[0], place.shape[1], -1))

    def add_received(self, examples: slice, kv: slice, keys: slice, found: Tensor) -> None:
        """Add what a tile's queries give to each key."""
        self.received[examples, kv, :, keys] += found

    def received_of(self, examples: slice, kv: slice, keys: slice) -> Tensor:
        """What the keys of some heads have received so far."""
        return self.received[examples, kv, :, keys]

    def put_effective(self, examples: slice, kv: slice, keys: slice, found: Tensor, rank: Tensor) -> None:
        """Store received effective weights; heads whose keys are no more than the rank get the raw ones."""
        if self.effective is None:
            return
        raw = self.received[examples, kv, :, keys]
        same = (self.heads["n"][examples, kv] <= self.heads["rank"][examples, kv])[..., None]
        self.effective[examples, kv, :, keys] = torch.where(same, raw, found.reshape(raw.shape))
        for name in ("difference_norm", "total_variation", "negative_mass"):
            if name in self.rows:
                self.rows[name][examples, kv] *= ~same

    def close(self, backend: str) -> AttentionStatistics:
        """Means over rows that count."""
        count = self.counts.clamp_min(1)
        rows: dict[str, Tensor | None] = {
            name: (x * self.queries[:, None, None, :]).flatten(1, 2) for name, x in self.rows.items()
        }
        difference = entropy = None
        if "entropy" in self.rows:
            entropy = (self.rows["entropy"].sum(-1) / count).flatten(1, 2)
        if "difference_norm" in self.rows:
            whole, left = (self.rows[name].double().square().sum(-1).sqrt() for name in ("norm", "difference_norm"))
            difference = (left / whole.where(whole > 0, 1.0)).to(self.received.dtype).flatten(1, 2)
        return AttentionStatistics(
            received=(self.received / count[..., None]).flatten(1, 2),
            received_effective=None if self.effective is None else (self.effective / count[..., None]).flatten(1, 2),
            log_sum_exp=rows.get("log_sum_exp"),
            entropy=rows.get("entropy"),
            largest=rows.get("largest"),
            norm=rows.get("norm"),
            difference_norm=rows.get("difference_norm"),
            total_variation=rows.get("total_variation"),
            negative_mass=rows.get("negative_mass"),
            rank=self.heads["rank"].flatten(1),
            n=self.heads["n"].flatten(1),
            condition=self.heads["condition"].flatten(1),
            difference=difference,
            mean_entropy=entropy,
            backend=backend,
        )
