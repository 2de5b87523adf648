"""One pass over attention: received weights, row statistics and effective attention, without the matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.kernels.attention_statistics.by_row import statistics_by_query
from hf_attn_mi.kernels.attention_statistics.result import AttentionStatistics
from hf_attn_mi.kernels.attention_statistics.tiles import statistics_by_tiles
from hf_attn_mi.kernels.backends import choose_backend
from hf_attn_mi.kernels.checks import STATISTICS, KernelInputs, read_heads
from hf_attn_mi.kernels.effective.received import received_weights


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
    sinks: Tensor | None = None,
    statistics: str = "all",
    backend: str = "auto",
) -> AttentionStatistics:
    """Return received weights, row statistics and effective attention of one call, in memory linear in its length.

    A_eff = A P = (A U) U^T with U = V W an orthonormal basis of the column space of the values: tiles of queries are
    formed, used and dropped. See docs/methods/kernels.md and `reference_attention_statistics`, the specification.

    Args:
        query: (batch, heads, queries, qk_dim), or None with `rows`, or for received effective weights alone.
        key: (batch, kv_heads, keys, qk_dim), likewise.
        value: (batch, kv_heads, keys, head_dim).
        output: (batch, heads, queries, head_dim), the rows times the values; None: they are multiplied again.
        rows: (batch, heads, queries, keys) attention that a model has formed; rows may sum to less than one.
        mask: bool (True = attend) or additive, broadcastable to (batch, heads, queries, keys).
        scale: factor of the logits, by default 1 / sqrt(qk_dim).
        is_causal: query i sees keys j <= i (and what `mask` allows).
        window: query i sees keys with |i - j| < window.
        key_mask, query_mask: (batch, keys) and (batch, queries) bool, True for real tokens.
        sinks: (heads,) or (batch, heads), as in gpt-oss: one more logit in each row's softmax, of no key and no value.
            The weights of the keys sum to less than one; log_sum_exp counts the sink, entropy is that of the keys'
            weights, - sum_j a_ij log a_ij; rank and n are those without it.
        statistics: "all"; "summary": no total variation and negative mass, ||A - A_eff||^2 as ||A||^2 - ||A_eff||^2;
            "raw": nothing of effective attention; "received": received weights, rank, n and condition alone.
        backend: "torch", "triton" or "auto", which takes triton on CUDA where the call allows it.

    Raises:
        InvalidInputError: shapes, dtypes, values or options that do not fit; an output that is not rows times values.
        BackendUnavailableError: triton was asked for and is not there, or cannot do this call.

    Example:
        >>> query, key, value = torch.randn(3, 1, 2, 9, 4, generator=torch.Generator().manual_seed(0))
        >>> found = attention_statistics(query, key, value, None)
        >>> found.rank.tolist(), round(float(found.received.sum()), 4)
        ([[4, 4]], 2.0)
    """
    if statistics not in STATISTICS:
        raise InvalidInputError(f"statistics is {statistics!r}: one of {', '.join(STATISTICS)} is allowed")
    call = read_heads(
        (query, key, value, output, rows),
        mask,
        (key_mask, query_mask),
        scale=scale,
        is_causal=is_causal,
        window=window,
        sinks=sinks,
    )
    chosen = choose_backend(backend, call)
    if query is None and rows is None:
        if statistics != "received":
            raise InvalidInputError('without query and key or rows only statistics="received" can be had')
        return _received_alone(call)
    if chosen == "triton":
        from hf_attn_mi.kernels.attention_statistics.by_triton import statistics_by_triton

        return statistics_by_triton(call, statistics)
    one_space = not call.by_row or (statistics == "raw" and not call.per_head)
    return statistics_by_tiles(call, statistics) if one_space else statistics_by_query(call, statistics)


def _received_alone(call: KernelInputs) -> AttentionStatistics:
    """Received effective weights in O(n d^2): w_j = < mean_i o_i, (V^T V)^+ v_j >."""
    if call.by_row:
        raise InvalidInputError("received weights from output alone need queries that all see the same keys")
    assert call.output is not None
    batch, kv_heads = call.value.shape[:2]
    found = received_weights(call.output, call.value, call.keys, call.queries)

    def per_head(figure: Tensor) -> Tensor:
        return figure[:, :, None].expand(batch, kv_heads, call.groups).flatten(1)

    return AttentionStatistics(
        received=None,
        received_effective=found.weights,
        log_sum_exp=None,
        entropy=None,
        largest=None,
        norm=None,
        difference_norm=None,
        total_variation=None,
        negative_mass=None,
        rank=per_head(found.rank),
        n=call.keys.sum(1)[:, None].expand(batch, call.heads),
        condition=per_head(found.condition),
        difference=None,
        mean_entropy=None,
        backend="torch",
    )
