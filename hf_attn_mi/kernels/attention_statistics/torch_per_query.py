"""`attention_statistics` in PyTorch where queries see different keys: causal, sliding window, any mask.

Then the projector differs from row to row; see `effective.row_projectors`. Effective attention is in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.kernels.attention_statistics.inputs import KernelInputs
from hf_attn_mi.kernels.attention_statistics.operation import AttentionStatistics, Sums
from hf_attn_mi.kernels.effective.row_projectors import SharedKeys, project_rows, read_points
from hf_attn_mi.kernels.effective.value_basis import ValueBasis, epsilon_of, value_basis
from hf_attn_mi.kernels.inputs import check_attention_weights, check_outputs

TILE = 1 << 18  # entries of a tile of attention
GRAMS = 1 << 20  # entries of the Gram matrices of a tile's rows
ROWS = 16  # queries of a tile: about as many of its keys are not common to all of its rows


@dataclass(frozen=True, eq=False)
class Tile:
    """Attention of some queries of some heads that have one mask."""

    weights: Tensor  # (kv heads, groups, queries, keys)
    allowed: Tensor  # (queries, keys) bool
    logits: Tensor | None  # of the shape of `weights`, zero where not allowed


@dataclass(frozen=True, eq=False)
class Heads:
    """Heads of one example that have one mask."""

    example: int
    kv: slice  # key and value heads
    groups: slice  # query heads of each of them

    @property
    def place(self) -> tuple[int, slice, slice]:
        """The position of the heads in the sums."""
        return self.example, self.kv, self.groups

    def query_heads(self, groups: int) -> slice:
        """The same heads among the query heads, of which each key and value head has `groups`."""
        return slice(self.kv.start * groups + self.groups.start, (self.kv.stop - 1) * groups + self.groups.stop)


def statistics_per_query(inputs: KernelInputs, effective: bool) -> AttentionStatistics:
    """Return the statistics of a call whose queries see different keys."""
    sums = Sums.zeros(inputs)
    batch, kv_heads, keys, dim = inputs.value.shape
    most = min(TILE // (inputs.groups * keys * ROWS), GRAMS // (ROWS * dim**2), kv_heads)
    size = 1 if inputs.per_head else max(1, most)
    step = max(1, min(ROWS, TILE // (size * inputs.groups * keys), GRAMS // (size * dim**2)))
    if inputs.per_head:
        sums.counts.zero_()
        parts = [slice(g, g + 1) for g in range(inputs.groups)]
    else:
        parts = [slice(0, inputs.groups)]
    for b in range(batch):
        if not bool(inputs.queries[b].any()):
            continue
        for start in range(0, kv_heads, size):
            for groups in parts:
                heads = Heads(b, slice(start, min(start + size, kv_heads)), groups)
                _pass_heads(inputs, heads, step, sums, effective)
    return sums.result(effective, "torch")


def _pass_heads(inputs: KernelInputs, heads: Heads, step: int, sums: Sums, effective: bool) -> None:
    """Add all tiles of some heads that have one mask."""
    b, place = heads.example, heads.place
    epsilon = epsilon_of(inputs.value, inputs.query, inputs.key, inputs.rows)
    space = _space_of(inputs, heads, inputs.keys[b], epsilon)
    determined = bool((inputs.keys[b].sum() <= space.rank).all())  # independent values, in every row
    points = read_points(inputs.value[b, heads.kv], inputs.keys[b], epsilon)
    shared: SharedKeys | None = None
    union = torch.zeros_like(inputs.keys[b])
    alive = 0
    for start in range(0, inputs.queries.shape[1], step):
        queries = slice(start, min(start + step, inputs.queries.shape[1]))
        if not bool(inputs.queries[b, queries].any()):
            continue
        tile = _form_tile(inputs, heads, queries)
        union |= tile.allowed.any(0)
        alive += int(tile.allowed.any(1).sum())
        sums.received[place] += tile.weights.sum(2)
        sums.entropy[place] += _entropy(tile)
        if not effective:
            continue
        exact = tile.weights.double()
        if determined:
            projected = exact
        else:
            projected, _, shared = project_rows(tile.weights, tile.allowed, points, shared)
        sums.effective[place] += projected.sum(2).to(inputs.dtype)
        sums.norm[place] += exact.square().sum((2, 3))
        sums.change[place] += (exact - projected).square().sum((2, 3))
    if bool((union != inputs.keys[b]).any()):  # heads with masks of their own
        space = _space_of(inputs, heads, union, epsilon)
    sums.rank[place] = space.rank[:, None]
    sums.n[place] = union.sum()
    sums.counts[place] = alive
    if inputs.output is not None:
        outputs = inputs.output[b, heads.query_heads(inputs.groups)].to(inputs.dtype)
        total = torch.where(inputs.queries[b, :, None], outputs, 0.0).sum(1).view(len(space.rank), -1, outputs.shape[2])
        values = torch.where(union[:, None], inputs.value[b, heads.kv].to(inputs.dtype), 0.0)
        count = inputs.queries.sum(1).amax()
        check_outputs("output is", total, sums.received[place] @ values, values, count, inputs.output.dtype)


def _space_of(inputs: KernelInputs, heads: Heads, keys: Tensor, epsilon: float) -> ValueBasis:
    """Rank and condition of the values of some keys."""
    values = torch.where(keys[:, None], inputs.value[heads.example, heads.kv].to(inputs.dtype), 0.0)
    return value_basis(values, keys.sum().expand(values.shape[0]), epsilon, columns=False)


def _form_tile(inputs: KernelInputs, heads: Heads, queries: slice) -> Tile:
    """Attention of a tile of queries, zero where not allowed and in rows without an allowed key."""
    b, kv, query_heads = heads.example, heads.kv, heads.query_heads(inputs.groups)
    example, keys = slice(b, b + 1), slice(0, inputs.value.shape[2])
    allowed = inputs.allowed(example, query_heads, queries, keys)[0, 0].expand(-1, keys.stop)
    if inputs.rows is not None:
        weights = inputs.rows[b, query_heads, queries].to(inputs.dtype).where(allowed, 0.0)
        check_attention_weights("rows", *torch.aminmax(weights))
        return Tile(weights.view(kv.stop - kv.start, -1, *weights.shape[1:]), allowed, None)
    assert inputs.query is not None
    assert inputs.key is not None
    query = inputs.query[b, query_heads, queries].to(inputs.dtype) * inputs.scale
    query = query.view(kv.stop - kv.start, -1, *query.shape[1:])
    logits = query @ inputs.key[b, kv, None].to(inputs.dtype).transpose(2, 3)
    bias = inputs.bias(example, query_heads, queries, keys)
    if bias is not None:
        logits = logits + bias[0].to(inputs.dtype)
    weights = logits.masked_fill(~allowed, -torch.inf).softmax(-1).masked_fill(~allowed, 0.0)
    return Tile(weights, allowed, logits.masked_fill_(~allowed, 0.0))


def _entropy(tile: Tile) -> Tensor:
    """Return (kv heads, groups) entropies of the rows, summed over them."""
    if tile.logits is None:
        entropy: Tensor = torch.special.entr(tile.weights).sum((2, 3))
        return entropy
    largest = tile.weights.amax(-1)
    alive = tile.allowed.any(-1)
    top = torch.where(alive, tile.logits.masked_fill(~tile.allowed, -torch.inf).amax(-1), 0.0)
    spread = torch.where(alive, -largest.clamp_min(torch.finfo(largest.dtype).tiny).log(), 0.0)
    mean_logit: Tensor = torch.linalg.vecdot(tile.weights, tile.logits - top[..., None])
    return (spread - mean_logit).clamp_min(0).sum(2)
