"""The positions that a model makes of an image or a recording: their number, names, grid and time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hf_attn_mi.capture import first_layer
from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.patches import LARGEST_PREFIX, patch_grid, prefix_names

if TYPE_CHECKING:
    from hf_attn_mi.models.runner import EncoderRunner


def with_positions_named(runner: EncoderRunner, one: EncodedInput) -> EncodedInput:
    """The input with the names of its positions, where the model makes its own (images, audio).

    Positions are those at the input of the first layer with attention; their number is found by one pass for each
    shape of input. Models without such a layer leave the input as it is.
    """
    if one.length is not None or one.tokens is not None:
        return one
    shapes = tuple(sorted((key, tuple(value.shape)) for key, value in one.tensors.items()))
    count = runner.cached(("positions", shapes), lambda: _count(runner, one))
    if count is None:
        return one
    if one.sampling_rate is None and "pixel_values" not in one.tensors:  # tensors of audio do not state their rate
        rate = runner.sampling_rate or getattr(runner.processor, "sampling_rate", None)
        one = replace(one, sampling_rate=rate)
    return _with_padding_said(name_positions(runner.config, one, count, runner.processor))


def _with_padding_said(one: EncodedInput) -> EncodedInput:
    """The input with a note where the feature extractor has made the recording longer (Whisper: to 30 seconds)."""
    if one.seconds is None or one.waveform is None or one.sampling_rate is None:
        return one
    duration, (start, _) = len(one.waveform) / one.sampling_rate, one.seconds[-1]
    if start < duration:
        return one
    note = f"The recording has {duration:.2f} s; later positions are padding that the feature extractor appended."
    return replace(one, warnings=(*one.warnings, note))


def name_positions(config: object, one: EncodedInput, count: int, processor: Any = None) -> EncodedInput:
    """The input with a name for each of `count` positions, their grid or time, and the prefix tokens in front.

    Args:
        config: the model's configuration.
        one: an image or a recording.
        count: number of positions at the input of the first layer.
        processor: the feature extractor; its frames are `hop_length` samples apart, 10 milliseconds without that value.
    """
    if "pixel_values" in one.tensors:
        grid = patch_grid(config, one.tensors["pixel_values"], count, one.tensors.get("spatial_shapes"))
        if grid is not None:
            names = [f"patch {row},{column}" for row in range(grid[0]) for column in range(grid[1])]
            further = count - len(names)
            if "spatial_shapes" in one.tensors:  # patches of an image of any proportions, padded at the end
                tokens, special = (*names, *["[PAD]"] * further), (False,) * len(names) + (True,) * further
            else:
                tokens = (*prefix_names(config, further), *names)
                special = (True,) * further + (False,) * len(names)
            return replace(one, tokens=tokens, special=special, grid=grid)
    elif "input_values" in one.tensors or "input_features" in one.tensors:
        return _named_times(config, one, count, processor)
    return replace(one, tokens=tuple(f"patch {i}" for i in range(count)), special=(False,) * count)


def _named_times(config: object, one: EncodedInput, count: int, processor: Any) -> EncodedInput:
    """The recording with the start and end of each position; with rows of frequency bands for spectrogram patches."""
    values = one.tensors["input_values"] if "input_values" in one.tensors else one.tensors["input_features"]
    plain = replace(one, tokens=tuple(f"position {i}" for i in range(count)), special=(False,) * count)
    frame = _frame_seconds(processor, one.sampling_rate)
    steps = [getattr(config, f"{name}_stride", None) for name in ("frequency", "time")]
    if values.dim() == 2 and all(isinstance(step, int) for step in steps):
        return _named_bands(config, one, count, frame) or plain
    if values.dim() == 1:
        if one.sampling_rate is None:
            return plain
        step = _samples_per_position(config, int(values.shape[0]), count) / one.sampling_rate
    elif values.dim() == 2:
        bins = {getattr(config, name, None) for name in ("num_mel_bins", "feature_projection_input_dim")}
        step = int(values.shape[1] if values.shape[0] in bins else values.shape[0]) * frame / count
    else:
        return plain
    seconds = tuple((i * step, (i + 1) * step) for i in range(count))
    return replace(plain, tokens=tuple(f"{start:.3f} s" for start, _ in seconds), seconds=seconds)


def _named_bands(config: Any, one: EncodedInput, count: int, frame: float) -> EncodedInput | None:
    """The (frames, bins) spectrogram that is cut into patches: rows of bands, columns of time; None if it is not."""
    frames, bins = (int(length) for length in one.tensors["input_values"].shape)
    size, step = int(getattr(config, "patch_size", 16)), int(config.time_stride)
    rows, columns = (bins - size) // int(config.frequency_stride) + 1, (frames - size) // step + 1
    prefix = count - rows * columns
    if not 0 <= prefix <= LARGEST_PREFIX:
        return None
    times = [(column * step * frame, (column + 1) * step * frame) for column in range(columns)]
    names = [f"{start:.3f} s, band {row}" for row in range(rows) for start, _ in times]
    return replace(
        one,
        tokens=(*prefix_names(config, prefix), *names),
        special=(True,) * prefix + (False,) * len(names),
        grid=(rows, columns),
        seconds=((0.0, 0.0),) * prefix + tuple(times) * rows,
    )


def _samples_per_position(config: object, samples: int, count: int) -> float:
    """The stride of the convolutions in front of the first layer; what it is on average where they are not known."""
    strides = getattr(config, "conv_stride", None)
    stride = math.prod(strides) if isinstance(strides, list | tuple) else 0
    for factor in (1, int(getattr(config, "squeeze_factor", 1) or 1)):
        if stride and abs(samples / (stride * factor) - count) <= max(2.0, 0.02 * count):
            return float(stride * factor)
    return samples / count


def _frame_seconds(processor: Any, sampling_rate: int | None) -> float:
    """Seconds between two frames of a spectrogram."""
    hop, rate = getattr(processor, "hop_length", None), getattr(processor, "sampling_rate", None) or sampling_rate
    stacked = getattr(processor, "stride", 1)  # frames that are put together to one
    shift = hop / rate if isinstance(hop, int) and rate else 0.01
    return float(shift * (stacked if isinstance(stacked, int) and hop is None else 1))


def _count(runner: EncoderRunner, one: EncodedInput) -> int | None:
    """Number of positions at the input of the first layer with attention; None if there is no such layer."""
    counts: list[int] = []

    def watch(module: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        states = args[0] if args else kwargs.get("hidden_states")
        if isinstance(states, Tensor) and not counts:
            counts.append(number_of_positions(states, runner.config))

    try:
        layer = first_layer(runner.model)
    except UnsupportedModelError:
        return None
    handle = layer.register_forward_pre_hook(watch, with_kwargs=True)
    try:
        with runner.session(), torch.no_grad():
            runner.forward(runner.collate([one]))
    except UnsupportedModelError as error:
        if one.waveform is None:
            raise
        raise InvalidInputError(
            f"inputs: {runner.class_name} does not take a recording of {len(one.waveform)} samples; is it too short? "
            f"({error})"
        ) from error
    finally:
        handle.remove()
    return counts[0] if counts else None


def channels_last(states: Tensor, config: object) -> bool:
    """Whether a 4-dimensional feature map is (batch, height, width, channels)."""
    return bool(states.shape[-1] == getattr(config, "hidden_size", None))


def number_of_positions(states: Tensor, config: object) -> int:
    """Positions of (batch, positions, channels), or of a feature map with channels first or last."""
    if states.dim() == 4:
        _, first, second, third = states.shape
        return int(first * second if channels_last(states, config) else second * third)
    return int(states.shape[1])
