"""Float32 products against float64, held to what `@` reaches."""

import pytest
import torch

from hf_attn_mi.kernels import products
from hf_attn_mi.kernels.products import gram, product
from hf_attn_mi.mi.folds import by_fold, from_folds


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def error(found, left, right):
    return float((found.double() - left.double() @ right.double()).abs().max())


@pytest.mark.parametrize("shape", [(603, 2000, 100), (1100, 257, 300), (1, 63, 5)])
@pytest.mark.parametrize("transposed", [False, True])
def test_product_is_as_exact_as_float32_is(shape, transposed):
    m, n, q = shape
    left = draws(n, m).T if transposed else draws(m, n)
    right = draws(q, n, seed=1).T if transposed else draws(n, q, seed=1)
    found = product(left, right)
    assert found.dtype == torch.float32
    # Sums in another order: error bound n u sum |a| |b|, of which neither uses more than a hundredth.
    bound = float((left.abs() @ right.abs()).max()) * 2**-24 * n / 100
    assert error(found, left, right) <= max(2 * error(left @ right, left, right), bound)


def test_product_is_plain_where_the_user_allows_less(monkeypatch):
    left, right = draws(600, 1000), draws(1000, 100)
    asked = []
    monkeypatch.setattr(torch.nn.functional, "linear", lambda *given: asked.append(given))
    torch.set_float32_matmul_precision("high")
    try:
        assert torch.equal(product(left, right), left @ right)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(product(left.double(), right.double()), left.double() @ right.double())
    assert torch.equal(product(left[:5], right), left[:5] @ right)
    assert not asked
    assert products.WORTH_COPYING > 5 * 1000 * 100


@pytest.mark.parametrize("d", [1, 3, 63, 100, 257])
def test_gram_is_the_whole_product(d):
    points = draws(500, d)
    found = gram(points)
    assert torch.equal(found, found.T)
    assert error(found, points.T, points) <= 2 * error(points.T @ points, points.T, points) + 1e-5


@pytest.mark.parametrize("sizes", [(4, 4, 4), (3, 5, 1)])
def test_values_come_back_from_their_folds(sizes):
    fold_of = torch.cat([torch.full((size,), fold) for fold, size in enumerate(sizes)])
    fold_of = fold_of[torch.randperm(len(fold_of), generator=torch.Generator().manual_seed(0))]
    values = draws(len(fold_of), 2)
    parts = by_fold(values, fold_of)
    assert parts.shape == (3, max(sizes), 2)
    for fold, part in enumerate(parts):
        torch.testing.assert_close(part.sum(0), values[fold_of == fold].sum(0))
    assert torch.equal(from_folds(parts, fold_of), values)
