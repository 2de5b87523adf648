"""Which tokens and which attention weights made this prediction, and how do you know?"""

from hf_attn_mi.attention import attention_interval, effective_attention, efficient_attention, rollout
from hf_attn_mi.capture import capture_attention
from hf_attn_mi.errors import BackendUnavailableError, HfAttnMiError, InvalidInputError, UnsupportedModelError
from hf_attn_mi.mi import mutual_information
from hf_attn_mi.results.explanation import Explanation
from hf_attn_mi.results.information_profile import InformationProfile
from hf_attn_mi.tasks.attention_maps import attention_maps
from hf_attn_mi.tasks.explain import explain
from hf_attn_mi.tasks.fit_information import fit_information

__version__ = "0.1.0"
__all__ = [
    "BackendUnavailableError",
    "Explanation",
    "HfAttnMiError",
    "InformationProfile",
    "InvalidInputError",
    "UnsupportedModelError",
    "attention_interval",
    "attention_maps",
    "capture_attention",
    "effective_attention",
    "efficient_attention",
    "explain",
    "fit_information",
    "mutual_information",
    "rollout",
]
