"""Operations on tensors, each in a folder with its definition (`reference.py`) and its backends; see `dispatch`.

None of them forms a queries x keys or an n x n matrix.
"""

from hf_attn_mi.kernels.attention_statistics import AttentionStatistics, attention_statistics
from hf_attn_mi.kernels.dispatch import register_backend
from hf_attn_mi.kernels.effective import EffectiveRows, effective_rows, received_weights
from hf_attn_mi.kernels.efficient import EfficientRows, efficient_rows
from hf_attn_mi.kernels.mixture import mixture_information
from hf_attn_mi.kernels.moments import (
    ClassFactors,
    ClassMoments,
    class_moments,
    class_separation,
    factor_classes,
    linear_discriminant,
)
from hf_attn_mi.kernels.neighbors import NeighborCounts, neighbor_counts, ross_information
from hf_attn_mi.kernels.probe import probe_information

__all__ = [
    "AttentionStatistics",
    "ClassFactors",
    "ClassMoments",
    "EffectiveRows",
    "EfficientRows",
    "NeighborCounts",
    "attention_statistics",
    "class_moments",
    "class_separation",
    "effective_rows",
    "efficient_rows",
    "factor_classes",
    "linear_discriminant",
    "mixture_information",
    "neighbor_counts",
    "probe_information",
    "received_weights",
    "register_backend",
    "ross_information",
]
