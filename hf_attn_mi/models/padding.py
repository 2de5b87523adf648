"""Whether padding changes the outputs of a model: tested on the model, never assumed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch import Tensor

from hf_attn_mi.capture import hooks_restored
from hf_attn_mi.capture.model_cache import runs_own_code
from hf_attn_mi.capture.model_state import visible_attention
from hf_attn_mi.errors import UnsupportedModelError
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.memory import out_of_memory
from hf_attn_mi.models.output_tests import float_outputs, same_outputs, same_tokens
from hf_attn_mi.models.tensor_inputs import padding_ends, without_padding

Answer = TypeVar("Answer")
STATES = ("hidden_states", "encoder_hidden_states", "decoder_hidden_states")

if TYPE_CHECKING:
    from hf_attn_mi.models.runner import EncoderRunner


class TriedLengths(Generic[Answer]):
    """Answers that were found on inputs of some lengths, and the lengths for which they hold.

    A model whose positions depend on the length of a batch (rope_type "dynamic" or "longrope") treats inputs below a
    length alike, and inputs above it in another way. So an answer found on the shortest and the longest of some inputs
    holds for lengths in between, and a None, that there is no such answer, for all inputs on both sides of these.
    """

    def __init__(self) -> None:
        self._known: list[tuple[int, int, Answer]] = []
        self._without: list[tuple[int, int]] = []

    def answer(self, shortest: int, longest: int, test: Callable[[], Answer | None]) -> Answer | None:
        """The answer for inputs of these lengths; that of `test` where none is known."""
        for low, high, known in self._known:
            if low <= shortest and longest <= high:
                return known
        if any(shortest <= low and high <= longest for low, high in self._without):
            return None
        found = test()
        if found is None:
            inside = [one for one in self._without if not (one[0] <= shortest and longest <= one[1])]
            self._without = [*inside, (shortest, longest)]
            return None
        apart = list[tuple[int, int, Answer]]()
        for low, high, known in self._known:  # those that overlap hold for the lengths of both
            if known == found and low <= longest and shortest <= high:
                shortest, longest = min(low, shortest), max(high, longest)
            else:
                apart.append((low, high, known))
        self._known = [*apart, (shortest, longest, found)]
        return found


def trim_padding(runner: EncoderRunner, one: EncodedInput) -> EncodedInput:
    """The input without the padding at its ends, if that changes no output; else as given.

    This is tested on the model, once for each combination of sides with padding, again for lengths that were not tried,
    and for every row where the model runs code of the caller, which may read the padding of some rows only: with the
    cut input as it is, and with the positions that its tokens have in the padded row. What is explained is what the
    model says about the row as the caller passed it.
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
            known = runner.cached(("padding", start > 0, end < one.token_count), TriedLengths[bool])
            form = known.answer(end - start, one.token_count, try_forms)
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


def padding_is_ignored(runner: EncoderRunner, inputs: Sequence[EncodedInput]) -> bool:
    """Whether an input gives the same output alone and padded on the right.

    Some models read the last position, convolve over their padding, or compute positions from the length of the batch.
    The shortest input is run alone and beside the longest, and what was found holds for inputs of lengths in between.
    Where the outputs differ, only inputs of equal length may share a batch, so that padding never changes a score.
    """
    lengths = [one.token_count for one in inputs]
    try:
        known = runner.cached(("ignores_padding", tuple(sorted(inputs[0].tensors))), TriedLengths[bool])
        found = known.answer(min(lengths), max(lengths), lambda: padding_changes_nothing(runner, inputs) or None)
        return found is True
    except UnsupportedModelError:  # one of these inputs fails in the model, and will fail alone
        return False
    except RuntimeError as error:
        if out_of_memory(error):  # two rows do not fit: these inputs share no batch
            return False
        raise


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
