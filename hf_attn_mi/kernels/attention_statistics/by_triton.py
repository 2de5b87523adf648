"""The Triton pass: the PyTorch pass of `statistics_by_tiles` with tiles that never leave the chip.

Three kernels. Rows: an online softmax gives log-sum-exp, entropy, largest weight and norm of each row and the product
of the row with the basis, as flash attention does with the values. OutputChange: each tile of attention is formed again
and compared with its effective tile. Received: the same tiles with keys outside and queries inside, so that sums over
queries need no atomic addition and come out the same on every run.

Half-precision input is multiplied in half precision with float32 sums, as flash attention does; float32 input in
full float32, not TF32.
"""

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from hf_attn_mi.kernels.attention_statistics.fields import Fields
from hf_attn_mi.kernels.attention_statistics.result import AttentionStatistics
from hf_attn_mi.kernels.checks import KernelInputs, check_output
from hf_attn_mi.kernels.effective.gram import epsilon_of, value_basis

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # its products do not know bfloat16


@triton.jit
def _logits(query, key, bias_ptr, bias_row, bias_col, scale, row_ids, col_ids, row_in, col_in, HAS_BIAS: tl.constexpr):
    """Logits of a tile; masked keys get a finite number so low that their weight is exactly zero."""
    logits = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
    if HAS_BIAS:
        places = row_ids[:, None] * bias_row + col_ids[None, :] * bias_col
        inside = row_in[:, None] & col_in[None, :]
        logits += tl.load(bias_ptr + places, mask=inside, other=0.0).to(tl.float32)
    return tl.where(col_in[None, :], logits, -1e30)


@triton.jit
def _weights(logits, top, largest, inside):
    """Attention again: relative to the row's largest logit, because large ones cost log-sum-exp its digits."""
    return tl.where(inside, tl.exp(tl.where(inside, logits - top[:, None], 0.0)) * largest[:, None], 0.0)


@triton.jit
def _load_tile(pointer, ids, stride, dims, dim_stride, inside, WIDTH: tl.constexpr):
    return tl.load(
        pointer + ids[:, None] * stride + dims[None, :] * dim_stride,
        mask=inside[:, None] & (dims < WIDTH)[None, :],
        other=0.0,
    )


@triton.jit
def _rows_kernel(
    query,
    key,
    basis,
    bias,
    sinks,
    key_flags,
    query_flags,
    top_out,
    largest_out,
    entropy_out,
    norm_out,
    reached_out,
    q_batch,
    q_head,
    q_row,
    q_dim,
    k_batch,
    k_head,
    k_row,
    k_dim,
    b_batch,
    b_head,
    b_row,
    b_col,
    scale,
    heads,
    groups,
    queries,
    keys,
    QK_DIM: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_QK: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    WITH_BASIS: tl.constexpr,
):
    """Row statistics and rows times basis, one program for BLOCK_M rows of a head."""
    head_id = tl.program_id(0).to(tl.int64)
    batch, head = head_id // heads, head_id % heads
    kv = head // groups
    rows = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    row_in = rows < queries
    qk_dims = tl.arange(0, BLOCK_QK)
    dims = tl.arange(0, BLOCK_D)
    q = _load_tile(query + batch * q_batch + head * q_head, rows, q_row, qk_dims, q_dim, row_in, QK_DIM)
    top = tl.full([BLOCK_M], -1e30, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    moment = tl.zeros([BLOCK_M], tl.float32)  # sum of weight times (logit - top)
    squares = tl.zeros([BLOCK_M], tl.float32)
    reached = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for start in range(0, keys, BLOCK_N):
        cols = start + tl.arange(0, BLOCK_N)
        col_in = tl.load(key_flags + batch * keys + cols, mask=cols < keys, other=0) != 0
        k = _load_tile(key + batch * k_batch + kv * k_head, cols, k_row, qk_dims, k_dim, col_in, QK_DIM)
        logits = _logits(
            q, k, bias + batch * b_batch + head * b_head, b_row, b_col, scale, rows, cols, row_in, col_in, HAS_BIAS
        )
        new_top = tl.maximum(top, tl.max(logits, 1))
        shift = logits - new_top[:, None]
        weights = tl.where(col_in[None, :], tl.exp(shift), 0.0)
        fade = tl.exp(top - new_top)
        moment = fade * (moment + (top - new_top) * total) + tl.sum(weights * shift, 1)
        total = fade * total + tl.sum(weights, 1)
        squares = fade * fade * squares + tl.sum(weights * weights, 1)
        if WITH_BASIS:
            u = _load_tile(basis + (batch * (heads // groups) + kv) * keys * DIM, cols, DIM, dims, 1, col_in, DIM)
            reached = reached * fade[:, None] + tl.dot(weights.to(u.dtype), u, input_precision="ieee")
        top = new_top
    alive = (tl.load(query_flags + batch * queries + rows, mask=row_in, other=0) != 0) & (total > 0)
    largest = 1.0 / tl.where(alive, total, 1.0)
    mass = 1.0
    spread = tl.log(tl.where(alive, total, 1.0))  # log-sum-exp minus the largest logit
    if HAS_SINKS:
        sink = tl.load(sinks + head_id)
        high = tl.maximum(top, sink)  # relative to the larger one, or a large sink would overflow
        whole = tl.where(alive, total * tl.exp(top - high) + tl.exp(sink - high), 1.0)
        largest = tl.exp(top - high) / whole
        mass = total * largest
        spread = tl.log(whole) + high - top
    place = head_id * queries + rows
    tl.store(top_out + place, tl.where(alive, top, 0.0), mask=row_in)
    tl.store(largest_out + place, tl.where(alive, largest, 0.0), mask=row_in)
    if WITH_BASIS:
        entropy = tl.maximum(spread * mass - moment * largest, 0.0)
        tl.store(entropy_out + place, tl.where(alive, entropy, 0.0), mask=row_in)
        tl.store(norm_out + place, tl.where(alive, tl.sqrt(squares) * largest, 0.0), mask=row_in)
        reached = tl.where(alive[:, None], reached * largest[:, None], 0.0)
        tl.store(
            reached_out + place[:, None] * DIM + dims[None, :],
            reached,
            mask=row_in[:, None] & (dims < DIM)[None, :],
        )


@triton.jit
def _change_kernel(
    query,
    key,
    basis,
    bias,
    key_flags,
    query_flags,
    top_in,
    largest_in,
    reached_in,
    norm_out,
    variation_out,
    negative_out,
    q_batch,
    q_head,
    q_row,
    q_dim,
    k_batch,
    k_head,
    k_row,
    k_dim,
    b_batch,
    b_head,
    b_row,
    b_col,
    scale,
    heads,
    groups,
    queries,
    keys,
    QK_DIM: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_QK: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    """How effective rows differ from rows, one program for BLOCK_M rows of a head."""
    head_id = tl.program_id(0).to(tl.int64)
    batch, head = head_id // heads, head_id % heads
    kv = head // groups
    rows = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    row_in = rows < queries
    qk_dims = tl.arange(0, BLOCK_QK)
    dims = tl.arange(0, BLOCK_D)
    place = head_id * queries + rows
    q = _load_tile(query + batch * q_batch + head * q_head, rows, q_row, qk_dims, q_dim, row_in, QK_DIM)
    z = _load_tile(reached_in + head_id * queries * DIM, rows, DIM, dims, 1, row_in, DIM)
    top = tl.load(top_in + place, mask=row_in, other=0.0)
    largest = tl.load(largest_in + place, mask=row_in, other=0.0)
    alive = tl.load(query_flags + batch * queries + rows, mask=row_in, other=0) != 0
    squares = tl.zeros([BLOCK_M], tl.float32)
    variation = tl.zeros([BLOCK_M], tl.float32)
    negative = tl.zeros([BLOCK_M], tl.float32)
    for start in range(0, keys, BLOCK_N):
        cols = start + tl.arange(0, BLOCK_N)
        col_in = tl.load(key_flags + batch * keys + cols, mask=cols < keys, other=0) != 0
        k = _load_tile(key + batch * k_batch + kv * k_head, cols, k_row, qk_dims, k_dim, col_in, QK_DIM)
        u = _load_tile(basis + (batch * (heads // groups) + kv) * keys * DIM, cols, DIM, dims, 1, col_in, DIM)
        logits = _logits(
            q, k, bias + batch * b_batch + head * b_head, b_row, b_col, scale, rows, cols, row_in, col_in, HAS_BIAS
        )
        inside = alive[:, None] & col_in[None, :]
        weights = _weights(logits, top, largest, inside)
        seen = tl.dot(z.to(u.dtype), tl.trans(u), input_precision="ieee")
        change = weights - seen
        squares += tl.sum(change * change, 1)
        variation += tl.sum(tl.abs(change), 1)
        negative += tl.sum(tl.maximum(-seen, 0.0), 1)
    tl.store(norm_out + place, tl.sqrt(squares), mask=row_in)
    tl.store(variation_out + place, variation * 0.5, mask=row_in)
    tl.store(negative_out + place, negative, mask=row_in)


@triton.jit
def _received_kernel(
    query,
    key,
    bias,
    key_flags,
    query_flags,
    top_in,
    largest_in,
    received_out,
    q_batch,
    q_head,
    q_row,
    q_dim,
    k_batch,
    k_head,
    k_row,
    k_dim,
    b_batch,
    b_head,
    b_row,
    b_col,
    scale,
    heads,
    groups,
    queries,
    keys,
    QK_DIM: tl.constexpr,
    BLOCK_QK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    """Attention received, summed over queries, one program for BLOCK_N keys of a head."""
    head_id = tl.program_id(0).to(tl.int64)
    batch, head = head_id // heads, head_id % heads
    kv = head // groups
    cols = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    col_in = tl.load(key_flags + batch * keys + cols, mask=cols < keys, other=0) != 0
    qk_dims = tl.arange(0, BLOCK_QK)
    k = _load_tile(key + batch * k_batch + kv * k_head, cols, k_row, qk_dims, k_dim, col_in, QK_DIM)
    received = tl.zeros([BLOCK_N], tl.float32)
    for start in range(0, queries, BLOCK_M):
        rows = start + tl.arange(0, BLOCK_M)
        row_in = rows < queries
        alive = tl.load(query_flags + batch * queries + rows, mask=row_in, other=0) != 0
        q = _load_tile(query + batch * q_batch + head * q_head, rows, q_row, qk_dims, q_dim, row_in, QK_DIM)
        top = tl.load(top_in + head_id * queries + rows, mask=row_in, other=0.0)
        largest = tl.load(largest_in + head_id * queries + rows, mask=row_in, other=0.0)
        logits = _logits(
            q, k, bias + batch * b_batch + head * b_head, b_row, b_col, scale, rows, cols, row_in, col_in, HAS_BIAS
        )
        inside = alive[:, None] & col_in[None, :]
        received += tl.sum(_weights(logits, top, largest, inside), 0)
    tl.store(received_out + head_id * keys + cols, received, mask=cols < keys)


def statistics_by_triton(call: KernelInputs, statistics: str) -> AttentionStatistics:
    """Return the analysis of a call whose queries of one example all see the same keys, on CUDA or interpreted."""
    fields = Fields.empty(call, statistics)
    batch, kv_heads = call.value.shape[:2]
    values = (call.value.float() * call.keys[:, None, :, None]).flatten(0, 1)
    count = call.keys.sum(1)[:, None].expand(batch, kv_heads).reshape(-1)
    space = value_basis(values, count, epsilon_of(call.value, call.query, call.key))
    whole = slice(0, batch), slice(0, kv_heads)
    for name, found in (("rank", space.rank), ("n", count), ("condition", space.condition)):
        fields.put_head(name, *whole, found)
    rows, reached, received = _launch(call, statistics, space.basis)
    rows["log_sum_exp"] = rows["top"] - rows["largest"].clamp_min(torch.finfo(torch.float32).tiny).log()
    if call.sinks is not None:  # where every weight underflows, the sink is all there is
        sinks = call.sinks.float().reshape(-1, 1)
        rows["log_sum_exp"] = torch.maximum(rows["log_sum_exp"], sinks)
    if statistics == "summary":
        left = rows["norm"].double().square() - reached.double().square().sum(-1)
        rows["difference_norm"] = left.clamp_min(0).sqrt().float()
    for name in fields.rows:
        fields.put_rows(name, *whole, slice(0, call.queries.shape[1]), rows[name])
    return _close(call, fields, received, values, space.basis, space.rank)


def _launch(call: KernelInputs, statistics: str, basis: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Run the kernels; return row statistics, rows times basis, and received weights summed over queries."""
    assert call.query is not None
    assert call.key is not None
    query, key, keys = call.query, call.key, call.key.shape[2]
    if query.dtype != key.dtype or query.dtype == torch.float64:
        query, key = query.float(), key.float()
    basis = basis.to(query.dtype).contiguous()
    if INTERPRETED and query.dtype == torch.bfloat16:
        query, key, basis = query.float(), key.float(), basis.float()
    batch, heads, queries, qk_dim = query.shape
    bias = call.bias(slice(0, batch), slice(0, heads), slice(0, queries), slice(0, keys))
    offsets = [0, 0, 0, 0] if bias is None else [s if n > 1 else 0 for s, n in zip(bias.stride(), bias.shape)]
    given = query, key, basis, query if bias is None else bias
    sinks = query if call.sinks is None else call.sinks.float().contiguous()
    flags = call.keys.to(torch.uint8).contiguous(), call.queries.to(torch.uint8).contiguous()
    common = *query.stride(), *key.stride(), *offsets, call.scale, heads, call.groups, queries, keys
    sizes = _block_sizes(qk_dim, basis.shape[2])
    narrow = {name: sizes[name] for name in sizes if name not in ("DIM", "BLOCK_D")}
    lead, device = (batch * heads,), query.device
    names = "top", "largest", "entropy", "norm", "difference_norm", "total_variation", "negative_mass"
    rows = {name: torch.empty(*lead, queries, dtype=torch.float32, device=device) for name in names}
    reached = torch.empty(*lead, queries, basis.shape[2], dtype=torch.float32, device=device)
    received = torch.empty(*lead, keys, dtype=torch.float32, device=device)
    rows_grid = (*lead, triton.cdiv(queries, sizes["BLOCK_M"]))
    keys_grid = (*lead, triton.cdiv(keys, sizes["BLOCK_N"]))
    with torch.cuda.device_of(query):
        _rows_kernel[rows_grid](
            *given,
            sinks,
            *flags,
            rows["top"],
            rows["largest"],
            rows["entropy"],
            rows["norm"],
            reached,
            *common,
            **sizes,
            HAS_BIAS=bias is not None,
            HAS_SINKS=call.sinks is not None,
            WITH_BASIS=statistics != "received",
        )
        if statistics == "all":
            _change_kernel[rows_grid](
                *given,
                *flags,
                rows["top"],
                rows["largest"],
                reached,
                rows["difference_norm"],
                rows["total_variation"],
                rows["negative_mass"],
                *common,
                **sizes,
                HAS_BIAS=bias is not None,
            )
        _received_kernel[keys_grid](
            query,
            key,
            given[3],
            *flags,
            rows["top"],
            rows["largest"],
            received,
            *common,
            **narrow,
            HAS_BIAS=bias is not None,
        )
    return rows, reached, received


def _close(
    call: KernelInputs, fields: Fields, received: Tensor, values: Tensor, basis: Tensor, rank: Tensor
) -> AttentionStatistics:
    """Received effective weights r P = (r U) U^T, the check of the output, the means."""
    batch, kv_heads, keys, dim = call.value.shape
    places = slice(0, batch), slice(0, kv_heads), slice(0, keys)
    fields.add_received(*places, received.view(fields.received.shape))
    raw = received.view(batch * kv_heads, call.groups, keys)
    if call.output is not None:
        outputs = torch.where(call.queries[:, None, :, None], call.output, 0.0).float().sum(2)
        check_output(outputs.view(batch * kv_heads, -1, dim), raw @ values, values, call)
    fields.put_effective(*places, (raw @ basis) @ basis.transpose(1, 2), rank)
    return fields.close("triton")


def _block_sizes(qk_dim: int, dim: int) -> dict[str, int]:
    """Tile sizes: tensor cores need at least 16 of each; wide heads get small tiles, which must fit on the chip."""
    widest = max(qk_dim, dim)
    rows, cols = (64, 64) if widest <= 64 else (64, 32) if widest <= 128 else (32, 32)
    return {
        "QK_DIM": qk_dim,
        "DIM": dim,
        "BLOCK_QK": max(16, triton.next_power_of_2(qk_dim)),
        "BLOCK_D": max(16, triton.next_power_of_2(dim)),
        "BLOCK_M": rows,
        "BLOCK_N": cols,
        "num_warps": 4,
        "num_stages": 2 if widest <= 128 else 1,
    }
