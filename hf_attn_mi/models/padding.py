"""Whether padding changes the outputs of a model: tested on the model, never assumed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hf_attn_mi.capture import hooks_restored
from hf_attn_mi.capture.model_cache import runs_own_code
from hf_attn_mi.capture.model_state import visible_attention
from hf_attn_mi.errors import UnsupportedModelError
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.output_tests import float_outputs, same_outputs, same_tokens
from hf_attn_mi.models.tensor_inputs import padding_ends, without_padding

STATES = ("hidden_states", "encoder_hidden_states", "decoder_hidden_states")

if TYPE_CHECKING:
    from hf_attn_mi.models.runner import EncoderRunner


def trim_padding(runner: EncoderRunner, one: EncodedInput) -> EncodedInput:
    """The input without the padding at its ends, if that changes no output; else as given.

    This is tested on the model, once for each combination of sides with padding and again for rows longer than any
    before, and for every row where the model runs code of the caller, which may read the padding of some rows only:
    with the cut input as it is, and with the positions that its tokens have in the padded row. What is explained is
    what the model says about the row as the caller passed it.
    """
    start, end = padding_ends(one)
    if (start, end) == (0, one.token_count):
        return one

    def try_forms() -> bool | None:
        for position_ids in (False, True):
            if position_ids and not runner.takes("position_ids"):
                continue
            cut = without_padding(one, position_ids=position_ids)
            with runner.session(), torch.no_grad(), visible_attention(runner.model):
                padded = _outputs(runner, [one])
                try:
                    alone = _outputs(runner, [cut])
                except UnsupportedModelError:  # another argument has the length of the padded row
                    continue
            if len(padded) == len(alone) and all(same_tokens(*pair, start, end) for pair in zip(padded, alone)):
                return position_ids
        return None

    try:
        if _is_padding(runner, one, start, end) and not runs_own_code(runner.model):
            known = runner.cached(("padding", start > 0, end < one.token_count), dict[str, tuple[int, bool | None]])
            length, form = known.get("tried", (0, False))
            if form is not None and one.token_count > length:
                length, form = known["tried"] = one.token_count, try_forms()
        else:  # masked tokens or code that may read them: no other row shows the outputs without them
            form = try_forms()
    except UnsupportedModelError:  # the model cannot run the row as it is: its decoder needs tokens that a target gives
        return one
    return one if form is None else without_padding(one, position_ids=form)


def _is_padding(runner: EncoderRunner, one: EncodedInput, start: int, end: int) -> bool:
    """Whether the tokens outside of [start, end) are padding, and not other tokens that are masked."""
    ids, pad_id = one.tensors.get("input_ids"), runner.pad_id
    if ids is None:
        return True
    return pad_id is not None and bool((torch.cat([ids[:start], ids[end:]]) == pad_id).all())


def padding_changes_nothing(runner: EncoderRunner, inputs: Sequence[EncodedInput]) -> bool:
    """Whether the shortest input gives the same outputs alone and padded beside the longest."""
    ordered = sorted(inputs, key=lambda one: one.token_count)
    with runner.session(), torch.no_grad(), visible_attention(runner.model):
        alone = _outputs(runner, ordered[:1])
        padded = _outputs(runner, [ordered[0], ordered[-1]])
    return len(alone) == len(padded) and all(map(same_outputs, alone, padded))


def _outputs(runner: EncoderRunner, inputs: Sequence[EncodedInput]) -> list[Tensor]:
    """The outputs of a pass, with the hidden states where the model gives them.

    Padding may change states that happen not to matter for the logits of the one input on which it is tried.
    """
    arguments = runner.collate(inputs)
    try:
        with hooks_restored(runner.model):
            outputs = runner.forward({**arguments, "output_hidden_states": True})
    except UnsupportedModelError:  # the model has no such argument
        outputs = runner.forward(arguments)
    states = [getattr(outputs, name, None) for name in STATES]
    stacked = [state for stack in states if isinstance(stack, tuple) for state in stack]
    return [*float_outputs(outputs), *(state for state in stacked if isinstance(state, Tensor) and state.dim() > 2)]
