"""Fused routines on tensors: what explanations need, without a queries x keys matrix."""

from hf_attn_mi.kernels.analysis.call import analyse
from hf_attn_mi.kernels.analysis.result import Analysis
from hf_attn_mi.kernels.effective.call import EffectiveRows, effective_rows
from hf_attn_mi.kernels.effective.received import Received, received_weights
from hf_attn_mi.kernels.mixture import mixture_information
from hf_attn_mi.kernels.moments.call import ClassMoments, class_moments
from hf_attn_mi.kernels.moments.factors import ClassFactors, class_separation, factor_classes, linear_discriminant
from hf_attn_mi.kernels.neighbours.call import NeighbourCounts, neighbour_counts, ross_information
from hf_attn_mi.kernels.probe.call import probe_information
from hf_attn_mi.kernels.rows.call import EfficientRows, efficient_rows

__all__ = [
    "Analysis",
    "ClassFactors",
    "ClassMoments",
    "EffectiveRows",
    "EfficientRows",
    "NeighbourCounts",
    "Received",
    "analyse",
    "class_moments",
    "class_separation",
    "effective_rows",
    "efficient_rows",
    "factor_classes",
    "linear_discriminant",
    "mixture_information",
    "neighbour_counts",
    "probe_information",
    "received_weights",
    "ross_information",
]
