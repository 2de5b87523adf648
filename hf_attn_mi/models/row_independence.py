"""Whether a model answers each row of a batch on its own: tested on the model, never assumed.

An explanation is about a single input. A model whose outputs for one row depend on the other rows (logits minus their
mean over the batch, statistics of the batch, experts with a shared capacity) is run one input at a time; where the
caller passes several rows as one batch, no single row has an answer of its own that could be explained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hf_attn_mi.capture import hooks_restored
from hf_attn_mi.capture.model_cache import runs_own_code
from hf_attn_mi.capture.model_state import visible_attention
from hf_attn_mi.errors import HfAttnMiError, UnsupportedModelError
from hf_attn_mi.models.encoded_input import MAIN_KEYS, EncodedInput
from hf_attn_mi.models.memory import out_of_memory
from hf_attn_mi.models.model_probe import probe
from hf_attn_mi.models.output_tests import PADDING_TOLERANCE, PADDING_TOLERANCE_REDUCED, output_tensors
from hf_attn_mi.models.padding import TriedLengths

if TYPE_CHECKING:
    from hf_attn_mi.models.runner import EncoderRunner

MOST_ROWS = 16  # rows of a batch that are compared with the same rows alone


def answers_rows_alone(runner: EncoderRunner, one: EncodedInput) -> bool:
    """Whether an input gives the same outputs alone and beside another input of its length, in either order.

    A model that is random in evaluation mode, or that cannot run the input as it is, counts as one that does.
    """
    other = _other_input(one)
    try:
        if probe(runner, runner.collate([one])).noise:
            return True
        alone = _outputs(runner, [one])
        pairs = (_outputs(runner, [one, other]), _outputs(runner, [other, one]))
    except HfAttnMiError:
        return True
    except RuntimeError as error:
        if out_of_memory(error):  # two rows do not fit: the run takes one at a time
            return True
        raise
    return all(_difference(pair, i, alone, (0, one.token_count)) is None for i, pair in enumerate(pairs))


def rows_as_answered(
    runner: EncoderRunner, inputs_given: Sequence[EncodedInput], trimmed: Sequence[EncodedInput]
) -> Sequence[EncodedInput]:
    """The rows of a batch in the form in which the model says the same about each alone as about the whole batch.

    Tried once for each number of rows and each set of arguments, and again for lengths that were not tried, on at most
    `MOST_ROWS` rows; where the model runs code of the caller, which may mix some rows and not others, on every row of
    every call.

    Args:
        runner: runs the model.
        inputs_given: the rows as the caller passed them, padding included.
        trimmed: the same rows without the padding that is known to change nothing.

    Returns:
        `trimmed`, or `inputs_given` where padding does change the outputs of one of these rows.

    Raises:
        UnsupportedModelError: the model answers the batch, and says something else about one of its rows alone.
    """
    if len(inputs_given) < 2:
        return trimmed
    own_code = runs_own_code(runner.model)
    count = len(inputs_given) if own_code else min(len(inputs_given), MOST_ROWS)
    places = [i * (len(inputs_given) - 1) // (count - 1) for i in range(count)]
    padded = any(one.token_count != whole.token_count for one, whole in zip(trimmed, inputs_given))

    def with_padding() -> bool:
        some, cut = [inputs_given[i] for i in places], [trimmed[i] for i in places]
        reason = _mixed(runner, some, dict(enumerate(cut)), places)
        needs_padding = bool(reason) and padded
        if needs_padding:
            reason = _mixed(runner, some, dict(enumerate(some)), places)
        if reason:
            raise UnsupportedModelError(
                f"{runner.class_name} computes the outputs for one row of a batch from the other rows, too: {reason}, "
                "so that a row of model(**inputs) has no explanation of its own. Pass one input at a time, or a "
                "torch.nn.Module that treats each row on its own."
            )
        return needs_padding

    if own_code:
        return inputs_given if with_padding() else trimmed
    known = runner.cached(("rows", tuple(sorted(inputs_given[0].tensors)), count, padded), TriedLengths[bool])
    shortest, longest = min(one.token_count for one in trimmed), max(one.token_count for one in inputs_given)
    return inputs_given if known.answer(shortest, longest, with_padding) else trimmed


def agrees_with_rows_alone(
    runner: EncoderRunner, inputs: Sequence[EncodedInput], places: Sequence[int] | None = None
) -> bool:
    """Whether the model says the same about inputs alone as in one padded batch.

    Args:
        runner: runs the model.
        inputs: the batch.
        places: which of its rows are compared; None for all.
    """
    if len(inputs) < 2:
        return True
    places = range(len(inputs)) if places is None else places
    return not _mixed(runner, inputs, {i: inputs[i] for i in places}, range(len(inputs)))


def _mixed(
    runner: EncoderRunner, inputs_given: Sequence[EncodedInput], run: Mapping[int, EncodedInput], places: Sequence[int]
) -> str:
    """What is different about a row alone; "" if the rows are independent, or the model does not take the batch.

    Args:
        runner: runs the model.
        inputs_given: the batch.
        run: the form in which rows are run alone, by their number in the batch.
        places: the numbers of the rows of the batch for messages.
    """
    try:
        together = _outputs(runner, inputs_given)
    except HfAttnMiError:  # the caller's own call fails as well
        return ""
    except RuntimeError as error:
        if out_of_memory(error):  # the run of this batch takes smaller ones
            return ""
        raise
    for i, one in run.items():
        place = places[i]
        try:
            alone = _outputs(runner, [one])
        except UnsupportedModelError as error:
            return f"it answers the batch, but not inputs[{place}] alone ({str(error).split(' (arguments')[0]})"
        start = one.start if one.token_count != inputs_given[i].token_count else 0
        difference = _difference(together, i, alone, (start, start + one.token_count))
        if difference is not None and not probe(runner, runner.collate([one])).noise:
            return f"for inputs[{place}] alone they differ by {difference:.2g} from those in the batch"
    return ""


def _outputs(runner: EncoderRunner, inputs: Sequence[EncodedInput]) -> list[Tensor]:
    """The floating-point tensors among the outputs of one pass that have a row for each input."""
    with runner.session(), torch.no_grad(), visible_attention(runner.model), hooks_restored(runner.model):
        outputs: Any = runner.forward(runner.collate(inputs))
    return [value for value in output_tensors(outputs) if value.shape[0] == len(inputs)]


def _difference(together: list[Tensor], row: int, alone: list[Tensor], span: tuple[int, int]) -> float | None:
    """Largest difference of a row's outputs in a batch from those alone; None if no larger than rounding.

    Outputs whose shapes cannot be compared are passed over.
    """
    if len(together) != len(alone):
        return None
    for batch, single in zip(together, alone):
        mine = batch[row : row + 1]
        for dim in range(1, min(mine.dim(), single.dim())):
            if mine.shape[dim] != single.shape[dim] == span[1] - span[0] and span[1] <= mine.shape[dim]:
                mine = mine.narrow(dim, span[0], span[1] - span[0])
        if mine.shape != single.shape or not mine.numel():
            continue
        difference = float((mine.double() - single.double()).abs().nan_to_num(0.0, 0.0, 0.0).max())
        if difference > _tolerance(single) * max(1.0, float(single.abs().max().nan_to_num(0.0, 0.0, 0.0))):
            return difference
    return None


def _tolerance(value: Tensor) -> float:
    if value.is_cuda and value.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32:
        return PADDING_TOLERANCE_REDUCED
    return PADDING_TOLERANCE.get(value.dtype, PADDING_TOLERANCE_REDUCED)


def _other_input(one: EncodedInput) -> EncodedInput:
    """Another input of the same shape: the tokens between the ends, the pixels or the samples in reverse order."""
    key = next((key for key in MAIN_KEYS if key in one.tensors), None)
    if key is None:
        return one
    value = one.tensors[key]
    if one.length is None:
        changed = value.flip(-1)
    else:
        inner = value[1:-1].flip(0)
        changed = torch.cat([value[:1], inner, value[-1:]]) if len(value) > 2 else value
        if torch.equal(changed, value):
            changed = value.roll(1, 0)
    return replace(one, tensors={**one.tensors, key: changed})
