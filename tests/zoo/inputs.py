"""The common inputs, one maker for each main input: text, text with boxes, images, waveforms, spectrograms."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedConfig

BATCH = 2
LENGTH, SHORT = 16, 12  # tokens of the two rows; the second is padded on the right
SAMPLES, SHORT_SAMPLES = 4000, 3000
FRAMES, SHORT_FRAMES = 40, 30

Inputs = dict[str, Tensor]


def mask(length: int, valid: int) -> Tensor:
    """A mask of two rows: the first full, the second ending after `valid`."""
    return (torch.arange(length) < torch.tensor([[length], [valid]])).long()


def text(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    ids = torch.randint(5, 90, (BATCH, LENGTH), generator=generator)
    words = config.get_text_config()
    eos = getattr(words, "eos_token_id", None)
    if isinstance(eos, int):  # some classifiers pool at the end-of-sequence token
        ids[0, -1] = ids[1, SHORT - 1] = eos
    ids[1, SHORT:] = getattr(words, "pad_token_id", None) or 0
    return {"input_ids": ids, "attention_mask": mask(LENGTH, SHORT)}


def boxed_text(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    corner = torch.randint(0, 40, (BATCH, LENGTH, 2), generator=generator)
    size = torch.randint(1, 40, (BATCH, LENGTH, 2), generator=generator)
    return {**text(config, generator), "bbox": torch.cat([corner, corner + size], dim=-1)}


def image(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    part = getattr(config, "vision_config", config)
    size = getattr(part, "image_size", 64)
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    channels = getattr(part, "num_channels", 3)
    return {"pixel_values": torch.randn(BATCH, channels, height, width, generator=generator)}


def audio(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    return {
        "input_values": torch.randn(BATCH, SAMPLES, generator=generator),
        "attention_mask": mask(SAMPLES, SHORT_SAMPLES),
    }


def spectrogram(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    bins = getattr(config, "num_mel_bins", None) or getattr(config, "feature_projection_input_dim", None) or 80
    features = torch.randn(BATCH, FRAMES, bins, generator=generator)
    return {"input_features": features, "attention_mask": mask(FRAMES, SHORT_FRAMES)}
