"""When `backend="auto"` takes numba for efficient rows: by the size of the call alone, whatever was called before."""

import importlib.util

import pytest
import torch

from hf_attn_mi.kernels.efficient import efficient_rows, operation
from hf_attn_mi.kernels.efficient.torch import solve_torch

pytestmark = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba (extra `fast`) is missing")


def rows(heads, count):
    generator = torch.Generator().manual_seed(0)
    attention = torch.rand(heads, count, 8, generator=generator, dtype=torch.float64)
    return attention, torch.randn(heads, 8, 3, generator=generator, dtype=torch.float64)


@pytest.fixture
def solved_by_torch(monkeypatch):
    """Whatever is chosen, PyTorch solves, which is faster than compiling."""
    monkeypatch.setattr(operation, "implementation", lambda name, backend: solve_torch)


def test_the_rows_of_all_heads_of_the_call_count(solved_by_torch):
    enough = operation.NUMBA_ROWS
    assert efficient_rows(*rows(1, enough)).backend == "numba"
    assert efficient_rows(*rows(1, enough - 1)).backend == "torch"
    assert efficient_rows(*rows(4, enough // 4)).backend == "numba"
    assert efficient_rows(*rows(1, enough), backend="torch").backend == "torch"


def test_earlier_calls_change_nothing(solved_by_torch):
    taken = [efficient_rows(*rows(1, count)).backend for count in (20, operation.NUMBA_ROWS, 20, *[100] * 12, 20)]
    assert taken == ["torch", "numba", *["torch"] * 14]
