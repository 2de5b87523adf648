"""Short distributions that reach the output within a tolerance: Wolfe's min-norm-point algorithm in lockstep."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_attn_mi.kernels.efficient.problems import times_head_matrix

_END = 1e-4  # the pursuit always runs to this residual, so that its path does not depend on the tolerance


def pursue(points: Tensor, head: Tensor, weights: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Return the shortest distribution on the path of the pursuit within the tolerance, and whether there was one.

    Wolfe (1976): minimize || sum_j b_j v_j - o || over distributions b. A major step adds the key that lies farthest
    along the residual; minor steps go to the nearest point of the affine hull of the keys held, dropping keys that
    reach zero. The path is the same for every tolerance, and of all its points with || o - sum_j b_j v_j || <=
    tolerance * || o - mean v || the one with the fewest keys is returned: the support never grows with the tolerance.

    Args:
        points: (heads, keys, head_dim) float64, the values minus their mean.
        head: (rows,) which points a row uses.
        weights: (rows, keys) the attention rows.
        tolerance: in (0, 1).

    Returns:
        rows (rows, keys) and found (rows,) bool.
    """
    count, keys = weights.shape
    best = torch.zeros_like(weights)
    fewest = torch.full((count,), keys + 1, device=weights.device)
    live = torch.arange(count, device=weights.device)
    across = points.transpose(1, 2)
    target = times_head_matrix(weights, points, head)
    length = target.norm(dim=1)
    width = min(points.shape[2] + 2, keys)
    # A slot holds one key; an empty slot has held=False. The first key is the one nearest to the output.
    distance = times_head_matrix(-2 * target, across, head) + points.square().sum(2)[head]
    slots = torch.zeros(count, width, dtype=torch.long, device=weights.device)
    slots[:, 0] = distance.argmin(1)
    share = torch.zeros(count, width, dtype=weights.dtype, device=weights.device)
    share[:, 0] = 1.0
    for _ in range(6 * width):
        residual = target - (share[:, None, :] @ points[head[:, None], slots])[:, 0]
        reached = residual.norm(dim=1)
        size = (share > 0).sum(1)
        better = (reached <= tolerance * length) & (size < fewest[live])
        fewest[live[better]] = size[better]
        best[live[better]] = best.new_zeros(int(better.sum()), keys).scatter_add(1, slots[better], share[better])
        gain = times_head_matrix(residual, across, head).scatter(1, slots.where(share > 0, slots[:, :1]), -torch.inf)
        ahead, entering = gain.max(1)
        ahead = ahead - (residual * (target - residual)).sum(1)
        go = (reached > _END * length) & (ahead > 1e-12 * length.square()) & (size < width)
        live, head, target, length, slots, share = (kept[go] for kept in (live, head, target, length, slots, share))
        if not len(live):
            break
        free = (share > 0).int().argmin(1)
        at = torch.arange(len(live), device=live.device)
        slots[at, free] = entering[go]
        # Empty slots are filled first, so that all held keys are in the first few.
        used = int(torch.maximum(free.amax(), ((share > 0) * torch.arange(width, device=share.device)).amax())) + 1
        share[:, :used] = _correct(points[head[:, None], slots[:, :used]], target, share[:, :used], free)
    return best, fewest <= keys


def _correct(points: Tensor, target: Tensor, share: Tensor, added: Tensor) -> Tensor:
    """Return the weights after the minor steps: the nearest point in the hull of the keys that stay."""
    held = share > 0
    held[torch.arange(len(held), device=held.device), added] = True
    open_rows = torch.arange(len(held), device=held.device)
    share = share.clone()
    for _ in range(held.shape[1]):
        inside, weights = held[open_rows], share[open_rows]
        goal = _nearest_affine(points[open_rows], target[open_rows], inside)
        falling = inside & (goal <= 1e-12)
        step = torch.where(falling, weights / (weights - goal).clamp_min(1e-300), torch.inf)
        length = step.amin(1).clamp_max(1.0)
        weights = torch.where(inside, weights + length[:, None] * (goal - weights), 0.0)
        dropped = falling & (step <= length[:, None] + 1e-12)
        weights = weights.masked_fill(dropped, 0.0).clamp_min(0)
        share[open_rows] = weights / weights.sum(1, keepdim=True)
        held[open_rows] = inside & ~dropped
        open_rows = open_rows[falling.any(1)]
        if not len(open_rows):
            break
    return share


def _nearest_affine(points: Tensor, target: Tensor, held: Tensor) -> Tensor:
    """Return the weights, sum one, of the point nearest to the target in the affine hull of the held points."""
    offset = (points - target[:, None, :]) * held[:, :, None]
    gram = offset @ offset.transpose(1, 2)
    # Adding one to every entry turns the constrained problem into a linear system: b = G^-1 1 / (1^T G^-1 1).
    scale = gram.diagonal(dim1=1, dim2=2).amax(1)[:, None, None].clamp_min(1e-300)
    both = (held[:, :, None] & held[:, None, :]).to(gram.dtype)
    empty = torch.diag_embed((~held).to(gram.dtype) + 1e-15)
    solved, _ = torch.linalg.solve_ex(gram / scale + both + empty, held[:, :, None].to(gram.dtype))
    weights: Tensor = solved[:, :, 0].nan_to_num(0.0, 0.0, 0.0) * held
    total = weights.sum(1, keepdim=True)
    return weights / total.where(total != 0, torch.ones_like(total))
