"""Whether a model says the same with attention that can be traced in the place of its own: tested, never assumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hf_attn_mi.capture.model_state import own_attention
from hf_attn_mi.errors import UnsupportedModelError
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.output_tests import PADDING_TOLERANCE, PADDING_TOLERANCE_REDUCED, float_outputs

if TYPE_CHECKING:
    from hf_attn_mi.models.runner import EncoderRunner


def refuse_other_attention(runner: EncoderRunner, one: EncodedInput) -> None:
    """Refuse a model whose attention computes something else than the one that explanations replace it by.

    A kernel such as flash attention differs from SDPA by rounding. A function that the caller has registered may be
    another attention: then SDPA in its place is another model. Tried on one input, once for each state of the model.

    Raises:
        UnsupportedModelError: the outputs differ by more than `PADDING_TOLERANCE` of the largest.
    """
    with own_attention(runner.model) as hidden:
        if hidden:
            difference, limit = runner.cached(("own attention", hidden), lambda: _difference(runner, one))
            if not difference <= limit:
                raise UnsupportedModelError(
                    f"{runner.class_name} runs attention implementation {', '.join(map(repr, hidden))}, which cannot "
                    f"be traced, and says something else with SDPA or eager attention in its place: outputs differ by "
                    f"{difference:.2g} (rounding: {limit:.1g}). If the model with that attention is meant, call "
                    "model.set_attn_implementation('sdpa') first."
                )


def _difference(runner: EncoderRunner, one: EncodedInput) -> tuple[float, float]:
    """The largest difference of an output, and how large rounding may make it; (0, 0) where the model cannot run."""
    outputs = []
    try:
        for visible in (False, True):
            with runner.session(visible=visible), torch.no_grad():
                outputs.append(float_outputs(runner.forward(runner.collate([one]))))
    except (UnsupportedModelError, ImportError):  # the kernel is not on this machine, or a target is needed to run
        return 0.0, 0.0
    worst = 0.0, 0.0
    for own, other in zip(*outputs):
        if own.shape == other.shape and own.numel():
            tolerance = PADDING_TOLERANCE.get(own.dtype, PADDING_TOLERANCE_REDUCED)
            difference = float((own.double() - other.double()).abs().max())
            limit = tolerance * max(1.0, float(own.abs().max()))
            if not difference <= limit or difference > worst[0]:
                worst = difference, limit
            if not difference <= limit:
                break
    return worst
