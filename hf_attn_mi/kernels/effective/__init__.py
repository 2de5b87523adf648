"""Effective attention rows A P of rows that a model has formed, and what keys receive of them.

P is the orthogonal projector on the column space of the values. `reference.py` defines both operations; PyTorch is
their only backend.
"""

from hf_attn_mi.kernels.effective.operation import effective_rows
from hf_attn_mi.kernels.effective.torch import EffectiveRows, received_weights

__all__ = ["EffectiveRows", "effective_rows", "received_weights"]
