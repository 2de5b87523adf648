"""Gradients of one input under a restriction: effects of moving single edges, and what the rest depends on."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_attn_mi.capture import AttentionCall, ReplacedAttention
from hf_attn_mi.models.gradients import gradients
from hf_attn_mi.tasks.attention_edges import CallEdges, Edges
from hf_attn_mi.tasks.edge_removal import REMOVALS, Toggle
from hf_attn_mi.tasks.restricted_forward import BACKWARD, RestrictedForward, masks_of


def toggle_effects(forward: RestrictedForward, numbers: Tensor, removal: str = "renormalized") -> tuple[Tensor, Tensor]:
    """Estimate what moving each of these edges, alone, to the rest would change.

    One pass with gradients over the set and over the rest; see `Removal.change`.

    Args:
        forward: an open and analyzed `RestrictedForward`.
        numbers: (edges,) long, ascending: the set.
        removal: name of the kind of removal.

    Returns:
        (edges,) change of the log-odds with the set, and of the margin with the rest; zeros where the model has no
        gradients.
    """
    kind, pair = REMOVALS[removal], [Edges(numbers), Edges(numbers, rest=True)]
    index = {call.key: number for number, call in enumerate(forward.edges.calls)}
    recorded: list[tuple[CallEdges, Tensor, Tensor, Tensor]] = []

    def rows(call: AttentionCall, known: CallEdges) -> Tensor | ReplacedAttention:
        kept = masks_of(pair, known, index[known.key])
        new, restricted, weights = forward.restrict(call, known, kept, kind)
        if not restricted.requires_grad:  # nothing below it is followed
            new = restricted = restricted.requires_grad_()
        recorded.append((known, kept, restricted, weights.detach()))
        return new

    forward.sequences += len(pair)
    forward.forwards += BACKWARD * len(pair)
    changes = torch.zeros(2, len(numbers), dtype=torch.float64)
    with torch.enable_grad():
        output = forward.outputs(len(pair), rows)
        value = output.odds[0] + output.margin[1]
        if not value.requires_grad:
            return changes[0], changes[1]
        slopes = gradients(value, [rows for _, _, rows, _ in recorded])
    for (known, kept, restricted, weights), slope in zip(recorded, slopes):
        low, high = torch.searchsorted(numbers, torch.tensor([known.start, known.stop])).tolist()
        if slope is None or low == high:
            continue
        local = (numbers[low:high] - known.start).to(slope.device)
        toggles = _toggles(known.present, kept, restricted.detach(), weights, slope, local)
        for side, removed in enumerate((True, False)):
            changes[side, low:high] = kind.change(toggles[side], removed).double().cpu()
    return changes[0], changes[1]


def rest_contributions(forward: RestrictedForward, numbers: Tensor, removal: str = "renormalized") -> Tensor | None:
    """Return what each edge of the rest contributes to the margin, (places,) on the CPU.

    r_ij (g_ij - sum_k r_ik g_ik) with r the rows of the rest and g the gradient of the margin; zero for the edges
    of the set. None if the model has no gradients.

    Args:
        forward: an open and analyzed `RestrictedForward`.
        numbers: (edges,) long, ascending: the set.
        removal: name of the kind of removal.
    """
    kind, rest = REMOVALS[removal], Edges(numbers, rest=True)
    recorded: list[Tensor] = []

    def rows(call: AttentionCall, known: CallEdges) -> Tensor | ReplacedAttention:
        new, restricted, _ = forward.restrict(call, known, rest.kept(known, 0), kind)
        if not restricted.requires_grad:  # nothing below it is followed
            new = restricted = restricted.requires_grad_()
        recorded.append(restricted)
        return new

    forward.sequences += 1
    forward.forwards += BACKWARD
    with torch.enable_grad():
        margin = forward.outputs(1, rows).margin
        if not margin.requires_grad:
            return None
        slopes = gradients(margin, recorded)
    parts = []
    for restricted, slope in zip(recorded, slopes):
        row = restricted.detach()
        products = torch.zeros_like(row) if slope is None else row * slope
        parts.append((products - row * products.sum(-1, keepdim=True)).flatten().float().cpu())
    return torch.cat(parts)


def _toggles(
    present: Tensor, kept: Tensor, rows: Tensor, weights: Tensor, slope: Tensor, local: Tensor
) -> list[Toggle]:
    """Quantities of the edges at these flat places of a call, with the set (first) and with the rest."""
    windows, *_, keys = present.shape
    count = present.sum(-1).clamp_min(1).flatten()
    toggles = []
    for side in (slice(0, windows), slice(windows, 2 * windows)):
        row, weight, gradient = rows[side], weights[side], slope[side]
        at = local // keys
        toggles.append(
            Toggle(
                row=row.flatten()[local],
                weight=weight.flatten()[local],
                left=(weight * kept[side]).sum(-1).flatten()[at],
                gradient=gradient.flatten()[local],
                along=(row * gradient).sum(-1).flatten()[at],
                average=((gradient * present).sum(-1).flatten() / count)[at],
            )
        )
    return toggles
