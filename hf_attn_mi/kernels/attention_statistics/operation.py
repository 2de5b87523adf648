"""Statistics of one attention call without its matrix: received weights, entropy and effective attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.kernels.attention_statistics.inputs import KernelInputs, read_kernel_inputs
from hf_attn_mi.kernels.dispatch import choose_backend, implementation


@dataclass(frozen=True, eq=False)
class AttentionStatistics:
    """Statistics of one attention call, per key and per head. No entry is NaN; padding is zero and is not counted.

    Means run over the real queries that see a key. The fields of effective attention are None with effective=False.

    Attributes:
        received: (batch, heads, keys) attention that each key receives, mean.
        received_effective: (batch, heads, keys) the same of effective attention, signed.
        mean_entropy: (batch, heads) mean of - sum_j a_ij log a_ij over the keys, nats.
        rank: (batch, heads) rank of the values of the keys that real queries see.
        n: (batch, heads) number of these keys.
        null_space_fraction: (batch, heads) ||A - A_eff||_F / ||A||_F, exactly 0 if n <= rank. Where all queries see
            the same keys it comes from ||A||^2 - ||A_eff||^2, which float32 cannot tell from 0 below about 3e-4.
        backend: the implementation that ran.
    """

    received: Tensor
    received_effective: Tensor | None
    mean_entropy: Tensor
    rank: Tensor
    n: Tensor
    null_space_fraction: Tensor | None
    backend: str


@torch.no_grad()
def attention_statistics(
    query: Tensor | None,
    key: Tensor | None,
    value: Tensor,
    output: Tensor | None,
    *,
    rows: Tensor | None = None,
    mask: Tensor | None = None,
    scale: float | None = None,
    is_causal: bool = False,
    window: int | None = None,
    key_mask: Tensor | None = None,
    query_mask: Tensor | None = None,
    effective: bool = True,
    backend: str = "auto",
) -> AttentionStatistics:
    """Return received weights, mean entropy and effective attention of one call, in memory linear in its length.

    A_eff = A P = (A U) U^T with U = V W an orthonormal basis of the column space of the values V: tiles of queries are
    formed, used and dropped. `reference_attention_statistics` is the definition.

    Args:
        query: (batch, heads, queries, qk_dim), or None with `rows`.
        key: (batch, kv_heads, keys, qk_dim), likewise.
        value: (batch, kv_heads, keys, head_dim).
        output: (batch, heads, queries, head_dim), the rows times the values; None: they are multiplied again.
        rows: (batch, heads, queries, keys) attention that a model has formed; rows may sum to less than one.
        mask: bool (True = attend) or additive, broadcastable to (batch, heads, queries, keys).
        scale: factor of the logits, by default 1 / sqrt(qk_dim).
        is_causal: query i sees keys j <= i (and what `mask` allows).
        window: query i sees keys with |i - j| < window.
        key_mask, query_mask: (batch, keys) and (batch, queries) bool, True for real tokens.
        effective: also return the statistics of effective attention.
        backend: "torch", "triton" or "auto", which takes triton on CUDA where the call allows it.

    Raises:
        InvalidInputError: shapes, dtypes, values or options that do not fit; an output that is not rows times values.
        BackendUnavailableError: the requested backend is not installed, or cannot do this call.

    Source: Brunner et al., "On Identifiability in Transformers", arXiv 1908.04211 (effective attention).

    Example:
        >>> query, key, value = torch.randn(3, 1, 2, 9, 4, generator=torch.Generator().manual_seed(0))
        >>> statistics = attention_statistics(query, key, value, None)
        >>> statistics.rank.tolist(), round(float(statistics.received.sum()), 4)
        ([[4, 4]], 2.0)
    """
    inputs = read_kernel_inputs(
        (query, key, value, output, rows),
        mask,
        (key_mask, query_mask),
        scale=scale,
        is_causal=is_causal,
        window=window,
    )
    name = choose_backend(
        "attention_statistics", backend, inputs.value.device, refusals={"triton": _triton_refusal(inputs)}
    )
    statistics: AttentionStatistics = implementation("attention_statistics", name)(inputs, effective)
    return statistics


def _triton_refusal(inputs: KernelInputs) -> str | None:
    """Why the Triton kernels cannot do a call, None if they can."""
    if inputs.query is None:
        return "the kernels form the rows themselves and need query and key"
    if inputs.per_query_mask:
        return "queries see different keys (causal, window, a mask that differs by row), which only torch does"
    return "the kernels compute in float32, and the tensors are float64" if inputs.dtype == torch.float64 else None


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over queries, updated in place; heads are split into (kv_heads, groups).

    Attributes:
        received: (batch, kv_heads, groups, keys) attention received.
        effective: the same of effective attention; unused with effective=False.
        entropy: (batch, kv_heads, groups).
        norm: (batch, kv_heads, groups) float64 squares of the entries of A.
        change: the same of A - A_eff.
        counts: (batch, kv_heads, groups) rows that count.
        rank, n: (batch, kv_heads, groups) long.
    """

    received: Tensor
    effective: Tensor
    entropy: Tensor
    norm: Tensor
    change: Tensor
    counts: Tensor
    rank: Tensor
    n: Tensor

    @staticmethod
    def zeros(inputs: KernelInputs) -> Sums:
        """Sums of a call before its first tile; counts are those of a call whose queries see the same keys."""
        batch, kv_heads, keys, _ = inputs.value.shape
        lead, device = (batch, kv_heads, inputs.groups), inputs.value.device
        counts = inputs.queries.sum(1)[:, None, None].expand(lead).clone()
        received, effective = torch.zeros(2, *lead, keys, dtype=inputs.dtype, device=device)
        norm, change = torch.zeros(2, *lead, dtype=torch.float64, device=device)
        rank, n = torch.zeros(2, *lead, dtype=torch.long, device=device)
        entropy = torch.zeros(lead, dtype=inputs.dtype, device=device)
        return Sums(received, effective, entropy, norm, change, counts, rank, n)

    def close_shared(self, examples: slice, kv: slice, keys: slice, basis: Tensor | None) -> None:
        """Fill in received effective weights r P = (r U) U^T; for heads with n <= rank the raw ones, with change zero.

        Args:
            examples, kv, keys: places of the heads, whose queries all see the same keys.
            basis: (kv heads of all examples, keys, head_dim) U, orthonormal columns; None where n <= rank everywhere.
        """
        raw = self.received[examples, kv, :, keys]
        if basis is None:
            self.effective[examples, kv, :, keys] = raw
            self.change[examples, kv] = 0
            return
        flat = raw.flatten(0, 1).to(basis.dtype)
        projected = ((flat @ basis) @ basis.transpose(1, 2)).view(raw.shape)
        same = self.n[examples, kv] <= self.rank[examples, kv]
        self.effective[examples, kv, :, keys] = torch.where(same[..., None], raw, projected)
        self.change[examples, kv] *= ~same

    def result(self, effective: bool, backend: str) -> AttentionStatistics:
        """Means over the rows that count."""
        count = self.counts.clamp_min(1)
        fraction = self.change.sqrt() / self.norm.where(self.norm > 0, 1.0).sqrt()
        return AttentionStatistics(
            received=(self.received / count[..., None]).flatten(1, 2),
            received_effective=(self.effective / count[..., None]).flatten(1, 2) if effective else None,
            mean_entropy=(self.entropy / count).flatten(1, 2),
            rank=self.rank.flatten(1),
            n=self.n.flatten(1),
            null_space_fraction=fraction.to(self.received.dtype).flatten(1, 2) if effective else None,
            backend=backend,
        )
