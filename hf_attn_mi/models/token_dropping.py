"""May a model be run on the kept tokens alone in the place of masking the others? Tried on the model, never guessed."""

from __future__ import annotations

import inspect
from weakref import WeakKeyDictionary

import torch
from torch import nn

from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.masked_predictor import MaskedPredictor, compacted, forward, masked, mixable

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}  # of logits, relative to the largest. Half precision is too
# coarse to tell a wrong position from rounding, so those models are run with masks.
_known: WeakKeyDictionary[nn.Module, dict[tuple[bool, bool], tuple[int, int | None]]] = WeakKeyDictionary()


def choose_token_dropping(runs: MaskedPredictor) -> None:
    """Sets `offset` and `mixed` of these runs to the cheapest form that gives the logits of masking.

    The longest input is cut to three sets of its tokens and run alone, both ways. It is tried again when a longer input
    comes (a sliding window shows itself only beyond its width), and apart for inputs whose first or last token may be
    left out: there a classifier that reads the state of that position would read another token's.
    """
    offsets = {_tried(runs, kind, group) for kind, group in _groups(runs).items()}
    runs.offset = offsets.pop() if len(offsets) == 1 else None
    if runs.offset is not None:
        longest = max(range(len(runs.examples)), key=lambda i: int(runs.examples[i].length or 0))
        few = () if runs.fixed[longest] else runs.movable[longest][:1]
        runs.mixed = mixable(runs.model, [runs.example(longest, few), runs.example(longest, runs.movable[longest])])
        if not runs.mixed:
            runs.offset = None  # nearly every length would be a batch of its own
    if runs.offset is None:
        runs.mixed = mixable(runs.model, runs.examples)


def _groups(runs: MaskedPredictor) -> dict[tuple[bool, bool], list[int]]:
    """Inputs by whether their first and their last token always stay."""
    groups: dict[tuple[bool, bool], list[int]] = {}
    for i, example in enumerate(runs.examples):
        fixed = runs.fixed[i]
        groups.setdefault((0 in fixed, int(example.length or 0) - 1 in fixed), []).append(i)
    return groups


def _tried(runs: MaskedPredictor, kind: tuple[bool, bool], group: list[int]) -> int | None:
    """The offset for the longest input of a group, from memory where the model was tried on one as long."""
    longest = max(group, key=lambda i: int(runs.examples[i].length or 0))
    length = int(runs.examples[longest].length or 0)
    known = _known.setdefault(runs.model, {})
    if kind not in known or known[kind][0] < length:
        example, fixed, movable = runs.examples[longest], runs.fixed[longest], runs.movable[longest]
        known[kind] = (length, _offset(runs.model, example, fixed, movable))
    return known[kind][1]


def _offset(model: nn.Module, example: EncodedInput, fixed: tuple[int, ...], movable: tuple[int, ...]) -> int | None:
    """Position id of the first token, for the first choice that gives the logits of masking on every set."""
    precision = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    if "position_ids" not in inspect.signature(model.forward).parameters or precision not in TOLERANCE:
        return None
    pad = getattr(getattr(model, "config", None), "pad_token_id", None)
    offsets = [0] if not isinstance(pad, int) or "position_ids" in example.tensors else [0, pad + 1]
    sets = [sorted({*fixed, *some}) for some in (movable[1::3], movable[-2:], movable[: len(movable) // 2])]
    sets = [kept for kept in sets if kept]
    wanted = [forward(model, [masked(example, kept)], [None])[0] for kept in sets]
    for offset in offsets:
        for kept, want in zip(sets, wanted):
            found = forward(model, [compacted(example, kept, offset)], [None])[0]
            if not bool(((found - want).abs() <= TOLERANCE[precision] * want.abs().max()).all()):
                break
        else:
            return offset
    return None
