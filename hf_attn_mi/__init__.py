"""Which tokens and which attention weights made this prediction, and how do you know?"""

from hf_attn_mi.api import attention_maps, explain, fit_background
from hf_attn_mi.attention import attention_interval, effective_attention, efficient_attention, rollout
from hf_attn_mi.capture import capture_attention
from hf_attn_mi.errors import BackendUnavailable, HfAttnMiError, InvalidInput, UnsupportedModel
from hf_attn_mi.explanation import Explanation
from hf_attn_mi.mi import mutual_information
from hf_attn_mi.mi.background import Background

__version__ = "0.1.0"
__all__ = [
    "BackendUnavailable",
    "Background",
    "Explanation",
    "HfAttnMiError",
    "InvalidInput",
    "UnsupportedModel",
    "attention_interval",
    "attention_maps",
    "capture_attention",
    "effective_attention",
    "efficient_attention",
    "explain",
    "fit_background",
    "mutual_information",
    "rollout",
]
