"""Why a type cannot be built, and what to know about those that can."""

from __future__ import annotations

CANNOT_BUILD = {
    "dinat": "needs natten2dqkrpb and natten2dav, which current releases of natten no longer have",
    "layoutlmv2": "needs detectron2, which is not on the Python package index",
}
NOTES = {
    "autoformer": "no padding: the encoder cannot apply a mask to its autocorrelations",
    "fsmt": "encoder and decoder together: the encoder alone is no PreTrainedModel",
    "informer": "no padding: the encoder halves its length; not deterministic: every forward draws keys at random",
    "nystromformer": "no padding: with a mask the landmark attention of transformers raises",
    "patchtsmixer": "self_attn switched on: the default configuration has no attention",
    "vilt": "image_embeds instead of pixel_values: patches of pixel_values are shuffled on every forward",
    "vit_mae": "fixed noise: otherwise every forward hides other patches",
}
SEES_IMAGES_TOO = "emu3 gemma3 layoutlmv3 llama4 mllama modernvbert qwen3_5 t5gemma2 udop visual_bert"
TEXT_ONLY = dict.fromkeys(SEES_IMAGES_TOO.split(), "text only: no image is passed")
