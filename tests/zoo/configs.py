"""Tiny configurations: the defaults of a type, shrunk by a common table and, where that fails, by a row of its own."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from .overrides import DROP, OVERRIDES

VOCABULARY = 99
MODEL_WIDTH = "hidden_size d_model n_embd emb_dim dim embed_dim word_embed_proj_dim embedding_size decoder_hidden_size"
DEPTH = """
num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_decoder_layers decoder_num_hidden_layers
"""
HEADS = "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads"
HEAD_WIDTH = "head_dim d_head d_kv qk_rope_head_dim qk_nope_head_dim v_head_dim"
INNER_WIDTH = "d_ff intermediate_size hidden_dim encoder_ffn_dim decoder_ffn_dim ffn_dim n_inner d_inner"
POSITIONS = "max_position_embeddings n_positions n_ctx"
EXPERTS = "num_local_experts num_experts n_routed_experts"
SMALL: dict[str, int] = {
    "vocab_size": VOCABULARY,
    "vocab_size_per_layer_input": VOCABULARY,
    **dict.fromkeys(MODEL_WIDTH.split(), 32),
    **dict.fromkeys(DEPTH.split(), 2),
    **dict.fromkeys(HEADS.split(), 4),
    **dict.fromkeys(HEAD_WIDTH.split(), 8),
    **dict.fromkeys(INNER_WIDTH.split(), 64),
    **dict.fromkeys(POSITIONS.split(), 128),
    **dict.fromkeys(EXPERTS.split(), 4),
    "num_key_value_heads": 2,
    "qk_head_dim": 16,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "num_experts_per_tok": 2,
    "attention_hidden_size": 32,
    "mamba_d_state": 8,
    "num_conv_pos_embeddings": 16,
    "image_size": 32,
    "patch_size": 8,
}
NEVER_GROWN = {"image_size", "patch_size", *POSITIONS.split()}
SPECIAL_TOKENS = ("pad", "bos", "eos", "decoder_start", "sep", "cls", "mask")


def tiny_config(model_type: str) -> PreTrainedConfig:
    """A configuration of about two layers of width 32 for `model_type`."""
    config_class = CONFIG_MAPPING[model_type]
    overrides = OVERRIDES.get(model_type, {})
    arguments = _merged(_shrunk(config_class()), overrides)
    config = config_class(**{key: value for key, value in arguments.items() if value is not DROP})
    if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = 0
    for part in (config, config.get_text_config()):
        if getattr(part, "pad_token_id", 0) is None:
            part.pad_token_id = 1
    config.architectures = []
    return config


def _shrunk(config: PreTrainedConfig) -> dict[str, Any]:
    """Constructor arguments that make `config` and the configurations inside it small."""
    arguments: dict[str, Any] = {}
    for key, value in SMALL.items():
        current = getattr(config, key, None)
        is_count = isinstance(current, int) and not isinstance(current, bool)
        if is_count and not (key in NEVER_GROWN and current < value):
            arguments[key] = value
    for key in (f"{token}_token_id" for token in SPECIAL_TOKENS):
        current = getattr(config, key, None)
        if isinstance(current, list) or (isinstance(current, int) and current >= VOCABULARY):
            arguments[key] = 2
    if isinstance(getattr(config, "conv_dim", None), (list, tuple)):  # feature extractors of speech encoders
        arguments["conv_dim"] = [16] * len(config.conv_dim)
    for key, part in vars(config).items():
        if isinstance(part, PreTrainedConfig):
            arguments[key] = {**_shrunk(part), "model_type": part.model_type}
    return arguments


def _merged(arguments: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """`arguments` with `overrides` on top; a dictionary is merged into the dictionary it meets."""
    merged = dict(arguments)
    for key, value in overrides.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if nested else value
    return merged
