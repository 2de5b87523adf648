"""The result of the fused pass."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class AttentionStatistics:
    """What one attention call holds, per key, row and head. Nothing is NaN; pads are zero and count as nothing.

    Means run over real queries that see a key. Fields are None where they were not asked for or, as the attention
    rows of `received` and the row fields without query, key and rows, cannot be known.

    Attributes:
        received: (batch, heads, keys) attention that each key receives, mean.
        received_effective: (batch, heads, keys) the same of effective attention, signed.
        log_sum_exp: (batch, heads, queries) of the logits and, where there is one, the sink; None for given rows.
        entropy: (batch, heads, queries) - sum_j a_ij log a_ij over keys, nats.
        largest: (batch, heads, queries) largest weight of the row.
        norm: (batch, heads, queries) ||A_i||.
        difference_norm: (batch, heads, queries) ||A_i - A_eff,i||.
        total_variation: (batch, heads, queries) sum_j |a_ij - a_eff,ij| / 2.
        negative_mass: (batch, heads, queries) sum of the negative entries of A_eff,i, as a positive number; 0 where
            A_eff,i = A_i.
        rank: (batch, heads) rank of the values of the keys that real queries see.
        n: (batch, heads) number of these keys.
        condition: (batch, heads) ||V||_F ||V^+||_F of these keys: at least the ratio of the largest to the smallest
            singular value that counts, at most rank times it.
        difference: (batch, heads) ||A - A_eff||_F / ||A||_F, exactly 0 where n <= rank.
        mean_entropy: (batch, heads).
        backend: what ran, "torch" or "triton".
    """

    received: Tensor | None
    received_effective: Tensor | None
    log_sum_exp: Tensor | None
    entropy: Tensor | None
    largest: Tensor | None
    norm: Tensor | None
    difference_norm: Tensor | None
    total_variation: Tensor | None
    negative_mass: Tensor | None
    rank: Tensor
    n: Tensor
    condition: Tensor
    difference: Tensor | None
    mean_entropy: Tensor | None
    backend: str
