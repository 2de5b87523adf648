"""Statistics of one attention call without its matrix: received weights, entropy and effective attention.

A backend is a function (inputs: KernelInputs, effective: bool) -> AttentionStatistics; `reference.py` defines the
result.
"""

from hf_attn_mi.kernels.attention_statistics.operation import AttentionStatistics, attention_statistics

__all__ = ["AttentionStatistics", "attention_statistics"]
