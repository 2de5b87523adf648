"""Sizes that the common table of `configs` gets wrong, one row for each model type: text, images, audio and others.

The rows are arguments of the configuration class, sizes only: no row changes what the attention of a type does,
except where its comment says so.
"""

from __future__ import annotations

from typing import Any

DROP = object()  # leave this argument at its default

DEEPSEEK = {"num_key_value_heads": 4, "n_group": 2, "topk_group": 1}
LINEAR_ATTENTION = {  # every fourth layer is ordinary attention
    "num_hidden_layers": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
NO_GROUPED_QUERIES = {"num_key_value_heads": 4}
ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
SCALED_BY_8 = {"query_pre_attn_scalar": 8}  # the width of a head
VOCABULARY_MAP = {"<image>": 98, "<|extra_200|>": 97, "<|visual token 000000|>": 96}

TEXT: dict[str, dict[str, Any]] = {
    "axk1": DEEPSEEK,
    "axk2": NO_GROUPED_QUERIES,
    "big_bird": {"attention_type": "original_full"},  # block-sparse attention is chosen for long inputs only
    "blip_2_qformer": {"encoder_hidden_size": 32},
    "bros": {"hidden_size": 64},
    "canine": {"downsampling_rate": 4, "num_hash_buckets": 99, "local_transformer_stride": 8},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {"sliding_attention": ROPE, "full_attention": ROPE},
    },
    "convbert": {"embedding_size": 32},
    "deepseek_v2": {**DEEPSEEK, "num_experts_per_tok": 2},
    "deepseek_v3": NO_GROUPED_QUERIES,
    "emu3": {
        "vocabulary_map": VOCABULARY_MAP,
        "vq_config": {"base_channels": 32, "channel_multiplier": [1, 1], "num_res_blocks": 1, "codebook_size": 16},
    },
    "esm": {"vocab_size": 99, "pad_token_id": 1, "mask_token_id": 2},
    "esmc": NO_GROUPED_QUERIES,
    "falcon": {"head_dim": DROP},
    "funnel": {"block_sizes": [1, 1], "block_repeats": [1, 1], "num_decoder_layers": 1, "num_hidden_layers": DROP},
    "gemma2": SCALED_BY_8,
    "gemma3": {"text_config": SCALED_BY_8},
    "gemma3_text": SCALED_BY_8,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 8},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "layoutlmv3": {"coordinate_size": 4, "shape_size": 8, "input_size": 32},
    "led": {"attention_window": 8, "max_encoder_position_embeddings": 128, "max_decoder_position_embeddings": 128},
    "lilt": {"hidden_size": 48},
    "llama4": {
        "vision_config": {"vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32},
    },
    "longformer": {"attention_window": 8, "pad_token_id": 1},
    "luke": {"entity_vocab_size": 99, "entity_emb_size": 32},
    "lxmert": {"l_layers": 2, "x_layers": 2, "r_layers": 2, "visual_feat_dim": 32},
    "markuplm": {"max_depth": 4},
    "minicpm3": NO_GROUPED_QUERIES,
    "ministral": {"head_dim": 8},
    "mistral4": {"num_key_value_heads": 4, "head_dim": DROP, "qk_head_dim": DROP},
    "mobilebert": {"true_hidden_size": 32, "intra_bottleneck_size": 32, "hidden_size": 64},
    "nemotron": {"head_dim": 8, "num_key_value_heads": 2},
    "neomme": {"head_dim": 16},
    "nystromformer": {"num_landmarks": 4, "segment_means_seq_len": 16},
    "perceiver": {
        "num_latents": 8,
        "d_latents": 32,
        "num_blocks": 1,
        "num_self_attends_per_block": 2,
        "num_self_attention_heads": 4,
        "num_cross_attention_heads": 4,
        "max_position_embeddings": 16,
        "qk_channels": 32,
        "v_channels": 32,
    },
    "prophetnet": {"num_hidden_layers": DROP},
    "qwen3_next": LINEAR_ATTENTION,
    "qwen3_5": {"text_config": LINEAR_ATTENTION},
    "qwen3_5_text": LINEAR_ATTENTION,
    "reformer": {
        "attn_layers": ["local", "lsh"],
        "num_attention_heads": 2,
        "attention_head_size": 16,
        "feed_forward_size": 64,
        "axial_pos_shape": [8, 16],
        "axial_pos_embds_dim": [16, 16],
        "local_attn_chunk_length": 8,
        "lsh_attn_chunk_length": 8,
        "num_hashes": 1,
        "num_buckets": 4,
        "is_decoder": False,
        "hash_seed": 0,  # otherwise every forward draws new hash functions
    },
    "roc_bert": {
        "pronunciation_embed_dim": 16,
        "pronunciation_vocab_size": 99,
        "shape_embed_dim": 16,
        "shape_vocab_size": 99,
    },
    "t5gemma": {"encoder": SCALED_BY_8, "decoder": SCALED_BY_8},
    "t5gemma2": {"encoder": {"text_config": SCALED_BY_8}, "decoder": SCALED_BY_8},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 3,
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "attention_hidden_size": DROP,
        "head_dim": DROP,
    },
    "zamba2": {
        "num_hidden_layers": 3,
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "chunk_size": 8,
        "attention_hidden_size": DROP,
        "head_dim": DROP,
    },
}

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
