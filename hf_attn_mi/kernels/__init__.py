"""Fused routines on tensors: what explanations need, without a queries x keys matrix."""

from hf_attn_mi.kernels.analyse_call import analyse
from hf_attn_mi.kernels.analysis import Analysis
from hf_attn_mi.kernels.moments import ClassMoments, class_moments
from hf_attn_mi.kernels.moments_factors import ClassFactors, class_separation, factor_classes, linear_discriminant
from hf_attn_mi.kernels.neighbours import NeighbourCounts, neighbour_counts, ross_information
from hf_attn_mi.kernels.rows import EfficientRows, efficient_rows

__all__ = [
    "Analysis",
    "ClassFactors",
    "ClassMoments",
    "EfficientRows",
    "NeighbourCounts",
    "analyse",
    "class_moments",
    "class_separation",
    "efficient_rows",
    "factor_classes",
    "linear_discriminant",
    "neighbour_counts",
    "ross_information",
]
