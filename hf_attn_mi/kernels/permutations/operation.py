"""Class sums, and neighbors of the same class, of one set of points under many orders of the classes."""

from __future__ import annotations

from torch import Tensor

from hf_attn_mi.kernels.dispatch import choose_backend, implementation
from hf_attn_mi.kernels.large_calls import is_worth_loading


def permuted_sums(points: Tensor, members: Tensor, ends: list[int], *, backend: str = "auto") -> Tensor:
    """Return (orders, K, d) the sum of the points of each class in each order.

    Args:
        points: (n, d) float32.
        members: (orders, n) int32 indices of examples, class after class, ascending within a class.
        ends: (K + 1,) class c has the places from ends[c] to ends[c + 1], the same in every order.
        backend: "torch", "numba" (extra `fast`, tensors on the CPU) or "auto": numba in a call that is large
            enough for it, see `neighbor_counts`.

    Raises:
        BackendUnavailableError: the requested backend is not installed, or cannot do this call.

    Example:
        >>> import torch
        >>> points, members = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[0, 1, 2], [0, 2, 1]]).int()
        >>> permuted_sums(points, members, [0, 2, 3]).squeeze().tolist()
        [[3.0, 4.0], [5.0, 2.0]]
    """
    return _call("permuted_sums", backend, points, members, ends)


def agreeing_neighbors(points: Tensor, labels: Tensor, k: int, *, backend: str = "auto") -> Tensor:
    """Return (orders,) the number of pairs of a point and one of its k nearest other points that have the same class.

    Distances are compared in float32. Of points at the same distance any is taken.

    Args:
        points: (n, d) float32.
        labels: (n, orders) int8 or int16 classes.
        k: neighbors, fewer than 128.
        backend: as for `permuted_sums`.

    Raises:
        BackendUnavailableError: the requested backend is not installed, or cannot do this call.

    Example:
        >>> import torch
        >>> points, labels = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[0, 0], [0, 1], [1, 1]]).char()
        >>> agreeing_neighbors(points, labels, 1).tolist()  # 0 and 1, 1 and 0, 5 and 1
        [2, 1]
    """
    return _call("agreeing_neighbors", backend, points, labels, k)


def _call(operation: str, backend: str, points: Tensor, *arguments: object) -> Tensor:
    avoid = () if is_worth_loading() else ("numba",)
    chosen = choose_backend(operation, backend, points.device, avoid=avoid)
    result: Tensor = implementation(operation, chosen)(points, *arguments)
    return result
