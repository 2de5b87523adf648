"""`explain` and `attention_maps`: from a model and its inputs to frozen results."""

from hf_attn_mi.api.explaining import explain
from hf_attn_mi.api.maps import AttentionMaps, attention_maps
from hf_attn_mi.api.methods import METHODS

__all__ = ["METHODS", "AttentionMaps", "attention_maps", "explain"]
