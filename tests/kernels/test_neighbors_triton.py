"""Neighbor counts with Triton: equal to PyTorch's and to the definition in float64, without exception."""

import pytest
import torch

from hf_attn_mi.errors import BackendUnavailableError
from hf_attn_mi.kernels import neighbor_counts
from hf_attn_mi.kernels.neighbors import triton as neighbors_triton
from hf_attn_mi.kernels.neighbors.reference import reference_neighbor_counts
from tests.kernels.test_neighbors import far_away, plain, tied, tiny_float64, two_places

pytestmark = pytest.mark.usefixtures("needs_triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def few_duplicates(x):
    return torch.cat([x[: len(x) - len(x) // 4], x[: len(x) // 4]])


def duplicates_and_outlier(x):
    return torch.cat([few_duplicates(x)[1:], 1e4 * x[:1]])


def half_precision(x):
    return x.half()


def bfloat16(x):
    return x.bfloat16()


DATA = [
    plain,
    tied,
    far_away,
    few_duplicates,
    duplicates_and_outlier,
    two_places,
    tiny_float64,
    half_precision,
    bfloat16,
]


def points(n, d, classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(n, d, generator=generator)
    labels = torch.randint(classes, (n,), generator=generator)
    labels[: min(n, 2)] = 0  # some class has two members
    return states, labels


def counted(states, labels, k):
    """Counts with Triton; everything in them equals PyTorch's."""
    found = neighbor_counts(states.to(DEVICE), labels.to(DEVICE), k, backend="triton")
    assert found.backend == "triton"
    expected = neighbor_counts(states, labels, k, backend="torch")
    for name in ("within", "neighbors", "class_sizes"):
        assert torch.equal(getattr(found, name).cpu(), getattr(expected, name)), name
    return found


def check(states, labels, k):
    """Counts equal PyTorch's and the definition."""
    found = counted(states, labels, k)
    within, neighbors, sizes = reference_neighbor_counts(states, labels, k)
    assert torch.equal(found.within.cpu(), within)
    assert torch.equal(found.neighbors.cpu(), neighbors)
    assert torch.equal(found.class_sizes.cpu(), sizes)


@pytest.mark.parametrize("change", DATA)
@pytest.mark.parametrize(
    ("n", "d", "classes", "k"), [(1, 5, 1, 3), (63, 1, 4, 3), (100, 24, 30, 5), (100, 300, 1, 16), (257, 20, 3, 1)]
)
def test_equals_the_definition(change, n, d, classes, k, nan_filled):
    states, labels = points(n, d, classes)
    check(change(states), labels, k)


def test_classes_of_one(nan_filled):
    states, labels = points(130, 12, 40)
    assert (torch.bincount(labels) == 1).any()
    check(states, labels, 2)


def test_slots_layouts_and_parts(monkeypatch):
    states, labels = points(5 * 63, 10, 3)
    states, labels = states.reshape(5, 63, 10).double(), labels[:63]
    states[1] *= 1e-150  # one site with a scale of its own
    states[2] = states[2, :1]  # one that never changes
    states[3] = two_places(states[3])
    crooked = states.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert not crooked.is_contiguous()
    whole = counted(crooked, labels, 3)
    for i, site in enumerate(states):
        assert torch.equal(whole.within[i].cpu(), reference_neighbor_counts(site, labels, 3)[0])
    monkeypatch.setattr(neighbors_triton, "HELD", 2 * 63 * 32)  # two sites at a time
    parts = counted(crooked, labels, 3)
    assert torch.equal(parts.within, whole.within)


@pytest.mark.parametrize(
    ("change", "torch_counts"), [(plain, 0), (half_precision, 0), (few_duplicates, 0), (two_places, 1)]
)
def test_the_kernels_count_where_lists_suffice(change, torch_counts, monkeypatch):
    calls = []
    original = neighbors_triton.count_torch
    monkeypatch.setattr(neighbors_triton, "count_torch", lambda *a: calls.append(1) or original(*a))
    states, labels = points(100, 8, 3)
    found = neighbor_counts(change(states).to(DEVICE), labels.to(DEVICE), backend="triton")
    assert len(calls) == torch_counts
    assert torch.equal(found.within.cpu(), reference_neighbor_counts(change(states), labels, 3)[0])


def test_tf32_elsewhere_changes_nothing(monkeypatch):
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    states, labels = points(100, 24, 3)
    found = neighbor_counts(states.to(DEVICE), labels.to(DEVICE), backend="triton")
    assert torch.equal(found.within.cpu(), reference_neighbor_counts(states, labels, 3)[0])


def test_what_it_refuses(monkeypatch):
    states, labels = points(100, 8, 3)
    states, labels = states.to(DEVICE), labels.to(DEVICE)
    with pytest.raises(BackendUnavailableError, match="at most 16 neighbors"):
        neighbor_counts(states, labels, 17, backend="triton")
    wide = torch.randn(20, 8192, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    with pytest.raises(BackendUnavailableError, match="too wide"):
        neighbor_counts(wide, labels[:20], backend="triton")
    assert neighbor_counts(states, labels, 17).backend == "torch"
    assert neighbor_counts(states.cpu(), labels.cpu()).backend == "torch"
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(BackendUnavailableError, match="needs CUDA"):
        neighbor_counts(states.cpu(), labels.cpu(), backend="triton")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_real_size(dtype):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (2000,), generator=generator)
    states = torch.randn(8, 2000, 384, generator=generator) * torch.arange(1, 385).rsqrt()
    states[1, 1000:1100] = states[1, :100]
    states[2] = (states[2] * 2).round()
    found = counted(states.to(dtype), labels, 3)
    for site in (0, 1, 2):
        expected = reference_neighbor_counts(states[site].to(dtype), labels, 3)[0]
        assert torch.equal(found.within[site].cpu(), expected)
