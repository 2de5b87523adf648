"""Tests whether a model allows several restrictions in a batch, and passes that start at a later layer.

Both are tested on the model, once, and never assumed.
"""

from __future__ import annotations

import torch

from hf_attn_mi.errors import UnsupportedModelError
from hf_attn_mi.tasks.attention_edges import Edges
from hf_attn_mi.tasks.edge_removal import REMOVALS
from hf_attn_mi.tasks.restricted_forward import Candidate, RestrictedForward


def try_sharing(forward: RestrictedForward) -> None:
    """Decide whether restrictions may share a batch, and states; tested once for each model, never assumed."""
    known = forward.runner.cached("restricted passes", dict[str, bool])
    if "batches" not in known:
        sequences, forwards = forward.sequences, forward.forwards
        known["batches"] = forward.runner.takes_batches(forward.input) and _batches_agree(forward)
        known["states"] = known["batches"] and bool(forward.layers) and _states_agree(forward)
        forward.sequences, forward.forwards = sequences, forwards  # not counted for this input
    if not known["batches"]:
        forward.batch_size = 1
    if not known["states"]:
        forward.layers = ()
    forward.shared = {}


def _halves(forward: RestrictedForward, count: int) -> list[Edges]:
    generator = torch.Generator().manual_seed(0)
    everything = forward.edges.present.nonzero()[:, 0]
    return [
        Edges(everything[torch.rand(len(everything), generator=generator, dtype=torch.float32) < 0.5])
        for _ in range(count)
    ]


def _batches_agree(forward: RestrictedForward) -> bool:
    candidates = [Candidate(one) for one in _halves(forward, 2)]
    try:
        together = forward.run_batch(candidates, REMOVALS["renormalized"])
    except (RuntimeError, UnsupportedModelError):  # this input allows no batch, or its batch has another layout
        return False
    apart = [forward.run_batch([one], REMOVALS["renormalized"])[0] for one in candidates]
    return not any(map(forward.differ, together, apart))


def _states_agree(forward: RestrictedForward) -> bool:
    """Whether a pass that starts at a middle layer gives what the whole pass gives."""
    bases = _halves(forward, 2)
    start = len(forward.layers) // 2
    changed = [call for call in forward.edges.calls if call.stack_layer >= start]
    try:
        forward.share(bases)
        for base, one in enumerate(bases):
            other = Edges(one.numbers[(one.numbers < changed[0].start) | (one.numbers % 2 == 0)])
            whole, above = (forward.run([Candidate(other, base, layer)])[0] for layer in (0, start))
            if forward.differ(whole, above):
                return False
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError, UnsupportedModelError):
        return False  # the model reads more of a layer than what it returns
    return bool(forward.shared)
