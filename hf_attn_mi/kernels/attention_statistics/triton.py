"""`attention_statistics` in Triton, where all queries of an example see the same keys: tiles that never leave the chip.

Two kernels. Rows: an online softmax gives the largest logit and weight, entropy and norm of each row and the product of
the row with the basis, as flash attention does with the values. Received: the tiles formed again with keys outside and
queries inside, so that sums over queries need no atomic addition and are the same on every run.

Half-precision input is multiplied in half precision with float32 sums, as flash attention does; float32 input in
full float32, not TF32.
"""

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from hf_attn_mi.kernels.attention_statistics.inputs import KernelInputs
from hf_attn_mi.kernels.attention_statistics.operation import AttentionStatistics, Sums
from hf_attn_mi.kernels.effective.value_basis import epsilon_of, value_basis
from hf_attn_mi.kernels.inputs import check_outputs

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # its products do not support bfloat16


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
    """Attention from logits, the row's largest logit and weight: with large logits a log-sum-exp loses precision."""
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
    total = tl.where(alive, total, 1.0)
    largest = 1.0 / total
    entropy = tl.maximum(tl.log(total) - moment * largest, 0.0)  # log-sum-exp minus the mean logit
    place = head_id * queries + rows
    tl.store(top_out + place, tl.where(alive, top, 0.0), mask=row_in)
    tl.store(largest_out + place, tl.where(alive, largest, 0.0), mask=row_in)
    tl.store(entropy_out + place, tl.where(alive, entropy, 0.0), mask=row_in)
    tl.store(norm_out + place, tl.where(alive, tl.sqrt(squares) * largest, 0.0), mask=row_in)
    if WITH_BASIS:
        reached = tl.where(alive[:, None], reached * largest[:, None], 0.0)
        tl.store(
            reached_out + place[:, None] * DIM + dims[None, :],
            reached,
            mask=row_in[:, None] & (dims < DIM)[None, :],
        )


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


def statistics_triton(inputs: KernelInputs, effective: bool) -> AttentionStatistics:
    """Return the statistics of a call whose queries of one example all see the same keys, on CUDA or interpreted."""
    sums = Sums.zeros(inputs)
    batch, kv_heads, keys, dim = inputs.value.shape
    lead = (batch, kv_heads, inputs.groups)
    values = (inputs.value.float() * inputs.keys[:, None, :, None]).flatten(0, 1)
    count = inputs.keys.sum(1)[:, None].expand(batch, kv_heads).reshape(-1)
    space = value_basis(values, count, epsilon_of(inputs.value, inputs.query, inputs.key))
    rows, reached, received = _launch(inputs, space.basis, effective)
    for heads, numbers in ((sums.rank, space.rank), (sums.n, count)):
        heads[:] = numbers.view(batch, kv_heads)[..., None]
    norm = rows["norm"].double().square()
    sums.entropy.copy_(rows["entropy"].sum(-1).view(lead))
    sums.norm.copy_(norm.sum(-1).view(lead))
    sums.received.copy_(received.view(*lead, keys))
    if inputs.output is not None:
        outputs = torch.where(inputs.queries[:, None, :, None], inputs.output, 0.0).float().sum(2)
        outputs = outputs.view(batch * kv_heads, -1, dim)
        expected = sums.received.flatten(0, 1) @ values
        check_outputs("output is", outputs, expected, values, inputs.queries.sum(1).amax(), inputs.output.dtype)
    if effective:
        left = (norm - reached.double().square().sum(-1)).clamp_min(0)
        sums.change.copy_(left.sum(-1).view(lead))
        sums.close_shared(slice(0, batch), slice(0, kv_heads), slice(0, keys), space.basis)
    return sums.result(effective, "triton")


def _launch(inputs: KernelInputs, basis: Tensor, effective: bool) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Run the kernels; return row statistics, rows times basis, and received weights summed over queries."""
    assert inputs.query is not None
    assert inputs.key is not None
    query, key, keys = inputs.query, inputs.key, inputs.key.shape[2]
    if query.dtype != key.dtype or query.dtype == torch.float64:
        query, key = query.float(), key.float()
    basis = basis.to(query.dtype).contiguous()
    if INTERPRETED and query.dtype == torch.bfloat16:
        query, key, basis = query.float(), key.float(), basis.float()
    batch, heads, queries, qk_dim = query.shape
    bias = inputs.bias(slice(0, batch), slice(0, heads), slice(0, queries), slice(0, keys))
    offsets = [0, 0, 0, 0] if bias is None else [s if n > 1 else 0 for s, n in zip(bias.stride(), bias.shape)]
    biases = query if bias is None else bias
    flags = inputs.keys.to(torch.uint8).contiguous(), inputs.queries.to(torch.uint8).contiguous()
    common = *query.stride(), *key.stride(), *offsets, inputs.scale, heads, inputs.groups, queries, keys
    sizes = _block_sizes(qk_dim, basis.shape[2])
    narrow = {name: sizes[name] for name in sizes if name not in ("DIM", "BLOCK_D")}
    lead, device = (batch * heads,), query.device
    names = "top", "largest", "entropy", "norm"
    rows = {name: torch.empty(*lead, queries, dtype=torch.float32, device=device) for name in names}
    reached = torch.empty(*lead, queries, basis.shape[2], dtype=torch.float32, device=device)
    received = torch.empty(*lead, keys, dtype=torch.float32, device=device)
    with torch.cuda.device_of(query):
        _rows_kernel[(*lead, triton.cdiv(queries, sizes["BLOCK_M"]))](
            query,
            key,
            basis,
            biases,
            *flags,
            *rows.values(),
            reached,
            *common,
            **sizes,
            HAS_BIAS=bias is not None,
            WITH_BASIS=effective,
        )
        _received_kernel[(*lead, triton.cdiv(keys, sizes["BLOCK_N"]))](
            query,
            key,
            biases,
            *flags,
            rows["top"],
            rows["largest"],
            received,
            *common,
            **narrow,
            HAS_BIAS=bias is not None,
        )
    return rows, reached, received


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
