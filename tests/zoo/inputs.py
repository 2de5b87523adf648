"""Inputs for the models: one maker for each main input, and makers for the types that need another input."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

BATCH = 2
LENGTH, SHORT = 16, 12  # tokens of the two rows; the second is padded on the right
SAMPLES, SHORT_SAMPLES = 4000, 3000
FRAMES, SHORT_FRAMES = 40, 30

BOXES, SHORT_BOXES = 8, 6
VIDEO_FRAMES, SIZE = 4, 32  # as in overrides

Inputs = dict[str, Tensor]
Maker = Callable[[PreTrainedConfig, torch.Generator], Inputs]


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


def make_inputs(model: PreTrainedModel, model_type: str, auto: str) -> Inputs:
    """Inputs of two rows, the second padded on the right where the type has a mask. Same every time."""
    generator = torch.Generator().manual_seed(1)
    maker = BY_JOB.get((auto, model_type)) or BY_TYPE.get(model_type) or BY_MAIN_INPUT[model.main_input_name]
    return maker(model.config, generator)


def bare_image(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    return {"inputs": image(config, generator)["pixel_values"]}


def bare_text(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    batch = text(config, generator)
    return {"inputs": batch["input_ids"], "attention_mask": batch["attention_mask"]}


def bert_tables(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    """Cells of a table: segment, column, row, and four ranks, the vocabularies of which have 2 or more entries."""
    batch = text(config, generator)
    return {**batch, "token_type_ids": torch.randint(0, 2, (BATCH, LENGTH, 7), generator=generator)}


def cross_modal(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    features = torch.randn(BATCH, BOXES, config.visual_feat_dim, generator=generator)
    positions = torch.rand(BATCH, BOXES, config.visual_pos_dim, generator=generator)
    visual = {"visual_feats": features, "visual_pos": positions, "visual_attention_mask": mask(BOXES, SHORT_BOXES)}
    return {**text(config, generator), **visual}


def embedded_image(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    # ViLT shuffles the patches of `pixel_values` on every forward; it leaves `image_embeds` in their order.
    patches = torch.randn(BATCH, 16, config.hidden_size, generator=generator)
    return {**text(config, generator), "image_embeds": patches, "pixel_mask": mask(16, 12).view(BATCH, 4, 4)}


def embedded_audio(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    frames = torch.randn(BATCH, LENGTH, config.hidden_size, generator=generator)
    return {"input_values": frames, "attention_mask": mask(LENGTH, SHORT)}


def embedded_series(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    return {"inputs_embeds": torch.randn(BATCH, LENGTH, config.feature_size, generator=generator)}


def embedded_series_with_mask(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    return {**embedded_series(config, generator), "attention_mask": mask(LENGTH, SHORT)}


def image_and_text(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    batch = text(config, generator)
    batch["input_ids"][:, 2 : 2 + config.mm_tokens_per_image] = config.image_token_index
    pixels = image(config, generator)["pixel_values"]
    return {**batch, "pixel_values": pixels, "token_type_ids": (batch["input_ids"] == config.image_token_index).long()}


def masked_image(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    patches = (config.image_size // config.patch_size) ** 2
    return {**image(config, generator), "noise": torch.rand(BATCH, patches, generator=generator)}


def noise_and_spectrogram(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    features = spectrogram(config, generator)["input_features"]
    noise = torch.randn(BATCH, FRAMES, config.model_in_channels, generator=generator)
    padding = mask(FRAMES, SHORT_FRAMES)
    return {"input_features": features, "noise_sequence": noise, "padding_mask": padding}


def normalized_boxes(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    batch = boxed_text(config, generator)
    return {**batch, "bbox": batch["bbox"] / 100}


def padded_waveform(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    batch = audio(config, generator)
    waveform = batch["input_values"][:, None, :400]
    return {"input_values": waveform, "padding_mask": mask(400, 300)}


def patches_of_image(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    width = 3 * getattr(config, "vision_config", config).patch_size ** 2
    return {
        "pixel_values": torch.randn(BATCH, 16, width, generator=generator),
        "pixel_attention_mask": mask(16, 12),
        "spatial_shapes": torch.tensor([[4, 4], [3, 4]]),
    }


def queries(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    return {
        "query_embeds": torch.randn(BATCH, 8, config.hidden_size, generator=generator),
        "attention_mask": mask(8, 6),
        "encoder_hidden_states": torch.randn(BATCH, LENGTH, config.encoder_hidden_size, generator=generator),
        "encoder_attention_mask": mask(LENGTH, SHORT),
    }


def series(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    return {"past_values": torch.randn(BATCH, config.context_length, config.num_input_channels, generator=generator)}


def series_with_padding(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    length = 8 * config.patch_length
    return {
        "past_values": torch.randn(BATCH, length, generator=generator),
        "past_values_padding": 1.0 - mask(length, 6 * config.patch_length),
        "freq": torch.tensor([[0], [1]]),
    }


def spectrogram_bins_first(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    frames = 2 * config.max_source_positions
    return {"input_features": torch.randn(BATCH, config.num_mel_bins, frames, generator=generator)}


def spectrogram_masked(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    frames = 2 * config.max_source_positions
    return {**spectrogram_bins_first(config, generator), "input_features_mask": mask(frames, frames - 10)}


def spectrogram_values(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    return {"input_values": torch.randn(BATCH, config.max_length, config.num_mel_bins, generator=generator)}


def square_image(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    return {"pixel_values": torch.randn(BATCH, 3, SIZE, SIZE, generator=generator)}


def unpadded_text(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    return {"input_ids": torch.randint(5, 90, (BATCH, LENGTH), generator=generator)}


def video(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    return {"pixel_values": torch.randn(BATCH, VIDEO_FRAMES, 3, SIZE, SIZE, generator=generator)}


def video_and_text(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    return {**text(config, generator), **video(config, generator)}


def video_by_name(config: PreTrainedConfig, generator: torch.Generator) -> Inputs:
    return {"pixel_values_videos": video(config, generator)["pixel_values"]}


BY_MAIN_INPUT: dict[str, Maker] = {
    "input_ids": text,
    "pixel_values": image,
    "input_values": audio,
    "input_features": spectrogram,
}
BY_JOB: dict[tuple[str, str], Maker] = {("imgcls", "perceiver"): bare_image, ("seqcls", "perceiver"): bare_text}
MAKERS: dict[Maker, str] = {
    boxed_text: "bros layoutlm layoutlmv3 lilt",
    bert_tables: "tapas",
    cross_modal: "lxmert",
    embedded_image: "vilt",
    embedded_audio: "speecht5",
    embedded_series: "autoformer informer",
    embedded_series_with_mask: "time_series_transformer",
    image_and_text: "shieldgemma2",
    masked_image: "vit_mae",
    noise_and_spectrogram: "univnet",
    normalized_boxes: "udop",
    padded_waveform: "pe_audio_encoder",
    patches_of_image: "siglip2 siglip2_vision_model",
    queries: "blip_2_qformer",
    series: "patchtst patchtsmixer",
    series_with_padding: "timesfm",
    spectrogram_bins_first: "qwen2_audio_encoder voxtral_encoder whisper",
    spectrogram_masked: "audioflamingo3_encoder",
    spectrogram_values: "audio-spectrogram-transformer",
    square_image: "timm_wrapper",
    unpadded_text: "nystromformer",
    video: "timesformer videomae vivit",
    video_and_text: "xclip",
    video_by_name: "videoprism_vision_model vjepa2",
}
BY_TYPE: dict[str, Maker] = {name: maker for maker, names in MAKERS.items() for name in names.split()}
