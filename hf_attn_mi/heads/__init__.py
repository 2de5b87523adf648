"""Classification heads whose attention is part of the answer: additive, deep, scaled dot product; softmax or Gumbel."""

from hf_attn_mi.heads.configuration import AttentionHeadConfig
from hf_attn_mi.heads.head import AttentionHead, HeadOutput
from hf_attn_mi.heads.modeling import (
    AttentionHeadForSequenceClassification,
    AttentionHeadOutput,
    register_auto_classes,
)
from hf_attn_mi.heads.normalizers import gumbel_softmax, masked_softmax
from hf_attn_mi.heads.schedules import TemperatureSchedule

__all__ = [
    "AttentionHead",
    "AttentionHeadConfig",
    "AttentionHeadForSequenceClassification",
    "AttentionHeadOutput",
    "HeadOutput",
    "TemperatureSchedule",
    "gumbel_softmax",
    "masked_softmax",
    "register_auto_classes",
]
