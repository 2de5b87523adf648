"""What the common table of sizes gets wrong for audio and time series, one row a model type.

The rows are arguments of the configuration class, sizes only: no row changes what the attention of a type does,
except where its comment says so.
"""

from __future__ import annotations

from typing import Any

from .image_overrides import IMAGES
from .text_overrides import TEXT

TIME_SERIES = {"prediction_length": 8, "context_length": 16}
OTHER: dict[str, dict[str, Any]] = {
    "audio-spectrogram-transformer": {"max_length": 64, "num_mel_bins": 32},
    "audioflamingo3_encoder": {"max_source_positions": 20},
    "autoformer": TIME_SERIES,
    "informer": TIME_SERIES,
    "patchtsmixer": {"self_attn": True, "self_attn_heads": 4},  # the only attention the type has, off by default
    "patchtst": {"patch_length": 4, "patch_stride": 4, "num_input_channels": 2},
    "pe_audio_encoder": {"dac_config": {"encoder_hidden_size": 8, "downsampling_ratios": [2, 4], "codebook_dim": 16}},
    "qwen2_audio_encoder": {"max_source_positions": 20},
    "time_series_transformer": TIME_SERIES,
    "univnet": {"model_hidden_channels": 8, "kernel_predictor_num_blocks": 1},
    "voxtral_encoder": {"max_source_positions": 20},
    "whisper": {"max_source_positions": 20},
}
OVERRIDES = {**TEXT, **IMAGES, **OTHER}
