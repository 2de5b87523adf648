"""Attention rows and what they say: effective, efficient, identifiable, rolled out."""

from hf_attn_mi.attention.effective import (
    EffectiveAttention,
    EffectiveSummary,
    effective_attention,
    effective_summary,
    received_effective,
)
from hf_attn_mi.attention.efficient import EfficientAttention, efficient_attention
from hf_attn_mi.attention.identifiable import IdentifiableWeights, identifiable_weights
from hf_attn_mi.attention.interval import attention_interval
from hf_attn_mi.attention.necessity import necessity_distance
from hf_attn_mi.attention.noise import unit_noise
from hf_attn_mi.attention.rollout import rollout
from hf_attn_mi.attention.tolerance import ToleranceCurve, tolerance_curve

__all__ = [
    "EffectiveAttention",
    "EffectiveSummary",
    "EfficientAttention",
    "IdentifiableWeights",
    "ToleranceCurve",
    "attention_interval",
    "effective_attention",
    "effective_summary",
    "efficient_attention",
    "identifiable_weights",
    "necessity_distance",
    "received_effective",
    "rollout",
    "tolerance_curve",
    "unit_noise",
]
