"""What the tests of the kernels share."""

import importlib.util

import pytest
import torch

HAS_TRITON = importlib.util.find_spec("triton") is not None


@pytest.fixture(params=["torch", "triton"])
def backend(request):
    """Each backend that is there."""
    if request.param == "triton" and not HAS_TRITON:
        pytest.skip("triton is not installed")
    return request.param


@pytest.fixture
def needs_triton():
    if not HAS_TRITON:
        pytest.skip("triton is not installed")


@pytest.fixture(params=[pytest.param("cpu"), pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request, backend):
    """The CPU (Triton: interpreted) and, where there is one, the GPU."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if request.param == "cpu" and backend == "triton" and torch.cuda.is_available():
        pytest.skip("Triton kernels run on the CUDA device here")
    return request.param


@pytest.fixture
def nan_filled(monkeypatch):
    """New memory holds NaN, so that an element nobody writes shows."""
    empty, new_empty = torch.empty, torch.Tensor.new_empty

    def fill(tensor):
        return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor

    monkeypatch.setattr(torch, "empty", lambda *a, **k: fill(empty(*a, **k)))
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *a, **k: fill(new_empty(*a, **k)))
