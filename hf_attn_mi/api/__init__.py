"""`explain`, `compare`, `attention_maps`, `certify`, `minimal_tokens`, `fit_background`: from inputs to results."""

from hf_attn_mi.api.backgrounds.background import fit_background
from hf_attn_mi.api.certificates.certifying import certify
from hf_attn_mi.api.comparing.comparing import compare
from hf_attn_mi.api.comparing.rationales import rationale_spans
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
    "compare",
    "explain",
    "fit_background",
    "minimal_tokens",
    "rationale_spans",
    "read_texts_of",
    "recheck",
]
