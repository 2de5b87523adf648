"""The PyTorch pass where queries see different keys: causal, sliding window, any mask.

Then the projector differs by row; see `effective_by_row`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.kernels.attention_statistics.fields import Fields
from hf_attn_mi.kernels.attention_statistics.result import AttentionStatistics
from hf_attn_mi.kernels.checks import KernelInputs, check_output
from hf_attn_mi.kernels.effective.by_row import Shared, project_rows, read_points
from hf_attn_mi.kernels.effective.gram import ValueBasis, epsilon_of, value_basis

TILE = 1 << 18  # entries of a tile of attention
GRAMS = 1 << 20  # entries of the Gram matrices of a tile's rows
ROWS = 16  # queries of a tile: about as many of its keys are not common to all of its rows


@dataclass(frozen=True, eq=False)
class Tile:
    """Attention of some queries of some heads that have one mask."""

    weights: Tensor  # (kv heads, groups, queries, keys)
    allowed: Tensor  # (queries, keys) bool
    logits: Tensor | None  # as weights, zero where not allowed


def statistics_by_query(call: KernelInputs, statistics: str) -> AttentionStatistics:
    """Return the analysis of a call whose queries see different keys; effective attention in float64."""
    fields = Fields.empty(call, statistics)
    if call.per_head:
        fields.counts.zero_()
    batch, kv_heads, keys, dim = call.value.shape
    most = min(TILE // (call.groups * keys * ROWS), GRAMS // (ROWS * dim**2), kv_heads)
    size = 1 if call.per_head else max(1, most)
    step = max(1, min(ROWS, TILE // (size * call.groups * keys), GRAMS // (size * dim**2)))
    for b in range(batch):
        if not bool(call.queries[b].any()):
            continue
        for start in range(0, kv_heads, size):
            parts = [slice(g, g + 1) for g in range(call.groups)] if call.per_head else [slice(0, call.groups)]
            for groups in parts:
                _pass_heads(call, (b, slice(start, min(start + size, kv_heads)), groups), step, fields, statistics)
    return fields.close("torch")


def _pass_heads(
    call: KernelInputs, place: tuple[int, slice, slice], step: int, fields: Fields, statistics: str
) -> None:
    """All tiles of some heads that have one mask."""
    b, kv, groups = place
    epsilon = epsilon_of(call.value, call.query, call.key, call.rows)
    space = _space_of(call, place, call.keys[b], epsilon)
    determined = bool((call.keys[b].sum() <= space.rank).all())  # independent values: in every row, too
    points = read_points(call.value[b, kv], call.keys[b], epsilon)
    shared: Shared | None = None
    union = torch.zeros_like(call.keys[b])
    alive = 0
    for start in range(0, call.queries.shape[1], step):
        queries = slice(start, min(start + step, call.queries.shape[1]))
        if not bool(call.queries[b, queries].any()):
            continue
        tile = _form_tile(call, place, queries)
        union |= tile.allowed.any(0)
        alive += int(tile.allowed.any(1).sum())
        fields.received[b, kv, groups] += tile.weights.sum(2)
        _store_rows(tile, place, queries, fields, _sinks_of(call, place))
        if fields.effective is None:
            continue
        if determined:
            seen = tile.weights.double()
        else:
            seen, _, shared = project_rows(tile.weights, tile.allowed, points, shared)
        fields.effective[b, kv, groups] += seen.sum(2).to(call.dtype)
        if "norm" in fields.rows:
            _store_change(tile, seen, place, queries, fields)
    if bool((union != call.keys[b]).any()):  # heads with masks of their own
        space = _space_of(call, place, union, epsilon)
    fields.heads["rank"][b, kv, groups] = space.rank[:, None]
    fields.heads["n"][b, kv, groups] = union.sum()
    fields.heads["condition"][b, kv, groups] = space.condition[:, None]
    fields.counts[b, kv, groups] = alive
    if call.output is not None:
        outputs = call.output[b, _query_heads(call, place)].to(call.dtype)
        given = torch.where(call.queries[b, :, None], outputs, 0.0).sum(1)
        given = given.view(len(space.rank), -1, given.shape[1])
        seen_values = torch.where(union[:, None], call.value[b, kv].to(call.dtype), 0.0)
        check_output(given, fields.received[b, kv, groups] @ seen_values, seen_values, call)


def _query_heads(call: KernelInputs, place: tuple[int, slice, slice]) -> slice:
    _, kv, groups = place
    return slice(kv.start * call.groups + groups.start, (kv.stop - 1) * call.groups + groups.stop)


def _space_of(call: KernelInputs, place: tuple[int, slice, slice], keys: Tensor, epsilon: float) -> ValueBasis:
    """Rank and condition of the values of some keys."""
    values = torch.where(keys[:, None], call.value[place[0], place[1]].to(call.dtype), 0.0)
    return value_basis(values, keys.sum().expand(values.shape[0]), epsilon, columns=False)


def _form_tile(call: KernelInputs, place: tuple[int, slice, slice], queries: slice) -> Tile:
    """Attention of a tile of queries, zero where not allowed and in rows that see nothing."""
    b, kv, _ = place
    heads = _query_heads(call, place)
    example, keys = slice(b, b + 1), slice(0, call.value.shape[2])
    allowed = call.allowed(example, heads, queries, keys)[0, 0].expand(-1, keys.stop)
    if call.rows is not None:
        weights = call.rows[b, heads, queries].to(call.dtype).where(allowed, 0.0)
        low, high = torch.aminmax(weights)
        if not (bool(low >= 0) and bool(high < torch.inf)):
            raise InvalidInputError(
                "rows has negative, NaN or infinite weights at real keys: pass rows after the softmax"
            )
        return Tile(weights.view(kv.stop - kv.start, -1, *weights.shape[1:]), allowed, None)
    assert call.query is not None
    assert call.key is not None
    query = call.query[b, heads, queries].to(call.dtype) * call.scale
    query = query.view(kv.stop - kv.start, -1, *query.shape[1:])
    logits = query @ call.key[b, kv, None].to(call.dtype).transpose(2, 3)
    bias = call.bias(example, heads, queries, keys)
    if bias is not None:
        logits = logits + bias[0].to(call.dtype)
    hidden = ~allowed
    whole = logits.masked_fill(hidden, -torch.inf)
    sinks = _sinks_of(call, place)
    if sinks is not None:
        whole = torch.cat([whole, sinks.expand(whole.shape[:3])[..., None]], -1)
    weights = whole.softmax(-1)[..., : keys.stop].masked_fill(hidden, 0.0)
    return Tile(weights, allowed, logits.masked_fill_(hidden, 0.0))


def _sinks_of(call: KernelInputs, place: tuple[int, slice, slice]) -> Tensor | None:
    """The sinks of some heads, (kv heads, groups, 1)."""
    if call.sinks is None:
        return None
    b, kv, _ = place
    return call.sinks[b, _query_heads(call, place)].to(call.dtype).view(kv.stop - kv.start, -1, 1)


def _store_rows(
    tile: Tile, place: tuple[int, slice, slice], queries: slice, fields: Fields, sinks: Tensor | None
) -> None:
    if "norm" not in fields.rows:
        return
    b, kv, groups = place
    largest = tile.weights.amax(-1)
    if tile.logits is None:
        entropy = torch.special.entr(tile.weights).sum(-1)
    else:
        top = tile.logits.masked_fill(~tile.allowed, -torch.inf).amax(-1)
        alive = tile.allowed.any(-1)
        top = torch.where(alive, top, 0.0)
        spread = torch.where(alive, -largest.clamp_min(torch.finfo(largest.dtype).tiny).log(), 0.0)
        mass = 1.0 if sinks is None else tile.weights.sum(-1)
        entropy = (spread * mass - torch.linalg.vecdot(tile.weights, tile.logits - top[..., None])).clamp_min(0)
        log_sum_exp = top + spread
        if sinks is not None:  # where every weight underflows, the sink is all there is
            log_sum_exp = torch.where(alive, torch.maximum(log_sum_exp, sinks), 0.0)
        fields.rows["log_sum_exp"][b, kv, groups, queries] = log_sum_exp
    fields.rows["largest"][b, kv, groups, queries] = largest
    fields.rows["norm"][b, kv, groups, queries] = torch.linalg.vector_norm(tile.weights, dim=-1)
    fields.rows["entropy"][b, kv, groups, queries] = entropy


def _store_change(tile: Tile, seen: Tensor, place: tuple[int, slice, slice], queries: slice, fields: Fields) -> None:
    b, kv, groups = place
    change = tile.weights.double() - seen
    fields.rows["difference_norm"][b, kv, groups, queries] = change.norm(dim=-1).to(tile.weights.dtype)
    if "total_variation" in fields.rows:
        fields.rows["total_variation"][b, kv, groups, queries] = (change.abs().sum(-1) / 2).to(tile.weights.dtype)
        fields.rows["negative_mass"][b, kv, groups, queries] = seen.clamp_max(0).sum(-1).neg().to(tile.weights.dtype)
