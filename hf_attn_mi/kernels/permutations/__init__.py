"""What permutation tests of the dependence of states and classes compute for each order of the classes.

A backend of `permuted_sums` is a function (points: Tensor, members: Tensor, ends: list[int]) -> Tensor: points (n, d)
float32; members (orders, n) int32, the examples of each order class after class, ascending within a class; class c has
the places from ends[c] to ends[c + 1]. It returns (orders, K, d) float32 sums over classes.

A backend of `agreeing_neighbors` is a function (points: Tensor, labels: Tensor, k: int) -> Tensor: points (n, d)
float32, labels (n, orders) int8 or int16. It returns (orders,) long numbers of pairs of a point and one of its k
nearest neighbors that have the same class. `reference.py` defines both.
"""

from hf_attn_mi.kernels.permutations.operation import agreeing_neighbors, permuted_sums

__all__ = ["agreeing_neighbors", "permuted_sums"]
