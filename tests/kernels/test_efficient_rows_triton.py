"""Efficient rows by the Triton kernel against those of PyTorch, which test_efficient_rows.py compares with HiGHS.

Without CUDA the kernel runs in Triton's interpreter: few rows.
"""

import importlib.util

import pytest
import torch

from hf_attn_mi.errors import BackendUnavailableError, InvalidInputError
from hf_attn_mi.kernels import efficient_rows
from hf_attn_mi.kernels.efficient import torch as rows_torch
from hf_attn_mi.kernels.efficient.torch import Basis, certify

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def draw(heads, queries, keys, dim, *, seed=0, sharpness=2.0):
    """Random attention (heads, queries, keys) and values (heads, keys, dim), float64."""
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(heads, queries, keys, generator=generator, dtype=torch.float64)
    values = torch.randn(heads, keys, dim, generator=generator, dtype=torch.float64)
    return logits.softmax(-1).to(DEVICE), values.to(DEVICE)


def duplicates():
    attention, values = draw(1, 4, 30, 5)
    values[:, 15:] = values[:, :15]
    return attention, values


def rounded():
    """Weights and values on a coarse grid: degenerate vertices and ties."""
    attention, values = draw(1, 5, 32, 4)
    attention = (attention * 40).round() + 1
    return attention / attention.sum(-1, keepdim=True), (values * 2).round()


def zero_dimensions():
    """Rank 5 of 6 dimensions, in two heads of different rank."""
    attention, values = draw(2, 2, 20, 6)
    values[:, :, 2] = 0
    values[1, :, 4] = values[1, :, 0] - values[1, :, 1]
    return attention, values


def one_hot():
    attention, values = draw(1, 6, 24, 4)
    attention[:, :3] = torch.eye(24, dtype=torch.float64, device=DEVICE)[[0, 3, 23]]
    attention[:, 3:] *= torch.arange(24, device=DEVICE) % 9 == 0
    return attention / attention.sum(-1, keepdim=True), values


def uniform():
    attention, values = draw(1, 3, 48, 8)
    return torch.full_like(attention, 1 / 48), values


def with_a_sink():
    attention, values = draw(1, 4, 40, 8)
    attention = attention * 1e-4
    attention[:, :, 0] = 1 - attention[:, :, 1:].sum(-1)
    values[:, 0] *= 1e-3
    return attention, values


def clusters():
    """Nearly all attention on keys that differ by 1e-6: optimal bases of a condition number near 1e6."""
    attention, values = draw(1, 6, 40, 4, sharpness=1.0)
    values[:, :30] = values[:, :1] + 1e-6 * values[:, :30]
    attention[:, :, 30:] *= 1e-9
    return attention / attention.sum(-1, keepdim=True), values


def equal_values():
    attention, values = draw(1, 3, 20, 4)
    return attention, values[:, :1].expand_as(values).contiguous()


DEGENERATE = (rounded, one_hot)  # several bases hold the same vertex, each with its own gap
FAMILIES = {
    "d = 4": lambda: draw(2, 4, 16, 4),
    "d = 15, one padded site": lambda: draw(1, 3, 40, 15),
    "d = 8": lambda: draw(2, 3, 30, 8),
    "d = 31": lambda: draw(1, 2, 64, 31),
    "d = 1": lambda: draw(1, 3, 50, 1),
    "d = 64, tile of 64": lambda: draw(1, 1, 80, 64),
    "d = 128, tile of 128": lambda: draw(1, 1, 140, 128),
    "one key too many": lambda: draw(1, 3, 10, 8),
    "two chunks": lambda: draw(1, 3, 200, 6),
    **{
        make.__name__: make
        for make in (duplicates, rounded, zero_dimensions, one_hot, uniform, with_a_sink, clusters, equal_values)
    },
}


def assert_same(found, expected, *, degenerate=False):
    """Rows, supports and certificates of PyTorch, and the certificates themselves."""
    assert found.backend == "triton"
    assert found.optimal.all()
    assert (found.attention >= 0).all()
    assert found.residual.max() <= 1e-9
    torch.testing.assert_close(found.attention, expected.attention, atol=1e-8, rtol=0)
    assert degenerate or torch.equal(found.support, expected.support)
    if not degenerate:
        torch.testing.assert_close(found.gap, expected.gap, atol=1e-7, rtol=1e-6)
        torch.testing.assert_close(found.smallest_weight, expected.smallest_weight, atol=1e-9, rtol=1e-6)
        torch.testing.assert_close(found.smallest_singular, expected.smallest_singular, atol=0, rtol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_same_rows_as_torch(name):
    attention, values = FAMILIES[name]()
    found, expected = (efficient_rows(attention, values, backend=backend) for backend in ("triton", "torch"))
    assert_same(found, expected, degenerate=FAMILIES[name] in DEGENERATE)


@pytest.mark.parametrize("name", ["d = 8", "rounded", "one_hot"])
def test_same_rows_for_the_cost_of_the_head(name):
    attention, values = FAMILIES[name]()
    options = {"objective": "head"}
    found, expected = (efficient_rows(attention, values, backend=b, **options) for b in ("triton", "torch"))
    assert_same(found, expected, degenerate=FAMILIES[name] in DEGENERATE)


def test_tolerance():
    attention, values = draw(1, 4, 30, 8)
    found, expected = (efficient_rows(attention, values, tolerance=0.2, backend=b) for b in ("triton", "torch"))
    assert found.backend == "triton"
    torch.testing.assert_close(found.attention, expected.attention, atol=1e-9, rtol=0)
    assert found.support.max() < 9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision(dtype):
    attention, values = (tensor.to(dtype) for tensor in draw(1, 3, 30, 6))
    found, expected = (efficient_rows(attention, values, backend=backend) for backend in ("triton", "torch"))
    assert found.attention.dtype == dtype
    torch.testing.assert_close(found.attention, expected.attention)
    assert torch.equal(found.support, expected.support)


def test_causal_rows_and_pads_with_dirt_in_masked_places():
    i, j = torch.arange(12, device=DEVICE)[:, None], torch.arange(12, device=DEVICE)
    causal, pads = (j <= i).expand(1, 12, 12), torch.stack([j < 9, j >= 2])[:, None]
    for heads, allowed in ((1, causal), (2, pads)):
        attention, values = draw(heads, 12, 12, 3)
        clean = efficient_rows(attention, values, allowed, backend="torch")
        values = values.masked_fill(~allowed.any(1)[:, :, None], torch.nan)
        found = efficient_rows(attention.where(allowed, torch.nan), values, allowed, backend="triton")
        assert_same(found, clean)
        assert (found.attention.masked_select(~allowed) == 0).all()


def test_few_keys_and_rows_without_attention():
    attention, values = draw(2, 4, 5, 4)
    assert torch.equal(efficient_rows(attention, values, backend="triton").attention, attention)
    attention, values = draw(1, 3, 20, 3)
    attention[0, 1] = 0
    found = efficient_rows(attention, values, backend="triton")
    assert found.support[0].tolist() == [4, 0, 4]
    assert found.attention.isfinite().all()


def refuse(*given):
    pytest.fail("a row was left to the solver in PyTorch")


@pytest.mark.parametrize(
    "name",
    [
        "d = 4",
        "d = 15, one padded site",
        "d = 31",
        "d = 64, tile of 64",
        "d = 128, tile of 128",
        "two chunks",
        "duplicates",
    ],
)
def test_float32_finds_the_optimal_basis_without_help(name, monkeypatch):
    from hf_attn_mi.kernels.efficient import triton as rows_triton

    monkeypatch.setattr(rows_torch, "solve_torch", refuse)
    monkeypatch.setattr(rows_triton, "solve", refuse)
    assert efficient_rows(*FAMILIES[name](), backend="triton").optimal.all()


@pytest.mark.parametrize("make", [uniform, clusters])
def test_float64_finishes_what_float32_cannot_see(make, monkeypatch):
    """Ties of 1e-7 and keys 1e-6 apart: the basis of float32 is not optimal, and is where float64 goes on."""
    from hf_attn_mi.kernels.efficient import triton as rows_triton

    attention, values = make()
    expected = efficient_rows(attention, values, backend="torch")
    started = []

    def finish(rows, basis):
        started.append(len(rows.head))
        again = certify(rows, Basis(basis.keys, basis.inverse))
        assert not again.optimal.any()  # only these are continued
        torch.testing.assert_close(again.basis.inverse, basis.inverse)
        return solve(rows, basis)

    solve = rows_triton.solve
    monkeypatch.setattr(rows_triton, "solve", finish)
    monkeypatch.setattr(rows_torch, "solve_torch", refuse)
    assert_same(efficient_rows(attention, values, backend="triton"), expected)
    assert sum(started) > 0


def test_singular_bases_come_from_torch(monkeypatch):
    from hf_attn_mi.kernels.efficient import triton as rows_triton

    attention, values = draw(1, 4, 20, 4)
    expected = efficient_rows(attention, values, backend="torch")

    def broken(rows, weights):
        kept = find(rows, weights)
        kept[::2, 1] = kept[::2, 0]
        return kept

    find = rows_triton.find_bases
    monkeypatch.setattr(rows_triton, "find_bases", broken)
    monkeypatch.setattr(rows_triton, "solve", lambda *given: pytest.fail("started from a singular basis"))
    assert_same(efficient_rows(attention, values, backend="triton"), expected)


def test_largest_singular_value_is_that_of_the_decomposition():
    from hf_attn_mi.kernels.efficient.triton import largest_singular

    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(40, 12, 12, generator=generator, dtype=torch.float64)
    left, sizes, right = torch.linalg.svd(matrices)
    sizes[:20, 1] = sizes[:20, 0] * (1 - torch.logspace(-12, 0, 20, dtype=torch.float64) * 0.9)  # close to the largest
    sizes[20:] *= torch.logspace(-8, 8, 20, dtype=torch.float64)[:, None]
    sizes[:, -1] = 1e-9 * sizes[:, 0]
    found = largest_singular((left * sizes[:, None, :]) @ right)
    torch.testing.assert_close(found, sizes[:, 0], rtol=1e-9, atol=0)


def test_arguments_are_left_alone_and_need_not_be_contiguous():
    attention, values = draw(1, 3, 20, 4)
    turned, sliced = attention.mT.contiguous().mT, torch.stack([values, values], -1)[..., 0]
    copies = attention.clone(), values.clone()
    found, plain = efficient_rows(turned, sliced, backend="triton"), efficient_rows(attention, values, backend="triton")
    assert torch.equal(found.attention, plain.attention)
    assert torch.equal(attention, copies[0])
    assert torch.equal(values, copies[1])


def test_asked_for_by_name_it_runs_or_raises(monkeypatch):
    attention, values = draw(1, 2, 131, 129)
    with pytest.raises(BackendUnavailableError, match="at most 128 dimensions or 129 keys"):
        efficient_rows(attention, values, backend="triton")
    assert efficient_rows(attention, values).backend == "torch"
    attention, values = draw(1, 2, 8, 3)
    find = importlib.util.find_spec
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None if name == "triton" else find(name))
        with pytest.raises(
            BackendUnavailableError, match=r'triton is not installed \(pip install "hf_attn_mi\[gpu\]"\)'
        ):
            efficient_rows(attention, values, backend="triton")
        assert efficient_rows(attention, values).backend == "torch"
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(BackendUnavailableError, match="needs CUDA"):
        efficient_rows(attention.cpu(), values.cpu(), backend="triton")
    with pytest.raises(InvalidInputError, match="torch, numba, triton"):
        efficient_rows(attention, values, backend="cuda")


def test_auto_takes_triton_on_cuda_alone():
    expected = "triton" if DEVICE == "cuda" else "torch"
    assert efficient_rows(*draw(1, 2, 8, 3)).backend == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dim", [64, 128])
def test_real_sizes_on_the_gpu(dim):
    attention, values = draw(12, 512, 512, dim, sharpness=3.0)
    found = efficient_rows(attention, values, backend="triton")
    assert found.optimal.all()
    assert found.residual.max() <= 1e-9
    picked = torch.arange(0, 512, 31, device=DEVICE)  # 17 rows of each of 12 heads
    expected = efficient_rows(attention[:, picked], values, backend="torch")
    torch.testing.assert_close(found.attention[:, picked], expected.attention, atol=1e-8, rtol=0)
    assert torch.equal(found.support[:, picked], expected.support)
    torch.testing.assert_close(found.gap[:, picked], expected.gap, atol=1e-7, rtol=1e-6)
