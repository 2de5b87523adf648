"""Class moments with Triton: within twice the error of PyTorch's in the same dtype, against float64."""

import math

import pytest
import torch

from hf_attn_mi.errors import BackendUnavailableError
from hf_attn_mi.kernels import class_moments, class_separation, factor_classes
from hf_attn_mi.kernels.moments import triton as moments_triton
from hf_attn_mi.kernels.moments.reference import reference_class_moments
from tests.kernels.bounds import assert_within_twice

pytestmark = pytest.mark.usefixtures("needs_triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def mixture(sites, n, d, classes, seed=0):
    """States of Gaussian classes, their class and soft outputs."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    labels[: min(n, classes)] = torch.arange(classes)[:n]
    means = torch.randn(sites, classes, d, generator=generator)
    mixing = torch.randn(d, d, generator=generator) / math.sqrt(d) + torch.eye(d)
    states = (means[:, labels] + torch.randn(sites, n, d, generator=generator)) @ mixing
    soft = torch.softmax(2 * torch.randn(n, classes, generator=generator).double(), 1)
    return states, labels, soft


def check(states, outputs, folds):
    """Means, Gram matrices and sums: error at most twice PyTorch's, mean and maximum, for each site."""
    found = class_moments(states.to(DEVICE), outputs.to(DEVICE), folds=folds, backend="triton")
    plain = class_moments(states, outputs, folds=folds, backend="torch")
    assert (found.backend, plain.backend) == ("triton", "torch")
    for name in ("weights", "products", "sizes", "fold_of"):
        torch.testing.assert_close(getattr(found, name).cpu(), getattr(plain, name), rtol=1e-12, atol=0)
    hot = outputs if outputs.dim() == 2 else torch.nn.functional.one_hot(outputs).double()
    exact = [reference_class_moments(site, hot, plain.fold_of, len(plain.sizes)) for site in states]
    expected = {
        "mean": states.double().mean(1),
        "grams": torch.stack([site[3] for site in exact]),
        "sums": torch.stack([site[2] for site in exact]),
    }
    for name, reference in expected.items():
        computed = getattr(found, name)
        assert computed.dtype == torch.float32
        atol = 1e-6 * min(1.0, float(reference.abs().max()))
        assert_within_twice(name, computed, reference, getattr(plain, name), atol)
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "d"), [(1, 24), (63, 5), (100, 70), (257, 24)])
def test_within_twice_the_error_of_pytorch(n, d, dtype, nan_filled):
    states, labels, soft = mixture(2, n, d, 3)
    labels = labels if n > 2 else labels * 0
    for outputs in (labels, soft):
        check(states.to(dtype), outputs, min(n, 4))


def test_wide_states_and_many_classes(nan_filled):
    # Several tiles of features and of labels, the last of each not full.
    states, labels, soft = mixture(1, 63, 130, 70)
    check(states, labels, 3)
    check(states.half(), soft, 3)


def test_far_from_the_origin_centring_is_what_counts():
    states, labels, _ = mixture(2, 257, 24, 3)
    check(states + 1000, labels, 10)


def test_duplicates_constant_slots_and_layouts(nan_filled):
    states, labels, _ = mixture(3, 100, 12, 3)
    states[0, 50:] = states[0, :50]
    states[1] = states[1, :1]
    crooked = states.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert not crooked.is_contiguous()
    check(crooked, labels, torch.arange(100) % 7)
    nested = states[:, None].expand(3, 2, 100, 12)
    found = class_moments(nested.to(DEVICE), labels.to(DEVICE), backend="triton")
    assert found.grams.shape == (3, 2, 10, 12, 12)
    assert found.sums.shape == (3, 2, 10, 3, 12)
    assert torch.equal(found.grams[:, 0], found.grams[:, 1])


def test_parts_of_the_grid_change_nothing(monkeypatch):
    states, labels, _ = mixture(5, 63, 8, 3)
    whole = check(states, labels, 10)
    monkeypatch.setattr(moments_triton, "GRID", 20)  # two sites at a time
    parts = check(states, labels, 10)
    assert torch.equal(whole.grams, parts.grams)
    assert torch.equal(whole.sums, parts.sums)


def test_what_follows_is_the_same():
    states, labels, _ = mixture(2, 257, 16, 3)
    separations = [
        class_separation(moments, factor_classes(moments, metric="total", shrinkage=1e-4)).cpu()
        for moments in (
            class_moments(states.to(DEVICE), labels.to(DEVICE), backend="triton"),
            class_moments(states.double(), labels),
        )
    ]
    torch.testing.assert_close(separations[0].double(), separations[1].double(), rtol=1e-4, atol=1e-4)


def test_what_it_refuses(monkeypatch):
    states, labels, _ = mixture(1, 63, 8, 3)
    with pytest.raises(BackendUnavailableError, match="states is float64"):
        class_moments(states.double().to(DEVICE), labels.to(DEVICE), backend="triton")
    assert class_moments(states.double().to(DEVICE), labels.to(DEVICE)).backend == "torch"
    assert class_moments(states, labels).backend == "torch"
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(BackendUnavailableError, match="needs CUDA"):
        class_moments(states, labels, backend="triton")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", DTYPES)
def test_real_size(dtype):
    states, labels, soft = mixture(8, 2000, 384, 4)
    check(states.to(dtype), labels, 10)
    check(states.to(dtype), soft, 10)
