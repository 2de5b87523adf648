"""`explain`, `attention_maps`, `certify`, `minimal_tokens`, `fit_background`: a model and inputs to frozen results."""

from hf_attn_mi.api.backgrounds.background import fit_background
from hf_attn_mi.api.certificates.certifying import certify
from hf_attn_mi.api.explaining import explain
from hf_attn_mi.api.inputs.data import read_texts_of
from hf_attn_mi.api.maps import AttentionMaps, attention_maps
from hf_attn_mi.api.methods import METHODS
from hf_attn_mi.api.token_sets.minimal import minimal_tokens
from hf_attn_mi.api.token_sets.rechecking import recheck

__all__ = [
    "METHODS",
    "AttentionMaps",
    "attention_maps",
    "certify",
    "explain",
    "fit_background",
    "minimal_tokens",
    "read_texts_of",
    "recheck",
]
