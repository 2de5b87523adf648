"""`attention_statistics` against its definition in float64, within twice the error of plain PyTorch."""

import dataclasses

import pytest
import torch

from hf_attn_mi.kernels import attention_statistics
from hf_attn_mi.kernels.attention_statistics import torch as shared_keys
from hf_attn_mi.kernels.attention_statistics.reference import (
    reference_allowed,
    reference_attention_statistics,
    reference_rows,
)
from hf_attn_mi.kernels.effective.value_basis import epsilon_of
from tests.kernels.bounds import ABSOLUTE, assert_within_twice

TENSORS = ("received", "received_effective", "mean_entropy", "null_space_fraction")


def sample(batch, heads, kv_heads, queries, keys, dim=16, *, seed=0, dtype=torch.float32, device="cpu"):
    """Return query, key, value in the layout of a model: heads are a transposed view."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count, length):
        drawn = torch.randn(batch, length, count, dim, generator=generator, dtype=torch.float64)
        return drawn.to(dtype).to(device).transpose(1, 2)

    return draw(heads, queries), draw(kv_heads, keys), draw(kv_heads, keys) + 0.3


def specify(query, key, value, dtype, **masks):
    """Return the definition in `dtype` (its linear algebra in float32 at least) and the attention rows."""
    query, key, value = (x.cpu() for x in (query, key, value))
    masks = {name: x.cpu() if isinstance(x, torch.Tensor) else x for name, x in masks.items()}
    mask = masks.get("mask")
    bias = mask.to(dtype) if mask is not None and mask.dtype != torch.bool else None
    allowed = reference_allowed((*query.shape[:3], key.shape[2]), **masks)
    rows = reference_rows(query.to(dtype), key.to(dtype), allowed, bias=bias)
    wide = torch.promote_types(dtype, torch.float32)
    epsilon = epsilon_of(query, key, value)
    return reference_attention_statistics(rows.to(wide), value.to(wide), allowed, epsilon), rows


def assert_agrees(statistics, exact, plain, absolute, *, direct=False):
    """Check every field: error within twice that of plain PyTorch, rank and n equal.

    Args:
        direct: compare the null-space fraction itself; else its square, because it comes from a difference of squares.
    """
    for name, expected in exact.items():
        computed, rough = getattr(statistics, name).cpu(), plain[name]
        if name in ("rank", "n"):
            assert torch.equal(computed, expected), name
            continue
        if name == "null_space_fraction" and not direct:
            computed, expected, rough = computed.double().square(), expected.square(), rough.double().square()
        assert_within_twice(name, computed, expected, rough, absolute)


def check(query, key, value, *, backend="torch", output=False, direct=False, **masks):
    """Run and compare; on CPU the PyTorch pass has to keep the bound of float32 for half precision, too."""
    dtype = query.dtype
    wide = dtype if backend == "triton" else torch.promote_types(dtype, torch.float32)
    exact, rows = specify(query, key, value, torch.float64, **masks)
    plain, _ = specify(query, key, value, wide, **masks)
    outputs = None
    if output:
        repeated = value.cpu().double().repeat_interleave(query.shape[1] // value.shape[1], 1)
        outputs = (rows @ repeated).to(dtype).to(query.device)
    statistics = attention_statistics(query, key, value, outputs, backend=backend, **masks)
    assert statistics.backend == backend
    assert_agrees(statistics, exact, plain, ABSOLUTE[wide], direct=direct)
    return statistics, exact


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("length", [1, 63, 100, 257])
def test_agrees_with_specification(length, dtype, backend, device, nan_filled):
    query, key, value = sample(1, 2, 2, length, length, dtype=dtype, device=device)
    check(query, key, value, backend=backend)
    check(query, key, value, backend=backend, output=True)


@pytest.mark.parametrize("length", [1, 63, 100])
def test_float64(length):
    check(*sample(1, 2, 1, length, length, dtype=torch.float64), output=True)


@pytest.mark.parametrize("dim", [8, 24, 80, 256])
def test_head_dims_and_grouped_queries(dim, backend, device):
    check(*sample(2, 4, 2, 37, 70, dim, device=device), backend=backend, output=True)


def test_query_and_value_of_different_width(backend, device):
    query, key, _ = sample(1, 2, 2, 33, 50, 8, device=device)
    _, _, value = sample(1, 2, 2, 33, 50, 24, device=device)
    check(query, key, value, backend=backend)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_padding_holes_and_empty_examples(dtype, backend, device, nan_filled):
    query, key, value = sample(4, 4, 2, 66, 66, dtype=dtype, device=device)
    real = torch.ones(4, 66, dtype=torch.bool, device=device)
    real[0, 50:] = real[1, :20] = real[2, 10:40] = real[3] = False
    found, _ = check(query, key, value, backend=backend, key_mask=real, query_mask=real, output=True)
    assert (found.received[~real[:, None].expand(-1, 4, -1)] == 0).all()
    assert (found.mean_entropy[3] == 0).all()
    assert (found.n[3] == 0).all()
    noisy = [x.masked_fill(~real[:, None, :, None], torch.nan) for x in (query, key, value)]
    again = attention_statistics(*noisy, None, key_mask=real, query_mask=real, backend=backend)
    plain = attention_statistics(query, key, value, None, key_mask=real, query_mask=real, backend=backend)
    torch.testing.assert_close(again.received_effective, plain.received_effective, atol=2e-6, rtol=0)


def spectrum(values, condition):
    """The values with singular values that fall evenly from 1 to 1 / condition."""
    left, _, right = torch.linalg.svd(values.double(), full_matrices=False)
    sizes = torch.logspace(0, -torch.log10(torch.tensor(condition)).item(), values.shape[-1], dtype=torch.float64)
    return ((left * sizes) @ right).to(values.dtype)


@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6])
def test_ill_conditioned_values(condition, backend, device):
    query, key, value = sample(1, 2, 2, 100, 100, 8)
    query, key, value = (x.to(device) for x in (query, key, spectrum(value, condition)))
    check(query, key, value, backend=backend, output=True)


def test_ill_conditioned_values_in_float64():
    query, key, value = sample(1, 2, 2, 100, 100, 8, dtype=torch.float64)
    found, _ = check(query, key, spectrum(value, 1e6), output=True)
    assert (found.rank == 8).all()


def test_duplicate_and_equal_keys(backend, device):
    query, key, value = sample(1, 2, 2, 40, 40, device=device)
    key, value = key.clone(), value.clone()
    key[:, :, 5:] = key[:, :, 5:6]
    value[:, :, 5:] = value[:, :, 5:6]
    found, _ = check(query, key, value, backend=backend, output=True)
    assert (found.rank == 6).all()
    key[:], value[:] = key[:, :, :1], value[:, :, :1]
    found, _ = check(query, key, value, backend=backend, output=True)
    assert (found.rank == 1).all()
    assert (attention_statistics(query, key, value * 0, None, backend=backend).rank == 0).all()


def test_uniform_one_hot_and_large_logits(backend, device):
    query, key, value = sample(1, 2, 2, 60, 60, device=device)
    uniform, _ = check(query * 0, key, value, backend=backend)
    torch.testing.assert_close(uniform.mean_entropy, torch.full_like(uniform.mean_entropy, 60.0).log())
    sharp, exact = check(query * 3e3, key, value, backend=backend)
    assert exact["mean_entropy"].max() < 0.1  # nearly one-hot
    assert (sharp.mean_entropy >= 0).all()


def test_half_precision_does_not_overflow(backend, device):
    query, key, value = sample(1, 2, 2, 50, 50, dtype=torch.float16, device=device)
    found = attention_statistics(query, key, value * 8000, None, backend=backend)
    same = attention_statistics(query, key, value, None, backend=backend)
    torch.testing.assert_close(found.null_space_fraction, same.null_space_fraction, atol=1e-3, rtol=0)
    assert all(bool(torch.isfinite(x).all()) for x in dataclasses.asdict(found).values() if isinstance(x, torch.Tensor))


def test_short_input_has_no_invisible_part_at_all(backend, device):
    query, key, value = sample(2, 2, 2, 12, 12, 16, device=device)
    found, _ = check(query, key, value, backend=backend)
    assert (found.null_space_fraction == 0).all()
    assert torch.equal(found.received, found.received_effective)


def test_batch_equals_single(backend, device):
    query, key, value = sample(5, 2, 2, 40, 40, device=device)
    whole = attention_statistics(query, key, value, None, backend=backend)
    for b in range(5):
        alone = attention_statistics(query[b : b + 1], key[b : b + 1], value[b : b + 1], None, backend=backend)
        for name in TENSORS:
            torch.testing.assert_close(getattr(whole, name)[b], getattr(alone, name)[0], atol=1e-6, rtol=1e-5)


def test_tiles_change_nothing(monkeypatch):
    query, key, value = sample(3, 4, 2, 90, 90)
    real = torch.ones(3, 90, dtype=torch.bool)
    real[1, 70:] = False
    whole = attention_statistics(query, key, value, None, key_mask=real, query_mask=real)
    for tile in (1, 700, 20_000):
        monkeypatch.setattr(shared_keys, "TILE", tile)
        part = attention_statistics(query, key, value, None, key_mask=real, query_mask=real)
        for name in TENSORS:
            torch.testing.assert_close(getattr(part, name), getattr(whole, name), atol=2e-6, rtol=1e-5)


def test_without_effective_attention_the_rest_is_the_same(backend, device):
    query, key, value = sample(2, 4, 2, 70, 70, device=device)
    whole = attention_statistics(query, key, value, None, backend=backend)
    assert_part(attention_statistics(query, key, value, None, effective=False, backend=backend), whole)


def assert_part(part, whole):
    """What does not concern effective attention is as in the whole result, the rest is None."""
    for field in dataclasses.fields(part):
        if field.name in ("received", "mean_entropy", "rank", "n"):
            torch.testing.assert_close(getattr(part, field.name), getattr(whole, field.name), atol=2e-5, rtol=1e-5)
        elif field.name != "backend":
            assert getattr(part, field.name) is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_given_rows_that_sum_to_less_than_one(dtype):
    query, key, value = sample(2, 4, 2, 60, 60, dtype=dtype)
    real = torch.ones(2, 60, dtype=torch.bool)
    real[1, 40:] = False
    _, rows = specify(query, key, value, torch.float64, key_mask=real, query_mask=real)
    sink = torch.linspace(0.2, 0.9, 60, dtype=torch.float64)[:, None]
    rows = (rows * sink).to(dtype)
    allowed = reference_allowed((2, 4, 60, 60), key_mask=real, query_mask=real)
    exact = reference_attention_statistics(rows.double(), value.double(), allowed, epsilon_of(value))
    kept = rows.clone()
    statistics = attention_statistics(None, None, value, None, rows=rows, key_mask=real, query_mask=real)
    assert torch.equal(rows, kept)
    wide = torch.promote_types(dtype, torch.float32)
    plain = reference_attention_statistics(rows.to(wide), value.to(wide), allowed, epsilon_of(value))
    assert_agrees(statistics, exact, plain, ABSOLUTE[wide])
