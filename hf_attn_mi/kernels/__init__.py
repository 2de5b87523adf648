"""Fused routines on tensors: what explanations need, without a queries x keys matrix."""

from hf_attn_mi.kernels.attention_statistics.call import attention_statistics
from hf_attn_mi.kernels.attention_statistics.result import AttentionStatistics
from hf_attn_mi.kernels.effective.call import EffectiveRows, effective_rows
from hf_attn_mi.kernels.effective.received import Received, received_weights
from hf_attn_mi.kernels.efficient.call import EfficientRows, efficient_rows
from hf_attn_mi.kernels.mixture import mixture_information
from hf_attn_mi.kernels.moments.call import ClassMoments, class_moments
from hf_attn_mi.kernels.moments.factors import ClassFactors, class_separation, factor_classes, linear_discriminant
from hf_attn_mi.kernels.neighbors.call import NeighborCounts, neighbor_counts, ross_information
from hf_attn_mi.kernels.probe.call import probe_information

__all__ = [
    "AttentionStatistics",
    "ClassFactors",
    "ClassMoments",
    "EffectiveRows",
    "EfficientRows",
    "NeighborCounts",
    "Received",
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
    "ross_information",
]
