"""Class sums and neighbors of the same class under permuted classes, against the definitions in float64."""

import importlib.util

import pytest
import torch

from hf_attn_mi.errors import BackendUnavailableError
from hf_attn_mi.kernels.permutations import agreeing_neighbors, permuted_sums
from hf_attn_mi.kernels.permutations.reference import reference_agreeing_neighbors, reference_permuted_sums

WITH_NUMBA = importlib.util.find_spec("numba") is not None
needs_numba = pytest.mark.skipif(not WITH_NUMBA, reason="numba (extra `fast`) is not installed")
BACKENDS = ["torch", pytest.param("numba", marks=needs_numba)]


def data(n, d, classes, orders=5):
    generator = torch.Generator().manual_seed(n)
    labels = torch.randint(classes, (n,), generator=generator)
    permuted = torch.stack([labels[torch.randperm(n, generator=generator)] for _ in range(orders)])
    ends = [0, *torch.bincount(labels, minlength=classes).cumsum(0).tolist()]
    return torch.randn(n, d, generator=generator), permuted, permuted.argsort(dim=1, stable=True).int(), ends


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("n", "d", "classes"), [(1, 1, 1), (63, 5, 3), (257, 130, 4), (600, 256, 2), (300, 128, 40)])
def test_sums_of_classes(backend, n, d, classes, nan_filled):
    points, _, members, ends = data(n, d, classes)
    found = permuted_sums(points, members, ends, backend=backend)
    expected = reference_permuted_sums(points, members, ends)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("n", "d", "classes", "k"), [(2, 1, 2, 10), (63, 5, 3, 1), (257, 30, 4, 10), (600, 3, 200, 10)]
)
def test_neighbors_of_the_same_class(backend, n, d, classes, k):
    points, permuted, _, _ = data(n, d, classes)
    labels = permuted.T.to(torch.int16 if classes > 127 else torch.int8).contiguous()
    found = agreeing_neighbors(points, labels, k, backend=backend)
    assert found.tolist() == reference_agreeing_neighbors(points, labels, k).tolist()


def test_auto_is_one_of_both_and_numba_may_be_missing(monkeypatch):
    points, permuted, members, ends = data(63, 5, 3)
    torch.testing.assert_close(
        permuted_sums(points, members, ends), permuted_sums(points, members, ends, backend="torch")
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailableError, match="numba is not installed"):
        agreeing_neighbors(points, permuted.T.char(), 3, backend="numba")
