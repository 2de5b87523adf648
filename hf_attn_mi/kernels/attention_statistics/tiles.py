"""The PyTorch pass where all queries of an example see the same keys: one basis a head, tiles of queries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.kernels.attention_statistics.fields import Fields
from hf_attn_mi.kernels.attention_statistics.result import AttentionStatistics
from hf_attn_mi.kernels.checks import KernelInputs, check_output
from hf_attn_mi.kernels.effective.gram import WELL_CONDITIONED, ValueBasis, epsilon_of, value_basis

TILE = 1 << 19  # entries of a tile of attention: two of them stay near the caches
NEVER = -1e30  # logit of a masked key: its weight underflows to exactly zero, and zero times it is zero


@dataclass(frozen=True, eq=False)
class Block:
    """Some heads of some examples: what every tile of their queries needs."""

    examples: slice
    kv: slice  # key and value heads
    heads: slice  # query heads
    keys: slice  # from the first real key to the last
    queries: slice
    padding: Tensor | None  # (kv heads of all examples, 1, keys) additive, None where every key is real
    key_flags: Tensor  # (examples, 1, 1, 1, keys) bool
    weights: Tensor | None  # (examples, 1, 1, queries, 1) 1 for real queries, None where every query is real
    key: Tensor | None  # (kv heads of all examples, keys, qk_dim)
    values: Tensor  # (kv heads of all examples, keys, head_dim), zero at pads
    basis: ValueBasis
    trusted: bool  # outputs are exact enough to stand for rows times values


def statistics_by_tiles(call: KernelInputs, statistics: str) -> AttentionStatistics:
    """Return the analysis of a call whose queries of one example all see the same keys, or its raw part for any mask.

    Raises:
        InvalidInputError: rows that are not attention, or an output that is not rows times values.
    """
    fields = Fields.empty(call, statistics)
    keys, queries = spans(call.keys), spans(call.queries)
    for examples, kv, step in _schedule(call):
        needs = _common_span(keys[examples]), _common_span(queries[examples])
        if needs[0] is None or needs[1] is None:
            continue
        block = _read_block(call, examples, kv, (needs[0], needs[1]), fields)
        first, last = block.queries.start, block.queries.stop
        for start in range(first, last, step):
            _pass_tile(call, block, slice(start, min(start + step, last)), fields, statistics)
        _close_block(call, block, fields)
    return fields.close("torch")


def _schedule(call: KernelInputs) -> Iterator[tuple[slice, slice, int]]:
    """Blocks of examples and heads, and how many queries a tile has, so that a tile stays within TILE entries."""
    batch, kv_heads, keys, _ = call.value.shape
    queries = call.queries.shape[1]
    per_head = call.groups * queries * keys
    heads = min(kv_heads, max(1, TILE // per_head))
    examples = max(1, TILE // (per_head * kv_heads))
    step = min(queries, max(1, TILE // (call.groups * keys)))
    for first in range(0, batch, examples):
        for head in range(0, kv_heads, heads):
            yield slice(first, min(first + examples, batch)), slice(head, min(head + heads, kv_heads)), step


def spans(flags: Tensor) -> list[tuple[int, int, int]]:
    """Return first True, one after the last True and number of True of each row; (0, 0, 0) where there is none.

    Example:
        >>> spans(torch.tensor([[False, True, False, True, False]]))
        [(1, 4, 2)]
    """
    count = flags.sum(1)
    first = flags.int().argmax(1)
    last = flags.shape[1] - flags.flip(1).int().argmax(1)
    found = torch.stack([first, last, count]) * (count > 0)
    return list(zip(*found.tolist()))


def _common_span(rows: list[tuple[int, int, int]]) -> tuple[slice, bool] | None:
    """Return the places some row needs and whether every row needs all of them; None where no row needs any."""
    some = [row for row in rows if row[2]]
    if not some:
        return None
    start, stop = min(row[0] for row in some), max(row[1] for row in some)
    return slice(start, stop), all(row[2] == stop - start for row in rows)


def _read_block(
    call: KernelInputs, examples: slice, kv: slice, needs: tuple[tuple[slice, bool], tuple[slice, bool]], fields: Fields
) -> Block:
    (keys, all_keys), (queries, all_queries) = needs
    dtype, flags, real = call.dtype, call.keys[examples, keys], call.queries[examples, queries]
    values = call.value[examples, kv, keys].to(dtype)
    padding = None
    if not all_keys:
        values = values * flags[:, None, :, None]
        bare = torch.zeros(flags.shape, dtype=dtype, device=flags.device).masked_fill(~flags, NEVER)
        padding = bare[:, None, None, :].expand(-1, values.shape[1], -1, -1).reshape(-1, 1, flags.shape[1])
    count = flags.sum(1)[:, None].expand(values.shape[:2]).reshape(-1)
    basis = value_basis(values.flatten(0, 1), count, epsilon_of(call.value, call.query, call.key, call.rows))
    fields.put_head("rank", examples, kv, basis.rank)
    fields.put_head("n", examples, kv, count)
    fields.put_head("condition", examples, kv, basis.condition)
    precise = call.output is not None and call.output.dtype in (torch.float32, torch.float64)
    trusted = precise and bool((basis.condition <= WELL_CONDITIONED).all())
    return Block(
        examples,
        kv,
        slice(kv.start * call.groups, kv.stop * call.groups),
        keys,
        queries,
        padding,
        flags[:, None, None, None, :],
        None if all_queries else real[:, None, None, :, None].to(dtype),
        None if call.key is None else call.key[examples, kv, keys].to(dtype).flatten(0, 1),
        values.flatten(0, 1),
        basis,
        trusted,
    )


def _pass_tile(call: KernelInputs, block: Block, queries: slice, fields: Fields, statistics: str) -> None:
    """Form one tile of rows, take its statistics, drop it."""
    weights, logits = _form_rows(call, block, queries)  # (kv heads of all examples, groups * queries, keys)
    sinks = None if logits is None else _sinks_of(call, block, queries)
    if sinks is not None and logits is not None:
        _make_room(weights, logits, sinks)
    shape = (-1, block.kv.stop - block.kv.start, call.groups, queries.stop - queries.start)
    real = None
    if block.weights is not None:
        offset = block.queries.start
        real = block.weights[..., queries.start - offset : queries.stop - offset, :]
        weights.view(*shape, weights.shape[2]).mul_(real)
    places = (block.examples, block.kv, queries)
    received = weights.view(*shape, weights.shape[2]).sum(3)
    fields.add_received(block.examples, block.kv, block.keys, received)
    if statistics == "received":
        return
    largest = weights.amax(-1)
    norm = torch.linalg.vector_norm(weights, dim=-1)
    if logits is None:
        entropy = torch.special.entr(weights).sum(-1)
    else:
        alive = 1.0 if real is None else real.expand(*shape, 1).reshape(norm.shape)
        # The largest weight belongs to the largest logit: log-sum-exp without another exponential. Logits are taken
        # relative to it, or large ones would cost the entropy its digits.
        top = logits.amax(-1)
        spread = -largest.clamp_min(torch.finfo(largest.dtype).tiny).log() * alive
        mass = 1.0 if sinks is None else weights.sum(-1)
        entropy = (spread * mass - torch.linalg.vecdot(weights, logits.sub_(top[..., None]))).clamp_min(0)
        log_sum_exp = top * alive + spread
        if sinks is not None:  # where every weight underflows, the sink is all there is
            log_sum_exp = torch.maximum(log_sum_exp, sinks)
        fields.put_rows("log_sum_exp", *places, log_sum_exp)
    for name, found in (("largest", largest), ("norm", norm), ("entropy", entropy)):
        fields.put_rows(name, *places, found)
    if statistics == "raw":
        return
    basis = block.basis.basis
    if block.trusted and call.output is not None:
        outputs = call.output[block.examples, block.heads, queries].to(weights.dtype)
        if real is not None:
            outputs = outputs * real[:, :, 0]
        reached = outputs.reshape(norm.shape[0], norm.shape[1], -1) @ block.basis.whitening.to(weights.dtype)
    else:
        reached = weights @ basis
    if statistics == "summary":
        left = norm.double().square() - torch.linalg.vector_norm(reached, dim=-1).double().square()
        fields.put_rows("difference_norm", *places, left.clamp_min(0).sqrt())
        return
    seen = torch.bmm(reached, basis.transpose(1, 2), out=logits)
    total = (reached @ basis.sum(1)[:, :, None])[..., 0]
    change = weights.sub_(seen)
    fields.put_rows("difference_norm", *places, torch.linalg.vector_norm(change, dim=-1))
    fields.put_rows("total_variation", *places, change.abs_().sum(-1) / 2)
    fields.put_rows("negative_mass", *places, ((seen.abs_().sum(-1) - total) / 2).clamp_min(0))


def _form_rows(call: KernelInputs, block: Block, queries: slice) -> tuple[Tensor, Tensor | None]:
    """Return a tile of attention, zero at masked keys, and its logits where they were computed."""
    if call.rows is not None:
        rows = call.rows[block.examples, block.heads, queries, block.keys].to(call.dtype)
        rows = rows.where(block.key_flags[:, 0], 0.0)
        if call.by_row:
            rows = rows.where(call.allowed(block.examples, block.heads, queries, block.keys), 0.0)
        if block.weights is not None:
            first = block.queries.start
            rows = rows.where(block.weights[:, 0, :, queries.start - first : queries.stop - first] > 0, 0.0)
        low, high = torch.aminmax(rows)
        if not (bool(low >= 0) and bool(high < torch.inf)):
            raise InvalidInputError(
                "rows has negative, NaN or infinite weights at real keys: pass rows after the softmax"
            )
        copy = rows is call.rows or rows.data_ptr() == call.rows.data_ptr()
        rows = rows.clone() if copy else rows
        return rows.reshape(-1, call.groups * rows.shape[2], rows.shape[3]), None
    assert call.query is not None
    assert block.key is not None
    query = call.query[block.examples, block.heads, queries].to(call.dtype)
    query = query.reshape(block.key.shape[0], -1, query.shape[-1])
    logits = query.new_empty(*query.shape[:2], block.key.shape[1])
    bias = call.bias(block.examples, block.heads, queries, block.keys)
    if bias is not None:
        shape = (call.keys[block.examples].shape[0], block.heads.stop - block.heads.start, -1, -1)
        wide = bias.to(call.dtype).expand(*shape).expand(-1, -1, queries.stop - queries.start, -1)
        wide = wide.where(block.key_flags[:, 0], NEVER)
        added: Tensor | None = wide.reshape(logits.shape)
    else:
        added = block.padding
    beta = 0.0 if added is None else 1.0
    torch.baddbmm(
        logits if added is None else added, query, block.key.transpose(1, 2), beta=beta, alpha=call.scale, out=logits
    )
    if call.by_row:
        allowed = call.allowed(block.examples, block.heads, queries, block.keys)
        allowed = allowed.expand(-1, block.heads.stop - block.heads.start, -1, -1).reshape(logits.shape)
        return torch.softmax(logits.masked_fill_(~allowed, NEVER), -1).mul_(allowed), logits
    return torch.softmax(logits, -1), logits


def _sinks_of(call: KernelInputs, block: Block, queries: slice) -> Tensor | None:
    """The sink of each row of a tile, (kv heads of all examples, groups * queries)."""
    if call.sinks is None:
        return None
    sinks = call.sinks[block.examples, block.heads].to(call.dtype).reshape(-1, call.groups)
    return sinks.repeat_interleave(queries.stop - queries.start, 1)


def _make_room(weights: Tensor, logits: Tensor, sinks: Tensor) -> None:
    """Scale rows that sum to one, in place, by the share that the sink leaves: sigmoid(log-sum-exp - sink)."""
    spread = -weights.amax(-1).log()  # of the keys alone: log-sum-exp minus the largest logit
    weights.mul_(torch.sigmoid(logits.amax(-1) - sinks + spread)[..., None])


def _close_block(call: KernelInputs, block: Block, fields: Fields) -> None:
    """Received effective weights of the block, r P = (r U) U^T, and no difference where there are few keys."""
    basis = block.basis.basis
    places = (block.examples, block.kv, block.keys)
    raw = fields.received_of(*places).flatten(0, 1)  # (kv heads of all examples, groups, keys)
    if call.output is not None:
        outputs = call.output[block.examples, block.heads, block.queries].to(call.dtype)
        outputs = outputs if block.weights is None else outputs * block.weights[:, :, 0]
        check_output(outputs.sum(2).view(*raw.shape[:2], -1), raw @ block.values, block.values, call)
    if fields.effective is not None:
        fields.put_effective(*places, (raw.to(basis.dtype) @ basis) @ basis.transpose(1, 2), block.basis.rank)
