"""What the common table of sizes gets wrong for text models, one row a model type.

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
