"""Attention rows and what they say: effective, efficient, identifiable, rolled out."""

from hf_attn_mi.attention.effective import (
    EffectiveAttention,
    EffectiveSummary,
    effective_attention,
    effective_summary,
    received_effective,
)
from hf_attn_mi.attention.efficient import EfficientAttention, efficient_attention
from hf_attn_mi.attention.interval import attention_interval
from hf_attn_mi.attention.rollout import rollout

__all__ = [
    "EffectiveAttention",
    "EffectiveSummary",
    "EfficientAttention",
    "attention_interval",
    "effective_attention",
    "effective_summary",
    "efficient_attention",
    "received_effective",
    "rollout",
]
