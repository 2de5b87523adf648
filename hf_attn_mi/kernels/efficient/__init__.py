"""Efficient attention rows: for each row the vertex of its polytope of equivalent rows that keeps most attention.

A backend is a function (rows: Rows, weights: Tensor) -> Vertices: the linear programs of some rows, and the attention
rows (rows, keys) by which similar ones are found. Rows that it gives up (optimal False) are solved by PyTorch.
`reference.py` defines the result.
"""

from hf_attn_mi.kernels.efficient.operation import EfficientRows, efficient_rows

__all__ = ["EfficientRows", "efficient_rows"]
