"""Classification heads that return their attention: additive, deep or scaled dot product; softmax or Gumbel-softmax.

Importing this package registers the classes with the auto classes of transformers, so that saved heads are loaded.
"""

from hf_attn_mi.heads.configuration import AttentionHeadConfig
from hf_attn_mi.heads.head import AttentionHead, HeadOutput
from hf_attn_mi.heads.modeling import (
    AttentionHeadForSequenceClassification,
    AttentionHeadOutput,
    register_auto_classes,
)
from hf_attn_mi.heads.normalizers import TemperatureSchedule, gumbel_softmax, masked_softmax

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

register_auto_classes()
