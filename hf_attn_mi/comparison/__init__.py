"""The frozen result of `compare`: methods by metrics, how sure each difference is, and what each method costs."""

from hf_attn_mi.comparison.record import Comparison, MethodCost

__all__ = ["Comparison", "MethodCost"]
