"""`attention_statistics` in PyTorch where all queries of an example see the same keys: one basis a head."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hf_attn_mi.kernels.attention_statistics.inputs import KernelInputs
from hf_attn_mi.kernels.attention_statistics.operation import AttentionStatistics, Sums
from hf_attn_mi.kernels.attention_statistics.torch_per_query import statistics_per_query
from hf_attn_mi.kernels.effective.value_basis import (
    WELL_CONDITIONED,
    ValueBasis,
    epsilon_of,
    independent_values,
    value_basis,
)
from hf_attn_mi.kernels.inputs import check_attention_weights, check_outputs

TILE = 1 << 19  # entries of a tile of attention: two tiles fit about into the caches
MANY_KEYS = 512  # from here on a tile is formed with the keys that its queries may see, where those differ
NEVER = -1e30  # logit of a masked key: its weight underflows to exactly zero, and zero times it is zero


@dataclass(frozen=True, eq=False)
class Block:
    """Some heads of some examples: what every tile of their queries needs."""

    examples: slice
    kv: slice  # key and value heads
    heads: slice  # query heads
    keys: slice  # from the first real key to the last
    queries: slice
    padding: Tensor | None  # (kv heads of all examples, 1, keys) additive, None if every key is real
    key_flags: Tensor  # (examples, 1, 1, 1, keys) bool
    weights: Tensor | None  # (examples, 1, 1, queries, 1) 1 for real queries, None if every query is real
    key: Tensor | None  # (kv heads of all examples, keys, qk_dim)
    values: Tensor  # (kv heads of all examples, keys, head_dim), zero at pads
    basis: ValueBasis | None  # None where the values of every head are independent: effective rows are the rows
    trusted: bool  # outputs are exact enough to be used as rows times values


def statistics_torch(inputs: KernelInputs, effective: bool) -> AttentionStatistics:
    """Return the statistics of a call, in tiles of queries.

    Raises:
        InvalidInputError: rows that are not attention, or an output that is not rows times values.
    """
    if inputs.per_query_mask and (effective or inputs.per_head):
        return statistics_per_query(inputs, effective)
    sums = Sums.zeros(inputs)
    keys, queries = spans(inputs.keys), spans(inputs.queries)
    seen: dict[tuple[int, int], slice] = {}
    for examples, kv, step in _schedule(inputs):
        needs = _common_span(keys[examples]), _common_span(queries[examples])
        if needs[0] is None or needs[1] is None:
            continue
        block = _read_block(inputs, examples, kv, (needs[0], needs[1]), sums, effective)
        first, last = block.queries.start, block.queries.stop
        for start in range(first, last, step):
            tile = slice(start, min(start + step, last))
            _pass_tile(inputs, _narrowed(inputs, block, tile, seen), tile, sums, effective)
        _close_block(inputs, block, sums, effective)
    return sums.result(effective, "torch")


def _schedule(inputs: KernelInputs) -> Iterator[tuple[slice, slice, int]]:
    """Blocks of examples and heads, and how many queries a tile has, so that a tile stays within TILE entries."""
    batch, kv_heads, keys, _ = inputs.value.shape
    queries = inputs.queries.shape[1]
    per_head = inputs.groups * queries * keys
    heads = min(kv_heads, max(1, TILE // per_head))
    examples = max(1, TILE // (per_head * kv_heads))
    step = min(queries, max(1, TILE // (inputs.groups * keys)))
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
    return list(zip(*(torch.stack([first, last, count]) * (count > 0)).tolist()))


def _common_span(rows: list[tuple[int, int, int]]) -> tuple[slice, bool] | None:
    """Return the places some row needs and whether every row needs all of them; None if no row needs any."""
    some = [row for row in rows if row[2]]
    if not some:
        return None
    start, stop = min(row[0] for row in some), max(row[1] for row in some)
    return slice(start, stop), all(row[2] == stop - start for row in rows)


def _read_block(
    inputs: KernelInputs,
    examples: slice,
    kv: slice,
    needs: tuple[tuple[slice, bool], tuple[slice, bool]],
    sums: Sums,
    effective: bool,
) -> Block:
    (keys, all_keys), (queries, all_queries) = needs
    dtype, flags, real = inputs.dtype, inputs.keys[examples, keys], inputs.queries[examples, queries]
    values = inputs.value[examples, kv, keys].to(dtype)
    padding = None
    if not all_keys:
        values = values * flags[:, None, :, None]
        bare = torch.zeros(flags.shape, dtype=dtype, device=flags.device).masked_fill(~flags, NEVER)
        padding = bare[:, None, None, :].expand(-1, values.shape[1], -1, -1).reshape(-1, 1, flags.shape[1])
    count = flags.sum(1)[:, None].expand(values.shape[:2]).reshape(-1)
    epsilon = epsilon_of(inputs.value, inputs.query, inputs.key, inputs.rows)
    flat, of_heads = values.flatten(0, 1), flags[:, None].expand(values.shape[:3]).flatten(0, 1)
    known = bool(independent_values(flat, of_heads, epsilon).all())  # then the rank is the number of keys
    basis = None if known else value_basis(flat, count, epsilon, columns=effective)
    for heads, numbers in ((sums.rank, count if basis is None else basis.rank), (sums.n, count)):
        heads[examples, kv] = numbers.view(values.shape[:2])[..., None]
    precise = inputs.output is not None and inputs.output.dtype in (torch.float32, torch.float64)
    trusted = basis is not None and precise and bool((basis.condition <= WELL_CONDITIONED).all())
    return Block(
        examples,
        kv,
        slice(kv.start * inputs.groups, kv.stop * inputs.groups),
        keys,
        queries,
        padding,
        flags[:, None, None, None, :],
        None if all_queries else real[:, None, None, :, None].to(dtype),
        None if inputs.key is None else inputs.key[examples, kv, keys].to(dtype).flatten(0, 1),
        flat,
        basis,
        trusted,
    )


def _narrowed(inputs: KernelInputs, block: Block, queries: slice, seen: dict[tuple[int, int], slice]) -> Block:
    """The block with the keys that some of these queries may see: a band of a window, or those up to a causal end.

    Args:
        seen: the keys by the first example and the first query, which are the same for all heads; is filled.
    """
    if not inputs.per_query_mask or block.keys.stop - block.keys.start < MANY_KEYS:
        return block
    place = block.examples.start, queries.start
    if place not in seen:
        allowed = inputs.allowed(block.examples, block.heads, queries, block.keys)
        ((first, last, _),) = spans(allowed.flatten(0, 2).any(0)[None])
        # a tile whose queries see no key keeps one: its weights are zero
        seen[place] = slice(first, max(last, first + 1))
    part = seen[place]
    return replace(
        block,
        keys=slice(block.keys.start + part.start, block.keys.start + part.stop),
        padding=None if block.padding is None else block.padding[..., part],
        key_flags=block.key_flags[..., part],
        key=None if block.key is None else block.key[:, part],
    )


def _pass_tile(inputs: KernelInputs, block: Block, queries: slice, sums: Sums, effective: bool) -> None:
    """Form one tile of rows, add its statistics, drop it."""
    weights, logits = _form_rows(inputs, block, queries)  # (kv heads of all examples, groups * queries, keys)
    shape = (-1, block.kv.stop - block.kv.start, inputs.groups, queries.stop - queries.start)
    real = None
    if block.weights is not None:
        offset = block.queries.start
        real = block.weights[..., queries.start - offset : queries.stop - offset, :]
        weights.view(*shape, weights.shape[2]).mul_(real)
    sums.received[block.examples, block.kv, :, block.keys] += weights.view(*shape, weights.shape[2]).sum(3)
    norm = torch.linalg.vector_norm(weights, dim=-1).double().square()
    if logits is None:
        entropy = torch.special.entr(weights).sum(-1)
    else:
        # The largest weight belongs to the largest logit, so that its logarithm is the largest logit minus the
        # log-sum-exp, without another exponential. Logits are taken relative to the largest one, because large logits
        # would make the entropy lose precision.
        largest = weights.amax(-1)
        spread = -largest.clamp_min(torch.finfo(largest.dtype).tiny).log()
        if real is not None:
            spread = spread * real.expand(*shape, 1).reshape(spread.shape)
        entropy = spread - torch.linalg.vecdot(weights, logits.sub_(logits.amax(-1)[..., None]))
    heads = block.examples, block.kv
    sums.entropy[heads] += entropy.clamp_min(0).view(shape).sum(-1)
    sums.norm[heads] += norm.view(shape).sum(-1)
    if not effective or block.basis is None:
        return
    if block.trusted and inputs.output is not None:
        outputs = inputs.output[block.examples, block.heads, queries].to(weights.dtype)
        if real is not None:
            outputs = outputs * real[:, :, 0]
        reached = outputs.reshape(*norm.shape, -1) @ block.basis.whitening.to(weights.dtype)
    else:
        reached = weights @ block.basis.basis
    left = norm - torch.linalg.vector_norm(reached, dim=-1).double().square()
    sums.change[heads] += left.clamp_min(0).view(shape).sum(-1)


def _form_rows(inputs: KernelInputs, block: Block, queries: slice) -> tuple[Tensor, Tensor | None]:
    """Return a tile of attention, zero at masked keys, and its logits where they were computed."""
    if inputs.rows is not None:
        rows = inputs.rows[block.examples, block.heads, queries, block.keys].to(inputs.dtype)
        rows = rows.where(block.key_flags[:, 0], 0.0)
        if inputs.per_query_mask:
            rows = rows.where(inputs.allowed(block.examples, block.heads, queries, block.keys), 0.0)
        if block.weights is not None:
            first = block.queries.start
            rows = rows.where(block.weights[:, 0, :, queries.start - first : queries.stop - first] > 0, 0.0)
        check_attention_weights("rows", *torch.aminmax(rows))
        copy = rows is inputs.rows or rows.data_ptr() == inputs.rows.data_ptr()
        rows = rows.clone() if copy else rows
        return rows.reshape(-1, inputs.groups * rows.shape[2], rows.shape[3]), None
    assert inputs.query is not None
    assert block.key is not None
    query = inputs.query[block.examples, block.heads, queries].to(inputs.dtype)
    query = query.reshape(block.key.shape[0], -1, query.shape[-1])
    logits = query.new_empty(*query.shape[:2], block.key.shape[1])
    bias = inputs.bias(block.examples, block.heads, queries, block.keys)
    if bias is not None:
        shape = (inputs.keys[block.examples].shape[0], block.heads.stop - block.heads.start, -1, -1)
        wide = bias.to(inputs.dtype).expand(*shape).expand(-1, -1, queries.stop - queries.start, -1)
        wide = wide.where(block.key_flags[:, 0], NEVER)
        added: Tensor | None = wide.reshape(logits.shape)
    else:
        added = block.padding
    beta = 0.0 if added is None else 1.0
    torch.baddbmm(
        logits if added is None else added, query, block.key.transpose(1, 2), beta=beta, alpha=inputs.scale, out=logits
    )
    if inputs.per_query_mask:
        allowed = inputs.allowed(block.examples, block.heads, queries, block.keys)
        by_head = (allowed.shape[0], -1, *allowed.shape[2:])
        logits.view(by_head).masked_fill_(~allowed, NEVER)
        weights = torch.softmax(logits, -1)
        if not bool(allowed.any(-1).all()):  # a row without a key; the weights of masked keys of others are zero
            weights.view(by_head).mul_(allowed)
        return weights, logits
    return torch.softmax(logits, -1), logits


def _close_block(inputs: KernelInputs, block: Block, sums: Sums, effective: bool) -> None:
    """Check the output and fill in the received effective weights of the block."""
    if inputs.output is not None:
        outputs = inputs.output[block.examples, block.heads, block.queries].to(inputs.dtype)
        outputs = outputs if block.weights is None else outputs * block.weights[:, :, 0]
        raw = sums.received[block.examples, block.kv, :, block.keys].flatten(0, 1)
        check_outputs(
            "output is",
            outputs.sum(2).view(*raw.shape[:2], -1),
            raw @ block.values,
            block.values,
            inputs.queries.sum(1).amax(),
            inputs.output.dtype,
        )
    if effective:
        sums.close_shared(block.examples, block.kv, block.keys, None if block.basis is None else block.basis.basis)
