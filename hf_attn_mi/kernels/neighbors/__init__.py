"""Neighbor counts for Ross's estimator of the information between states of any dimension and a class.

A backend is a function (states: Tensor, codes: Tensor, ranks: Tensor) -> Tensor: states (sites, n, d), the class 0 ...
K - 1 of each point, k_i of each class (0: the class does not exist); it returns the counts m_i, (sites, n) long.
`reference.py` defines them.
"""

from hf_attn_mi.kernels.neighbors.operation import NeighborCounts, neighbor_counts, ross_information

__all__ = ["NeighborCounts", "neighbor_counts", "ross_information"]
