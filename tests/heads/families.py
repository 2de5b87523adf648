"""Tiny random encoders of several families, built from their configurations."""

import torch
from transformers import AutoModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

FAMILIES = {
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 16},
    "roberta": {},
    "electra": {"embedding_size": 16},
    "modernbert": {},
    "deberta-v2": {},
    "mpnet": {},
    "albert": {"embedding_size": 16},
    "fnet": {},
}
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 30,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}


def tiny_encoder(family):
    """A random encoder of this family: two layers, two heads, 16 wide, 30 tokens."""
    torch.manual_seed(0)
    sizes = SIZES
    if family == "distilbert":
        sizes = {name: SIZES[name] for name in ("vocab_size", "max_position_embeddings", "pad_token_id")}
    return AutoModel.from_config(CONFIG_MAPPING[family](**(sizes | FAMILIES[family]))).eval()
