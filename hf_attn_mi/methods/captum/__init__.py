"""Captum's gradient and perturbation methods as token-scoring methods."""

from hf_attn_mi.methods.captum.options import Options
from hf_attn_mi.methods.captum.scorer import SCORERS, CaptumScorer

__all__ = ["SCORERS", "CaptumScorer", "Options"]
