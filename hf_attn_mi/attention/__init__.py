"""Functions of attention rows and values: effective and efficient attention, identifiability, rollout."""

from hf_attn_mi.attention.effective import EffectiveAttention, effective_attention, unit_noise
from hf_attn_mi.attention.efficient import (
    EfficientAttention,
    ToleranceCurve,
    efficient_attention,
    necessity_distance,
    tolerance_curve,
)
from hf_attn_mi.attention.intervals import IdentifiableWeights, attention_interval, identifiable_weights
from hf_attn_mi.attention.rollout import rollout

__all__ = [
    "EffectiveAttention",
    "EfficientAttention",
    "IdentifiableWeights",
    "ToleranceCurve",
    "attention_interval",
    "effective_attention",
    "efficient_attention",
    "identifiable_weights",
    "necessity_distance",
    "rollout",
    "tolerance_curve",
    "unit_noise",
]
