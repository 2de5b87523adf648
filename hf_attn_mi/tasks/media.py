"""The image or recording that a result keeps, for drawing the scores."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.results.media import Picture, Sound


def picture_of(runner: EncoderRunner, one: EncodedInput) -> Picture | None:
    """The image as the model sees it; None for other inputs."""
    pixels = one.tensors.get("pixel_values")
    if pixels is None or one.grid is None:
        return None
    if pixels.dim() == 2:
        pixels = _from_patches(pixels, one.grid)
    if pixels is None or pixels.dim() != 3:
        return None
    processor = getattr(runner.processor, "image_processor", runner.processor)
    normalized = getattr(processor, "do_normalize", False)
    mean, std = (getattr(processor, name, None) if normalized else None for name in ("image_mean", "image_std"))
    return Picture.of(pixels, mean, std)


def _from_patches(patches: Tensor, grid: tuple[int, int]) -> Tensor | None:
    """(3, height, width) of (patches, size x size x 3); None if they have another form."""
    rows, columns = grid
    size = round((patches.shape[1] / 3) ** 0.5)
    if size * size * 3 != patches.shape[1]:
        return None
    blocks = patches[: rows * columns].reshape(rows, columns, size, size, 3)
    return blocks.permute(4, 0, 2, 1, 3).reshape(3, rows * size, columns * size)


def sound_of(one: EncodedInput) -> Sound | None:
    """The recording with the time of each position; None for other inputs, and where the time is not known."""
    if one.seconds is None:
        return None
    waveform = one.waveform
    if waveform is None and "input_values" in one.tensors and one.tensors["input_values"].dim() == 1:
        waveform = one.tensors["input_values"]
    return Sound.of(torch.tensor(one.seconds, dtype=torch.float32), waveform, one.sampling_rate)
