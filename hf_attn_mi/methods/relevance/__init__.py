"""Relevance by a linearized forward pass: "relevance", "attnlrp" and "attnlrp_iterative"."""

from hf_attn_mi.methods.relevance.gradient_times_input import Relevance, relevance
from hf_attn_mi.methods.relevance.iterative import REMOVED_FRACTIONS, iterative_scores
from hf_attn_mi.methods.relevance.linearized_forward import LinearizedForward, SoftmaxRule
from hf_attn_mi.methods.relevance.scorer import SCORERS, RelevanceScorer

__all__ = [
    "REMOVED_FRACTIONS",
    "SCORERS",
    "LinearizedForward",
    "Relevance",
    "RelevanceScorer",
    "SoftmaxRule",
    "iterative_scores",
    "relevance",
]
