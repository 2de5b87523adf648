"""Tiny models of images and audio with random weights, their processors, and inputs; everything is built offline."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from transformers import PreTrainedModel

from tests.zoo.building import rescale

VISION = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
PATCHES = {**VISION, "image_size": 32, "patch_size": 8}
SPEECH = {**VISION, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "conv_dim": (32,) * 7}
SPECTROGRAM = {**VISION, "num_mel_bins": 32, "max_length": 64, "patch_size": 8, "frequency_stride": 8, "time_stride": 8}
SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
WHISPER = {
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_layers": 1,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 64,
    "classifier_proj_size": 16,
    "max_source_positions": 50,
}
IMAGE_MODELS = {  # name -> class and options of its configuration
    "vit": ("ViTForImageClassification", PATCHES),
    "deit": ("DeiTForImageClassification", PATCHES),
    "beit": ("BeitForImageClassification", PATCHES),
    "dinov2": ("Dinov2ForImageClassification", PATCHES),
    "dinov2 with registers": ("Dinov2WithRegistersForImageClassification", {**PATCHES, "num_register_tokens": 4}),
    "swin": ("SwinForImageClassification", SWIN),
    "siglip": ("SiglipForImageClassification", {"vision_config": PATCHES}),
    "clip": ("CLIPForImageClassification", {"vision_config": PATCHES}),
}
AUDIO_MODELS = {
    "wav2vec2": ("Wav2Vec2ForSequenceClassification", SPEECH),
    "hubert": ("HubertForSequenceClassification", SPEECH),
    "wavlm": ("WavLMForSequenceClassification", SPEECH),
    "ast": ("ASTForAudioClassification", SPECTROGRAM),
    "whisper": ("WhisperForAudioClassification", WHISPER),
}


def media_model(name: str, **options: Any) -> PreTrainedModel:
    """The tiny model of this name of `IMAGE_MODELS` or `AUDIO_MODELS`, with three classes."""
    class_name, settings = (IMAGE_MODELS | AUDIO_MODELS)[name]
    model_class = getattr(transformers, class_name)
    labels = {"id2label": {0: "cat", 1: "dog", 2: "bird"}, "label2id": {"cat": 0, "dog": 1, "bird": 2}}
    torch.manual_seed(0)
    model = model_class(model_class.config_class(**{**settings, **labels, **options}))
    rescale(model)
    return model.eval()


def image_processor() -> Any:
    """The processor of the models of images, which needs no torchvision."""
    return transformers.ViTImageProcessorPil(size={"height": 32, "width": 32})


def feature_extractor(name: str) -> Any:
    """The feature extractor of a model of audio."""
    if name == "ast":
        return transformers.ASTFeatureExtractor(num_mel_bins=32, max_length=64)
    if name == "whisper":
        return transformers.WhisperFeatureExtractor(chunk_length=1)
    return transformers.Wav2Vec2FeatureExtractor()


def picture(seed: int = 0, size: tuple[int, int] = (50, 70)) -> Image.Image:
    """An image of height x width pixels with a bright square on noise."""
    pixels = np.random.RandomState(seed).randint(0, 120, (*size, 3), dtype=np.uint8)
    pixels[10:30, 20:45] = (240, 200, 40)
    return Image.fromarray(pixels)


def tone(seconds: float = 0.5, rate: int = 16000, pitch: float = 440.0) -> np.ndarray:
    """A tone that begins in the middle of noise."""
    times = np.arange(round(seconds * rate)) / rate
    noise = 0.05 * np.random.RandomState(0).randn(len(times))
    return (noise + 0.5 * np.sin(2 * np.pi * pitch * times) * (times > seconds / 2)).astype(np.float32)


def write_wav(path: Path, samples: np.ndarray, rate: int = 16000, channels: int = 1) -> Path:
    """A .wav file of 16 bits, written with the standard library."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path
