"""What the common table of sizes gets wrong for images and videos, one row a model type.

The rows are arguments of the configuration class, sizes only: no row changes what the attention of a type does,
except where its comment says so.
"""

from __future__ import annotations

from typing import Any

PYRAMID = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4]}
STAGES = {"hidden_sizes": [16, 32], "depths": [1, 1]}
SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4}

IMAGES: dict[str, dict[str, Any]] = {
    "bit": {**STAGES, "embedding_size": 16, "num_groups": 8},
    "convnext": {**STAGES, "layer_scale_init_value": 1.0, "patch_size": 4},
    "convnextv2": {**STAGES, "patch_size": 4},
    "cvt": {"embed_dim": [16, 32, 48], "num_heads": [1, 2, 3], "depth": [1, 2, 3]},
    "donut-swin": SWIN,
    "efficientnet": {
        "width_coefficient": 0.05,
        "depth_coefficient": 1.0,
        "kernel_sizes": [3, 3],
        "in_channels": [160, 160],
        "out_channels": [160, 320],
        "strides": [1, 2],
        "num_block_repeats": [1, 1],
        "expand_ratios": [1, 2],
        "hidden_dim": 64,
    },
    "focalnet": {
        "embed_dim": 16,
        "patch_size": 4,
        "hidden_sizes": [16, 32],
        "depths": [1, 1],
        "focal_levels": [2, 2],
        "focal_windows": [3, 3],
    },
    "glpn": PYRAMID,
    "hgnet_v2": {
        "stem_channels": [3, 8, 8],
        "stage_in_channels": [8, 16, 16, 16],
        "stage_mid_channels": [8, 8, 8, 8],
        "stage_out_channels": [16, 16, 16, 16],
        "stage_num_blocks": [1, 1, 1, 1],
        "stage_numb_of_layers": [2, 2, 2, 2],
        "hidden_sizes": [16, 16, 16, 16],
        "depths": [1, 1, 1, 1],
        "embedding_size": 8,
    },
    "hiera": {"image_size": [64, 64], "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4]},
    "internvl_vision": {"image_size": [32, 32], "patch_size": [8, 8]},
    "levit": {
        "image_size": 64,
        "patch_size": 16,
        "hidden_sizes": [32, 48, 64],
        "num_attention_heads": [2, 2, 4],
        "depths": [1, 1, 1],
        "key_dim": [8, 8, 8],
    },
    "mgp-str": {"num_bpe_labels": 99, "num_wordpiece_labels": 99},
    "mobilevit": {"image_size": 128, "hidden_sizes": [32, 48, 64], "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 64]},
    "mobilevitv2": {"image_size": 128, "base_attn_unit_dims": [16, 24, 32], "n_attn_blocks": [1, 1, 1]},
    "poolformer": {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32], "layer_scale_init_value": 1.0},
    "pvt": {**PYRAMID, "image_size": 64},
    "pvt_v2": {**PYRAMID, "image_size": 64},
    "regnet": {**STAGES, "embedding_size": 16, "groups_width": 8},
    "resnet": {**STAGES, "embedding_size": 16},
    "sam2_vision_model": {
        "backbone_config": {
            "hidden_size": 16,
            "image_size": [64, 64],
            "blocks_per_stage": [1, 1, 2, 1],
            "embed_dim_per_stage": [16, 32, 48, 64],
            "num_attention_heads": 1,
            "num_attention_heads_per_stage": [1, 2, 2, 4],
            "window_size_per_stage": [8, 4, 4, 2],
            "global_attention_blocks": [3],
        },
        "backbone_channel_list": [64, 48, 32, 16],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 16,
    },
    "segformer": PYRAMID,
    "shieldgemma2": {
        "text_config": {"query_pre_attn_scalar": 8},
        "mm_tokens_per_image": 4,
        "boi_token_index": 95,
        "eoi_token_index": 96,
        "image_token_index": 97,
        "yes_token_index": 7,
        "no_token_index": 9,
    },
    "swin": SWIN,
    "swiftformer": {
        "image_size": 64,
        "depths": [1, 1, 1, 1],
        "embed_dims": [16, 24, 32, 40],
        "layer_scale_init_value": 1.0,
    },
    "swinv2": SWIN,
    "textnet": {"image_size": [64, 64], "stem_out_channels": 8, "hidden_sizes": [8, 8, 16, 16, 32]},
    "timesformer": {"num_frames": 4},
    "timm_wrapper": {
        "architecture": "vit_tiny_patch16_224",
        "model_args": {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4},
    },
    "videomae": {"num_frames": 4},
    "videoprism_vision_model": {
        "num_frames": 4,
        "tubelet_size": [1, 8, 8],
        "num_spatial_layers": 2,
        "num_temporal_layers": 2,
    },
    "vivit": {"num_frames": 4, "tubelet_size": [2, 8, 8]},
    "vjepa2": {
        "crop_size": 32,
        "frames_per_clip": 4,
        "pred_hidden_size": 32,
        "pred_num_attention_heads": 4,
        "pred_num_hidden_layers": 2,
    },
    "xclip": {
        "projection_dim": 32,
        "prompt_num_attention_heads": 4,
        "vision_config": {
            "num_frames": 4,
            "mit_hidden_size": 32,
            "mit_intermediate_size": 64,
            "mit_num_attention_heads": 4,
        },
    },
}
