"""When `backend="auto"` takes numba for efficient rows: from a number of rows on, and always once it is loaded."""

import importlib.util
import sys
from types import ModuleType

import pytest
import torch

from hf_attn_mi.kernels.efficient import efficient_rows, operation
from hf_attn_mi.kernels.efficient.torch import solve_torch

pytestmark = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba (extra `fast`) is missing")


def rows(count):
    generator = torch.Generator().manual_seed(0)
    attention = torch.rand(1, count, 8, generator=generator, dtype=torch.float64)
    return attention, torch.randn(1, 8, 3, generator=generator, dtype=torch.float64)


@pytest.fixture
def not_loaded(monkeypatch):
    """A process that has not loaded numba; PyTorch solves in its place, which is faster than compiling."""
    monkeypatch.setattr(operation, "_rows_solved", 0)
    monkeypatch.delitem(sys.modules, operation.NUMBA_MODULE, raising=False)
    monkeypatch.setattr(operation, "implementation", lambda name, backend: solve_torch)


def test_many_small_calls_load_it_in_the_end(not_loaded, monkeypatch):
    monkeypatch.setattr(operation, "NUMBA_ROWS", 50)
    taken = [efficient_rows(*rows(20)).backend for _ in range(4)]
    assert taken == ["torch", "torch", "numba", "numba"]


def test_a_small_call_takes_it_once_it_is_loaded(not_loaded, monkeypatch):
    assert efficient_rows(*rows(2)).backend == "torch"
    monkeypatch.setitem(sys.modules, operation.NUMBA_MODULE, ModuleType(operation.NUMBA_MODULE))
    assert efficient_rows(*rows(2)).backend == "numba"
    assert efficient_rows(*rows(2), backend="torch").backend == "torch"
