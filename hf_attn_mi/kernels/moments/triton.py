"""Class moments in Triton: states are read as they are, no widened or sorted copy is made.

One kernel: the product X^T [X, P] of the examples of one fold, X centered in registers, P the labels. A program forms
one tile of it, so that states come from memory about once and from the cache for the other tiles of their fold. Sums
run over examples in one order, in full float32 and not TF32: the same on every run.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 64  # features, or features and labels, of a tile
EXAMPLES = 32  # examples that are read at a time
GRID = 65535  # programs that the third dimension of a grid may have


@triton.jit
def _moments_kernel(
    states,
    mean,
    labels,
    order,
    starts,
    grams_out,
    sums_out,
    s_slot,
    s_row,
    s_dim,
    n,
    d,
    wide,
    folds,
    d_blocks,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """One tile of X^T X, its mirror image with it, or of P^T X, for one fold of one site."""
    row_block, col_block = tl.program_id(0), tl.program_id(1)
    fold, site = tl.program_id(2) % folds, (tl.program_id(2) // folds).to(tl.int64)
    left = row_block * BLOCK_D + tl.arange(0, BLOCK_D)
    cols = col_block * BLOCK_D + tl.arange(0, BLOCK_D)  # blocks of features, then blocks of labels
    label = cols - d_blocks * BLOCK_D
    is_feature, is_label = cols < d, (label >= 0) & (label < wide)
    if row_block <= col_block:  # the tiles below the diagonal are mirror images
        first, last = tl.load(starts + fold), tl.load(starts + fold + 1)
        left_mean = tl.load(mean + site * d + left, mask=left < d, other=0.0)
        cols_mean = tl.load(mean + site * d + cols, mask=is_feature, other=0.0)
        total = tl.zeros([BLOCK_D, BLOCK_D], tl.float32)
        for at in range(first, last, BLOCK_E):
            place = at + tl.arange(0, BLOCK_E)
            here = place < last
            rows = states + site * s_slot + tl.load(order + place, mask=here, other=0)[:, None] * s_row
            left_in = here[:, None] & (left < d)[None, :]
            x = tl.load(rows + left[None, :] * s_dim, mask=left_in, other=0.0).to(tl.float32)
            x = tl.where(left_in, x - left_mean[None, :], 0.0)
            y_in = here[:, None] & is_feature[None, :]
            y = tl.load(rows + cols[None, :] * s_dim, mask=y_in, other=0.0).to(tl.float32)
            y = tl.where(y_in, y - cols_mean[None, :], 0.0)
            labels_in = here[:, None] & is_label[None, :]
            y += tl.load(labels + label[None, :] * n + place[:, None], mask=labels_in, other=0.0)
            total = tl.dot(tl.trans(x), y, total, input_precision="ieee")
        part = site * folds + fold
        left_in = (left < d)[:, None]
        gram = grams_out + part * d * d
        tl.store(gram + left[:, None] * d + cols[None, :], total, mask=left_in & is_feature[None, :])
        above = left_in & is_feature[None, :] & ((left // BLOCK_D)[:, None] < (cols // BLOCK_D)[None, :])
        tl.store(gram + cols[None, :] * d + left[:, None], total, mask=above)
        sums = sums_out + part * wide * d
        tl.store(sums + label[None, :] * d + left[:, None], total, mask=left_in & is_label[None, :])


def moments_triton(states: Tensor, labels: Tensor, order: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return means (sites, d), Gram matrices (sites, folds, d, d) and class sums (sites, folds, labels, d), float32.

    Args:
        states: (sites, n, d) float32, float16 or bfloat16, in any layout.
        labels: (labels, n) float32, examples in the order of `order`.
        order: (n,) examples fold after fold.
        sizes: (folds,) examples of each fold.
    """
    sites, n, d = states.shape
    wide, folds, device = len(labels), len(sizes), states.device
    mean = states.mean(1, dtype=torch.float32)
    starts = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    grams = torch.empty(sites, folds, d, d, dtype=torch.float32, device=device)
    sums = torch.empty(sites, folds, wide, d, dtype=torch.float32, device=device)
    d_blocks, label_blocks = triton.cdiv(d, BLOCK), triton.cdiv(wide, BLOCK)
    step = max(1, GRID // folds)
    with torch.cuda.device_of(states):
        for first in range(0, sites, step):
            part = states[first : first + step]
            _moments_kernel[(d_blocks, d_blocks + label_blocks, len(part) * folds)](
                part,
                mean[first:],
                labels.contiguous(),
                order,
                starts,
                grams[first:],
                sums[first:],
                *part.stride(),
                n,
                d,
                wide,
                folds,
                d_blocks,
                BLOCK_D=BLOCK,
                BLOCK_E=EXAMPLES,
                num_warps=8,
            )
    return mean, grams, sums
