"""The PyTorch pass where queries see different keys: causal, sliding window, any mask.

Then the projector differs by row. A tile of queries has a Gram matrix of the keys that all of its rows see, and each
row adds its own: G_i = G + sum over the keys that only some rows see. For causal attention and windows those are few.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInput
from hf_attn_mi.kernels.analysis import Analysis
from hf_attn_mi.kernels.checks import Heads, check_output
from hf_attn_mi.kernels.fields import Fields
from hf_attn_mi.kernels.gram import ValueBasis, epsilon_of, rank_cut, value_basis, whiten

TILE = 1 << 18  # entries of a tile of attention
GRAMS = 1 << 20  # entries of the Gram matrices, or of the outer products, held at a time
ROWS = 64  # queries of a tile: about as many of its keys are not common to all of its rows


@dataclass(frozen=True, eq=False)
class Tile:
    """Attention of some queries of all query heads of one key and value head."""

    weights: Tensor  # (groups, queries, keys)
    allowed: Tensor  # (queries, keys) bool
    logits: Tensor | None  # as weights, zero where not allowed


def analyse_by_row(call: Heads, statistics: str) -> Analysis:
    """Return the analysis of a call whose queries see different keys; effective attention in float64."""
    fields = Fields.empty(call, statistics)
    if call.per_head:
        fields.counts.zero_()
    batch, kv_heads, keys, dim = call.value.shape
    step = max(1, min(ROWS, TILE // (call.groups * keys), GRAMS // dim**2))
    for b in range(batch):
        if not bool(call.queries[b].any()):
            continue
        for kv in range(kv_heads):
            parts = [slice(g, g + 1) for g in range(call.groups)] if call.per_head else [slice(0, call.groups)]
            for groups in parts:
                _pass_head(call, (b, kv, groups), step, fields, statistics)
    return fields.close("torch")


def _pass_head(call: Heads, place: tuple[int, int, slice], step: int, fields: Fields, statistics: str) -> None:
    """All tiles of the query heads of one key and value head."""
    b, kv, groups = place
    values = call.value[b, kv].double()
    epsilon = epsilon_of(call.value, call.query, call.key, call.rows)
    space = _space_of(call, place, call.keys[b], epsilon)
    determined = bool(call.keys[b].sum() <= space.rank)  # independent values: in every row, too
    union = torch.zeros(values.shape[0], dtype=torch.bool, device=values.device)
    alive = 0
    for start in range(0, call.queries.shape[1], step):
        queries = slice(start, min(start + step, call.queries.shape[1]))
        if not bool(call.queries[b, queries].any()):
            continue
        tile = _form_tile(call, place, queries)
        union |= tile.allowed.any(0)
        alive += int(tile.allowed.any(1).sum())
        fields.received[b, kv, groups] += tile.weights.sum(1)
        _store_rows(tile, place, queries, fields)
        if fields.effective is None:
            continue
        seen = tile.weights.double() if determined else _project(tile, values, epsilon)
        fields.effective[b, kv, groups] += seen.sum(1).to(call.dtype)
        if "norm" in fields.rows:
            _store_change(tile, seen, place, queries, fields)
    if bool((union != call.keys[b]).any()):  # heads with masks of their own
        space = _space_of(call, place, union, epsilon)
    fields.heads["rank"][b, kv, groups] = space.rank
    fields.heads["n"][b, kv, groups] = union.sum()
    fields.heads["condition"][b, kv, groups] = space.condition
    fields.counts[b, kv, groups] = alive
    if call.output is not None:
        outputs = call.output[b, kv * call.groups : (kv + 1) * call.groups][groups].to(call.dtype)
        given = torch.where(call.queries[b, :, None], outputs, 0.0).sum(1)[None]
        seen_values = torch.where(union[:, None], call.value[b, kv].to(call.dtype), 0.0)[None]
        check_output(given, fields.received[b, kv, groups][None] @ seen_values, seen_values, call)


def _space_of(call: Heads, place: tuple[int, int, slice], keys: Tensor, epsilon: float) -> ValueBasis:
    """Rank and condition of the values of some keys."""
    values = torch.where(keys[:, None], call.value[place[0], place[1]].to(call.dtype), 0.0)
    return value_basis(values[None], keys.sum()[None], epsilon, columns=False)


def _form_tile(call: Heads, place: tuple[int, int, slice], queries: slice) -> Tile:
    """Attention of a tile of queries, zero where not allowed and in rows that see nothing."""
    b, kv, groups = place
    heads = slice(kv * call.groups + groups.start, kv * call.groups + groups.stop)
    example, keys = slice(b, b + 1), slice(0, call.value.shape[2])
    allowed = call.allowed(example, heads, queries, keys)[0, 0].expand(-1, keys.stop)
    if call.rows is not None:
        weights = call.rows[b, heads, queries].to(call.dtype).where(allowed, 0.0)
        low, high = torch.aminmax(weights)
        if not (bool(low >= 0) and bool(high < torch.inf)):
            raise InvalidInput("rows has negative, NaN or infinite weights at real keys: pass rows after the softmax")
        return Tile(weights, allowed, None)
    assert call.query is not None
    assert call.key is not None
    query = call.query[b, heads, queries].to(call.dtype) * call.scale
    logits = query @ call.key[b, kv].to(call.dtype).transpose(0, 1)
    bias = call.bias(example, heads, queries, keys)
    if bias is not None:
        logits = logits + bias[0].to(call.dtype)
    hidden = ~allowed
    weights = logits.masked_fill(hidden, -torch.inf).softmax(-1).masked_fill(hidden, 0.0)
    return Tile(weights, allowed, logits.masked_fill_(hidden, 0.0))


def _store_rows(tile: Tile, place: tuple[int, int, slice], queries: slice, fields: Fields) -> None:
    if "norm" not in fields.rows:
        return
    b, kv, groups = place
    largest = tile.weights.amax(-1)
    if tile.logits is None:
        entropy = torch.special.entr(tile.weights).sum(-1)
    else:
        top = tile.logits.masked_fill(~tile.allowed, -torch.inf).amax(-1)
        top = torch.where(largest > 0, top, 0.0)
        spread = torch.where(largest > 0, -largest.clamp_min(torch.finfo(largest.dtype).tiny).log(), 0.0)
        entropy = (spread - torch.linalg.vecdot(tile.weights, tile.logits - top[..., None])).clamp_min(0)
        log_sum_exp = top + spread
        fields.rows["log_sum_exp"][b, kv, groups, queries] = log_sum_exp
    fields.rows["largest"][b, kv, groups, queries] = largest
    fields.rows["norm"][b, kv, groups, queries] = torch.linalg.vector_norm(tile.weights, dim=-1)
    fields.rows["entropy"][b, kv, groups, queries] = entropy


def _project(tile: Tile, values: Tensor, epsilon: float) -> Tensor:
    """Return the effective rows, float64; rows with no more keys than their rank as they are."""
    allowed, weights = tile.allowed, tile.weights.double()
    live = allowed.any(1)
    common = allowed[live].all(0) if bool(live.any()) else allowed[0]
    some = (allowed.any(0) & ~common).nonzero()[:, 0]
    shared = values[common]
    dim = values.shape[1]
    grams = (shared.transpose(0, 1) @ shared).expand(allowed.shape[0], dim, dim).clone()
    size = max(1, GRAMS // dim**2)
    for start in range(0, len(some), size):
        part = some[start : start + size]
        outer = values[part][:, :, None] * values[part][:, None, :]
        grams += (allowed[:, part].double() @ outer.flatten(1)).view(-1, dim, dim)
    keys = allowed.sum(1)
    whitening, rank = whiten(grams, rank_cut(keys, dim, epsilon))
    reached = (weights @ values).transpose(0, 1)  # (queries, groups, head_dim)
    coefficients = (reached @ whitening) @ whitening.transpose(1, 2)
    seen = (coefficients.transpose(0, 1) @ values.transpose(0, 1)) * allowed
    return torch.where((keys <= rank)[:, None], weights, seen)


def _store_change(tile: Tile, seen: Tensor, place: tuple[int, int, slice], queries: slice, fields: Fields) -> None:
    b, kv, groups = place
    change = tile.weights.double() - seen
    fields.rows["difference_norm"][b, kv, groups, queries] = change.norm(dim=-1).to(tile.weights.dtype)
    if "total_variation" in fields.rows:
        fields.rows["total_variation"][b, kv, groups, queries] = (change.abs().sum(-1) / 2).to(tile.weights.dtype)
        fields.rows["negative_mass"][b, kv, groups, queries] = seen.clamp_max(0).sum(-1).neg().to(tile.weights.dtype)
