"""Draw the pictures of docs/images: train two tiny models on shapes and tones, and explain them.

    python scripts/draw_examples.py            # a few minutes on one thread; same pictures every time

Nothing is downloaded. The models are far too small for photographs or speech; they show what the pictures mean: the
shape that decides the class, and the moment at which a tone begins.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    pipeline,
)

from hf_attn_mi import explain

ROOT = Path(__file__).parents[1]
SIDE, RATE = 96, 4000
SHAPES, TONES = ("circle", "square", "cross"), ("noise", "low tone", "high tone")
REVIEW = (
    "The first hour is slow, and I looked at my watch more than once. The rooms are dark, the dialogue is wooden and "
    "nobody seems to want to be there. Then the sister arrives, and the film wakes up. She is funny, warm and "
    "quick, and every scene with her is a joy. The last half hour is beautiful: quiet, generous and never sentimental. "
)


def shape_image(rng: np.random.Generator, kind: int) -> Image.Image:
    """A shape of a random size, place and color on noise, among smaller gray marks."""
    image = Image.fromarray(rng.integers(60, 150, (SIDE, SIDE, 3), dtype=np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(3):
        x, y = rng.integers(4, SIDE - 12, 2).tolist()
        draw.line((x, y, x + 8, y + int(rng.integers(-6, 6))), fill=(90, 90, 90), width=2)
    size = int(rng.integers(20, 30))
    x, y = rng.integers(4, SIDE - size - 4, 2).tolist()
    color = tuple(rng.integers(120, 256, 3).tolist())
    box = (x, y, x + size, y + size)
    if SHAPES[kind] == "circle":
        draw.ellipse(box, outline=color, width=4)
    elif SHAPES[kind] == "square":
        draw.rectangle(box, outline=color, width=4)
    else:
        draw.line((x, y, x + size, y + size), fill=color, width=4)
        draw.line((x, y + size, x + size, y), fill=color, width=4)
    return image


def tone_recording(rng: np.random.Generator, kind: int, start: float | None = None) -> np.ndarray:
    """One second of noise, with a short tone, low or high, that begins at a random moment; or without one."""
    times = np.arange(RATE) / RATE
    start = float(rng.uniform(0.1, 0.7)) if start is None else start
    pitch = (0.0, 300.0, 800.0)[kind] * float(rng.uniform(0.9, 1.1))
    tone = np.sin(2 * np.pi * pitch * times) * ((times >= start) & (times < start + 0.2))
    return (0.3 * rng.standard_normal(RATE) + tone).astype(np.float32)


def train(
    model: PreTrainedModel, draw: Callable[[int], dict[str, Tensor]], labels: Callable[[int], Tensor], steps: int
) -> float:
    """Train a classifier; the share of right answers in its last 20 steps.

    Args:
        model: to train.
        draw: number of the step -> the model's arguments.
        labels: number of the step -> (batch,) classes.
        steps: the number of steps of AdamW.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
    right = []
    model.train()
    for step in range(steps):
        classes = labels(step)
        logits = model(**draw(step)).logits
        loss = nn.functional.cross_entropy(logits, classes)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        right.append(float((logits.argmax(1) == classes).float().mean()))
    model.eval()
    return float(np.mean(right[-20:]))


def names(labels: tuple[str, ...]) -> dict[str, dict]:
    """The names of classes, as configurations take them."""
    return {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}


def image_model(steps: int) -> tuple[PreTrainedModel, ViTImageProcessorPil]:
    """A vision transformer that tells shapes apart."""
    config = ViTConfig(
        hidden_size=64, num_hidden_layers=4, num_attention_heads=4, intermediate_size=128, patch_size=8,
        image_size=SIDE, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **names(SHAPES),
    )  # fmt: skip
    torch.manual_seed(0)
    model, processor = ViTForImageClassification(config), ViTImageProcessorPil(size={"height": SIDE, "width": SIDE})
    rng, batch = np.random.default_rng(0), 48
    kinds = rng.integers(0, len(SHAPES), (steps, batch))

    def draw(step: int) -> dict[str, Tensor]:
        images = [shape_image(rng, int(kind)) for kind in kinds[step]]
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
        return {"pixel_values": pixels / 127.5 - 1}  # as the processor normalizes

    accuracy = train(model, draw, lambda step: torch.from_numpy(kinds[step]), steps)
    print(f"shapes: {accuracy:.0%} right")
    return model, processor


def audio_model(steps: int) -> tuple[PreTrainedModel, Wav2Vec2FeatureExtractor]:
    """A speech model that tells low tones, high tones and noise apart."""
    config = Wav2Vec2Config(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, conv_dim=(32, 32, 48),
        conv_stride=(5, 4, 2), conv_kernel=(10, 8, 4), num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
        hidden_dropout=0.0, attention_dropout=0.0, feat_proj_dropout=0.0, layerdrop=0.0, mask_time_prob=0.0,
        feat_extract_norm="layer", classifier_proj_size=32, **names(TONES),
    )  # fmt: skip
    torch.manual_seed(0)
    model, extractor = Wav2Vec2ForSequenceClassification(config), Wav2Vec2FeatureExtractor(sampling_rate=RATE)
    rng, batch = np.random.default_rng(1), 16
    kinds = rng.integers(0, len(TONES), (steps, batch))

    def draw(step: int) -> dict[str, Tensor]:
        recordings = [tone_recording(rng, int(kind)) for kind in kinds[step]]
        return dict(extractor(recordings, sampling_rate=RATE, return_tensors="pt"))

    accuracy = train(model, draw, lambda step: torch.from_numpy(kinds[step]), steps)
    print(f"tones: {accuracy:.0%} right")
    return model, extractor


def main() -> None:
    """Train, explain and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images", help="folder of the pictures")
    parser.add_argument("--steps", type=int, default=500, help="training steps of each model")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)

    model, processor = image_model(arguments.steps)
    image = shape_image(np.random.default_rng(7), 0)
    explain(model, image, processor=processor).plot(arguments.output / "image.png")

    model, extractor = audio_model(arguments.steps // 2)
    recording = tone_recording(np.random.default_rng(3), 2, start=0.55)
    one = explain(model, recording, processor=extractor, sampling_rate=RATE)
    one.plot(arguments.output / "audio.png")

    source = ROOT / "hf_attn_mi" / "embedded_model"
    classifier = AutoModelForSequenceClassification.from_pretrained(source)
    tokenizer = AutoTokenizer.from_pretrained(source)
    pipe = pipeline("text-classification", model=classifier, tokenizer=tokenizer, truncation=True, max_length=48)
    explain(pipe, REVIEW, stride=16).plot(arguments.output / "long_text.png")


if __name__ == "__main__":
    main()
