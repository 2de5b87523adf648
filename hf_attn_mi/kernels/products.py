"""Float32 matrix products on the CPU, by the faster of the two libraries that PyTorch has for them."""

from __future__ import annotations

import torch
from torch import Tensor

WORTH_COPYING = 2**25  # multiplications: for fewer, oneDNN saves less time than the copies that it needs take
ROWS = 512  # rows copied at a time: to allocate memory for all of them would take longer than the product
STRIPES = 4  # stripes of columns in a Gram matrix: three of eight products are mirror images


def product(left: Tensor, right: Tensor) -> Tensor:
    """Return left (m, n) times right (n, q).

    Large float32 products go to oneDNN, IEEE float32 as well, where the processor has AVX-512: on AMD processors MKL,
    which `@` calls, leaves half of it unused (2.2 times as fast for 603 x 2,000 x 384; on Intel both are alike). The
    order of summation differs, so that the last digits do. `@` is used where the user allows less exact products.

    Args:
        left: (m, n).
        right: (n, q).

    Example:
        >>> product(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0]]))
        tensor([[11.]])
    """
    if left.shape[0] * left.shape[1] * right.shape[1] < WORTH_COPYING or not _by_onednn(left, right):
        return left @ right
    transposed, rows = right.T.contiguous(), left.split(ROWS)  # type: ignore[no-untyped-call]
    return torch.cat([torch.nn.functional.linear(part.to_mkldnn(), transposed).to_dense() for part in rows])


def gram(points: Tensor) -> Tensor:
    """Return (d, d) points^T points of points (n, d), each pair of stripes of columns multiplied once.

    Example:
        >>> gram(torch.tensor([[1.0, 2.0], [0.0, 3.0]]))
        tensor([[ 1.,  2.],
                [ 2., 13.]])
    """
    d = points.shape[1]
    width = -(-d // STRIPES)
    squares = points.new_empty(d, d)
    for start in range(0, d, width):
        stop = min(start + width, d)
        part = points[:, start:stop].T @ points[:, start:]
        squares[start:stop, start:] = part
        squares[stop:, start:stop] = part[:, stop - start :].T
    return squares


def _by_onednn(left: Tensor, right: Tensor) -> bool:
    return (
        left.dtype == right.dtype == torch.float32
        and left.device.type == right.device.type == "cpu"
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and _exact()
    )


def _exact() -> bool:
    """Whether the user wants float32 products in float32, by either of PyTorch's settings."""
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # it was set for one backend only, so that there is no answer for all of them
        return False
