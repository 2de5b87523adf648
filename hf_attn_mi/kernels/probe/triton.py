"""Probe information in Triton: a block of tokens is read once, its logits never leave the registers.

States of half precision are widened to float32 before the product, which is IEEE float32, not TF32: the directions of a
whitened discriminant are large, and a posterior is an exponential of the product.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _probe_kernel(
    states,
    directions,
    bias,
    log_prior,
    outputs,
    kl_out,
    gained_out,
    example_stride,
    row_stride,
    dim_stride,
    outputs_stride,
    tokens,
    rows,
    DIM: tl.constexpr,
    CLASSES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    WITH_OUTPUTS: tl.constexpr,
):
    """Divergence and V-information of BLOCK_M tokens."""
    row = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    row_in = row < rows
    example = row // tokens
    place = states + example * example_stride + (row % tokens) * row_stride
    classes = tl.arange(0, BLOCK_K)
    class_in = classes < CLASSES
    logits = tl.zeros([BLOCK_M, BLOCK_K], tl.float32)
    for start in range(0, DIM, BLOCK_D):
        dims = start + tl.arange(0, BLOCK_D)
        dim_in = dims < DIM
        h = tl.load(place[:, None] + dims[None, :] * dim_stride, mask=row_in[:, None] & dim_in[None, :], other=0.0)
        w = tl.load(
            directions + classes[:, None] * DIM + dims[None, :], mask=class_in[:, None] & dim_in[None, :], other=0.0
        )
        logits += tl.dot(h.to(tl.float32), tl.trans(w), input_precision="ieee")
    b = tl.load(bias + classes, mask=class_in, other=-float("inf"))
    known = b > -float("inf")  # neither padding, nor excluded, nor of prior zero
    p = tl.load(log_prior + classes, mask=class_in, other=0.0)
    possible = class_in & (p > -float("inf"))
    logits = tl.where(known[None, :], logits + tl.where(known, b, 0.0)[None, :], -float("inf"))
    shifted = logits - tl.max(logits, 1)[:, None]
    weights = tl.exp(shifted)
    total = tl.sum(weights, 1)
    ratio = shifted - tl.log(total)[:, None] - tl.where(possible, p, 0.0)[None, :]
    q = weights / total[:, None]
    # Not tl.maximum alone: it drops the NaN that tells the caller of states that are not finite.
    kl = tl.sum(tl.where(q > 0, q * ratio, 0.0), 1)
    tl.store(kl_out + row, tl.where(kl < 0, 0.0, kl) + 0.0 * total, mask=row_in)
    if WITH_OUTPUTS:
        inside = row_in[:, None] & possible[None, :]
        weight = tl.load(outputs + example[:, None] * outputs_stride + classes[None, :], mask=inside, other=0.0)
        tl.store(gained_out + row, tl.sum(tl.where(weight > 0, weight * ratio, 0.0), 1), mask=row_in)


def score_triton(
    states: Tensor, directions: Tensor, bias: Tensor, log_prior: Tensor, outputs: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return (examples * tokens,) divergence and V-information, on CUDA or interpreted.

    Args:
        states: (examples, tokens, d), any strides.
        directions: (K, d) float32.
        bias: (K,) float32, -inf for classes that are excluded or of prior zero.
        log_prior: (K,) float32.
        outputs: (1, K) or (examples, K) float32, zero for classes of prior zero.
    """
    examples, tokens, d = states.shape
    classes, rows = len(directions), examples * tokens
    kl = torch.empty(rows, dtype=torch.float32, device=states.device)
    gained = None if outputs is None else torch.empty(rows, dtype=torch.float32, device=states.device)
    weights = directions if outputs is None else outputs.contiguous()
    wide = max(16, triton.next_power_of_2(classes))  # tensor cores and the interpreter's products need 16 at least
    block = 64 if wide <= 64 else 32 if wide <= 256 else 16
    with torch.cuda.device_of(states):
        _probe_kernel[(triton.cdiv(rows, block),)](
            states,
            directions.contiguous(),
            bias.contiguous(),
            log_prior.contiguous(),
            weights,
            kl,
            kl if gained is None else gained,
            *states.stride(),
            classes if len(weights) == examples > 1 else 0,
            tokens,
            rows,
            DIM=d,
            CLASSES=classes,
            BLOCK_M=block,
            BLOCK_K=wide,
            BLOCK_D=32,
            WITH_OUTPUTS=outputs is not None,
            num_warps=4,
        )
    return kl, gained
