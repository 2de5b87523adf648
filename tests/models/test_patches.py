"""Positions of images: prefix tokens are named and special, patches are named by row and column."""

import pytest
import torch
from transformers import (
    DeiTConfig,
    DeiTForImageClassification,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from hf_attn_mi import explain

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 16,
    "patch_size": 4,
}
GRID = [f"patch {row},{column}" for row in range(4) for column in range(4)]


@pytest.mark.parametrize(
    ("config", "model_class", "prefix"),
    [
        (ViTConfig(**SIZES), ViTForImageClassification, ["[CLS]"]),
        (DeiTConfig(**SIZES), DeiTForImageClassification, ["[CLS]", "[DIST]"]),
        (
            Dinov2WithRegistersConfig(**SIZES, num_register_tokens=4),
            Dinov2WithRegistersForImageClassification,
            ["[CLS]", "[REG 0]", "[REG 1]", "[REG 2]", "[REG 3]"],
        ),
    ],
    ids=["vit", "deit", "dinov2 with registers"],
)
def test_prefix_tokens_are_no_patches(config, model_class, prefix):
    torch.manual_seed(0)
    model = model_class(config).eval()
    explanation = explain(model, {"pixel_values": torch.randn(1, 3, 16, 16)})
    assert list(explanation.tokens) == [*prefix, *GRID]
    assert list(explanation.special) == [True] * len(prefix) + [False] * 16
    assert explanation.completeness_gap < 1e-4
    assert {word.text for word in explanation.to_words()} == set(GRID)
